//! With w = e^(lse_part - lse) a part's weight: its result gets w · dout, its log-sum-exp w · (dlse + dout · (part - out)).

use super::AttentionMerge;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::elementwise::{add, clamp, exp, mul, sub};
use crate::ops::reduce::sum;
use crate::tensor::Tensor;

/// Everything: parts, their log-sum-exps, and the merged ones.
pub const KEEPS: (u32, u32) = (0b1111, 0b11);

pub fn grad(saved: &Saved<AttentionMerge>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let operand = |i: usize| saved.inputs[i].as_ref().expect("run() has checked that the operand is there");
    let result = |i: usize| saved.outputs[i].as_ref().expect("every merge has both results");
    let AttentionMerge { batch, len_q, heads, .. } = saved.op;
    // From [batch, heads, len_q] to a column beside [batch, len_q, heads, head_dim], and back.
    let column = |t: &Tensor| t.reshape(&[batch, heads, len_q, 1])?.permute(&[0, 2, 1, 3]);
    let row = |t: &Tensor| t.permute(&[0, 2, 1, 3])?.contiguous()?.reshape(&[batch, heads, len_q]);
    // Where both parts saw nothing, weights are e^(-inf) = 0 and not e^(-inf - -inf).
    let lse = clamp(result(1), f32::MIN, f32::MAX)?;
    let mut found = vec![None; 4];
    for part in [0, 2].into_iter().filter(|&part| saved.needs(part) || saved.needs(part + 1)) {
        let weight = exp(&sub(operand(part + 1), &lse)?)?;
        let mut dlse = grads[1].clone();
        if let Some(dout) = &grads[0] {
            found[part] = Some(mul(dout, &column(&weight)?)?);
            let slope = row(&sum(&mul(dout, &sub(operand(part), result(0))?)?, 3)?)?;
            dlse = Some(match dlse {
                Some(dlse) => add(&dlse, &slope)?,
                None => slope,
            });
        }
        found[part + 1] = dlse.map(|dlse| mul(&weight, &dlse)).transpose()?;
    }
    Ok(found)
}
