//! The gradients are an op of their own, [`attention_bwd`](crate::ops::attention_bwd).

use super::{Attention, Options, attention_with_lse};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::attention_bwd::attention_bwd;
use crate::tensor::Tensor;

pub fn grad(saved: &Saved<Attention>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (op, inputs) = (&saved.op, &saved.inputs);
    let [Some(q), Some(k), Some(v)] = &inputs[..3] else { unreachable!("run() has checked the operands") };
    let options = Options {
        causal: op.causal,
        softmax_scale: Some(op.softmax_scale.0),
        window: op.window,
        bias: inputs[3].as_ref(),
        segment_ids: inputs[4].as_ref().zip(inputs[5].as_ref()),
        key_padding: inputs[6].as_ref(),
        lens_k: inputs[7].as_ref(),
        out: op.out,
    };
    let (out, lse) = match &saved.outputs[..2] {
        [Some(out), Some(lse)] => (out.clone(), lse.clone()),
        _ => attention_with_lse(q, k, v, &options)?,
    };
    let dout = match &grads[0] {
        Some(dout) => dout.clone(),
        None => Tensor::zeros(q.device(), DType::F32, q.shape())?,
    };
    let arriving = (&dout, grads[1].as_ref());
    let found = attention_bwd([q, k, v], (&out, &lse), arriving, &options, op.bias && saved.needs(3))?;
    Ok(vec![Some(found.dq), Some(found.dk), Some(found.dv), found.dbias, None, None, None, None])
}
