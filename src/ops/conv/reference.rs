use super::Conv;
use crate::ops::{Real, Sample};

pub fn conv<T: Real>(op: &Conv, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (x, weight) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let g = op.geometry();
    let ([d_out, h_out, w_out], [d_in, h_in, w_in], [kd, kh, kw]) = (g.outputs(), g.size, g.kernel);
    let sources = [0, 1, 2].map(|axis| g.sources(axis));
    let (channels, per_group) = (op.channels_in / op.groups, op.channels_out / op.groups);
    let mut out = vec![T::default(); op.batch * op.channels_out * d_out * h_out * w_out];
    for (row, sums) in out.chunks_exact_mut(w_out).enumerate().filter(|(row, _)| rows.wants(*row)) {
        let (plane, d, h) = (row / (d_out * h_out), row / h_out % d_out, row % h_out);
        let (b, r) = (plane / op.channels_out, plane % op.channels_out);
        for tap in 0..channels * kd * kh {
            let (c, k_d, k_h) = (tap / (kd * kh), tap / kh % kd, tap % kh);
            let (Some(d), Some(h)) = (sources[0][k_d][d], sources[1][k_h][h]) else { continue };
            let channel = b * op.channels_in + r / per_group * channels + c;
            let line = &x[((channel * d_in + d) * h_in + h) * w_in..][..w_in];
            for (places, &weight) in sources[2].iter().zip(&weight[(r * channels * kd * kh + tap) * kw..][..kw]) {
                for (sum, place) in sums.iter_mut().zip(places) {
                    if let Some(w) = place {
                        *sum += weight * line[*w];
                    }
                }
            }
        }
        for sum in sums {
            *sum = op.activation.reference(inputs[2].as_ref().map_or(*sum, |bias| *sum + bias[r]));
        }
    }
    vec![out]
}
