//! Cases of ring attention, on one device: attention itself, forward and backward.

use super::{Case, Outputs};
use crate::ops::attention::{Options, attention_with_lse};
use crate::ops::elementwise::add;
use crate::{DType, Device, Result, Tensor, backward};

pub(super) fn compute(case: &Case, device: &Device) -> Result<Outputs> {
    if case.task != "forward" {
        return Err(case.unsupported());
    }
    let float = |name: &str| case.input(name)?.tensor_as(device, DType::F32);
    let [q, k, v] = [float("q")?, float("k")?, float("v")?].map(|t: Tensor| t.with_grad());
    let segment_ids = match case.has_input("segment_ids") {
        true => {
            let (ids, len) = case.ids("segment_ids")?;
            Some(Tensor::from_slice(device, &ids, &[ids.len() / len.max(1), len])?)
        }
        false => None,
    };
    let kv_mask = match case.has_input("kv_mask") {
        true => {
            let (mask, len) = case.ids("kv_mask")?;
            let mask: Vec<u8> = mask.into_iter().map(|seen| u8::from(seen != 0)).collect();
            Some(Tensor::from_slice(device, &mask, &[mask.len() / len.max(1), len])?)
        }
        false => None,
    };
    let options = Options {
        causal: case.flag("causal"),
        segment_ids: segment_ids.as_ref().map(|ids| (ids, ids)),
        key_padding: kv_mask.as_ref(),
        ..Options::default()
    };
    let (out, lse) = attention_with_lse(&q, &k, &v, &options)?;
    let gradients = backward(&[(out.clone(), float("dout")?)], add)?;
    let mut outputs = Outputs::default();
    outputs.add("out", &out)?;
    outputs.add("lse", &lse)?;
    for (name, leaf) in [("dq", &q), ("dk", &k), ("dv", &v)] {
        if let Some(gradient) = gradients.get(leaf) {
            outputs.add(name, gradient)?;
        }
    }
    Ok(outputs)
}
