use super::ConvBwdWeight;
use crate::ops::{Real, Sample};

pub fn conv_bwd_weight<T: Real>(op: &ConvBwdWeight, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (x, grad) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let g = op.geometry();
    let ([d_out, h_out, w_out], [d_in, h_in, w_in], [kd, kh, kw]) = (g.outputs(), g.size, g.kernel);
    let sources = [0, 1, 2].map(|axis| g.sources(axis));
    let (channels, per_group) = (op.channels_in / op.groups, op.channels_out / op.groups);
    let mut weight = vec![T::default(); op.channels_out * channels * kd * kh * kw];
    for (row, sums) in weight.chunks_exact_mut(kw).enumerate().filter(|(row, _)| rows.wants(*row)) {
        let (r, c, k_d, k_h) = (row / (channels * kd * kh), row / (kd * kh) % channels, row / kh % kd, row % kh);
        for line in 0..op.batch * d_out * h_out {
            let (b, d, h) = (line / (d_out * h_out), line / h_out % d_out, line % h_out);
            let (Some(d_from), Some(h_from)) = (sources[0][k_d][d], sources[1][k_h][h]) else { continue };
            let channel = b * op.channels_in + r / per_group * channels + c;
            let x = &x[((channel * d_in + d_from) * h_in + h_from) * w_in..][..w_in];
            let grad = &grad[(((b * op.channels_out + r) * d_out + d) * h_out + h) * w_out..][..w_out];
            for (sum, places) in sums.iter_mut().zip(&sources[2]) {
                for (&grad, place) in grad.iter().zip(places) {
                    if let Some(w) = place {
                        *sum += grad * x[*w];
                    }
                }
            }
        }
    }
    vec![weight]
}
