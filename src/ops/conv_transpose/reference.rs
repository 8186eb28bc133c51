use super::ConvTranspose;
use crate::ops::{Real, Sample};

pub fn conv_transpose<T: Real>(op: &ConvTranspose, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let (x, weight) = (inputs[0].as_ref().expect("checked"), inputs[1].as_ref().expect("checked"));
    let ([d_out, h_out, w_out], [d_in, h_in, w_in], [kd, kh, kw]) = (op.outputs(), *op.size, *op.kernel);
    let (channels, per_group) = (op.channels_in / op.groups, op.channels_out / op.groups);
    // The point of x that output o gets from tap k.
    let source = |axis: usize, o: usize, k: usize| {
        let spread = (o + op.before[axis]).checked_sub(k * op.dilation[axis])?;
        let point = spread / op.stride[axis];
        (spread % op.stride[axis] == 0 && point < op.size[axis]).then_some(point)
    };
    let mut out = vec![T::default(); op.batch * op.channels_out * d_out * h_out * w_out];
    for (row, sums) in out.chunks_exact_mut(w_out).enumerate().filter(|(row, _)| rows.wants(*row)) {
        let (plane, d, h) = (row / (d_out * h_out), row / h_out % d_out, row % h_out);
        let (b, r) = (plane / op.channels_out, plane % op.channels_out);
        for tap in 0..channels * kd * kh {
            let (c, k_d, k_h) = (tap / (kd * kh), tap / kh % kd, tap % kh);
            let (Some(d), Some(h)) = (source(0, d, k_d), source(1, h, k_h)) else { continue };
            let c = r / per_group * channels + c;
            let line = &x[(((b * op.channels_in + c) * d_in + d) * h_in + h) * w_in..][..w_in];
            let weight = &weight[((c * per_group + r % per_group) * kd * kh + k_d * kh + k_h) * kw..][..kw];
            for (k, &weight) in weight.iter().enumerate() {
                for (o, sum) in sums.iter_mut().enumerate() {
                    if let Some(w) = source(2, o, k) {
                        *sum += weight * line[w];
                    }
                }
            }
        }
        if let Some(bias) = &inputs[2] {
            sums.iter_mut().for_each(|sum| *sum += bias[r]);
        }
    }
    vec![out]
}
