//! Cases of residual vector quantisation: the ops themselves.

use super::{Case, Outputs};
use crate::checkpoint::Checkpoint;
use crate::ops::rvq_encode::Distance;
use crate::ops::{rvq_decode, rvq_encode};
use crate::{DType, Device, Error, Result, Tensor};

pub(super) fn compute(case: &Case, device: &Device) -> Result<Outputs> {
    let mut out = Outputs::default();
    match case.task.as_str() {
        "tokenize" => {
            let distance = case.text("distance").unwrap_or("euclidean").parse::<Distance>()?;
            let x = case.input("x")?.tensor_as(device, DType::F32)?;
            let encoded = rvq_encode::encode(&x, &codebooks(case, device)?, distance)?;
            // Where there is one level, the reference has no dimension for it.
            let per_level =
                |t: &Tensor| if distance == Distance::Cosine { t.reshape(&[t.count()]) } else { Ok(t.clone()) };
            out.add("codes", &per_level(&encoded.codes)?)?;
            out.add("quantized", &encoded.quantized)?;
            match distance {
                Distance::Euclidean => out.add("residual_norms", &encoded.measure)?,
                Distance::Cosine => out.add("similarity", &per_level(&encoded.measure)?)?,
            }
        }
        "detokenize" => {
            let stored = case.input("codes")?;
            let codes = Tensor::from_slice(device, &stored.to_vec::<u32>()?, &stored.shape)?;
            let levels = case.size("levels_used")?.min(stored.shape[0]);
            let codes = codes.slice(0, 0..levels)?;
            let books = codebooks(case, device)?.slice(0, 0..levels)?;
            out.add("quantized", &rvq_decode::decode(&codes, &books)?)?;
        }
        _ => return Err(case.unsupported()),
    }
    Ok(out)
}

/// From the checkpoint, or by the rule that stands for one that is too large to keep.
fn codebooks(case: &Case, device: &Device) -> Result<Tensor> {
    if case.text("codebook_rule").is_some() {
        return by_rule(case, device);
    }
    let checkpoint = Checkpoint::open(case.checkpoint())?;
    let levels = checkpoint.contains("codebooks");
    let stored = checkpoint.get(if levels { "codebooks" } else { "codebook" })?;
    let tensor = stored.tensor_as(device, DType::F32)?;
    if levels { Ok(tensor) } else { tensor.reshape(&[1, stored.shape[0], stored.shape[1]]) }
}

/// Value i = (l·K + k)·D + j of a splitmix64 stream: its top 24 bits / 2^23 - 1, times 2^-l; exact in f32.
fn by_rule(case: &Case, device: &Device) -> Result<Tensor> {
    let (levels, size, dim) = (case.size("levels")?, case.size("codebook_size")?, case.size("dim")?);
    let count = levels.checked_mul(size).and_then(|n| n.checked_mul(dim)).filter(|&n| n <= 1 << 28);
    let count = count.ok_or_else(|| Error::file(case.folder(), "the codebooks are too large"))?;
    let seed = case.size("seed")? as u64;
    let value = |i: usize| {
        let mut z = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let level = (i / (size * dim)) as i32;
        (((z >> 40) as f64 / (1 << 23) as f64 - 1.0) * f64::from(-level).exp2()) as f32
    };
    let values: Vec<f32> = (0..count).map(value).collect();
    Tensor::from_slice(device, &values, &[levels, size, dim])
}
