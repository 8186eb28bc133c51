//! RVQ decoding on the CPU: codes [levels, n], codebooks [levels, size, dim], out [n, dim], all contiguous.
//!
//! Codes are checked before anything is read. Vectors are spread over threads; each is summed over the levels while it is
//! in L1. Bound: memory, reading the chosen rows.

use super::RvqDecode;
use crate::backend::cpu::simd::{Simd, accumulate};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Error, Result, Unsupported};
use crate::isa_rows;

impl Kernels<Cpu> for RvqDecode {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("rvq_decode_f32", supports, launch)];
}

fn supports<S: Simd>(_: &RvqDecode, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, RvqDecode>, op: &RvqDecode, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (codes, books) = (l.input::<u32>(0), l.input::<f32>(1));
    let (dim, size) = (op.codebook_dim, op.codebook_size);
    if let Some(index) = codes.iter().position(|&code| code as usize >= size) {
        let (value, limit) = (u64::from(codes[index]), size as u64);
        return Err(Error::Index { op: "rvq_decode", value, index, limit });
    }
    let Some(out) = l.output::<f32>(0) else { return Ok(()) };
    let group = (8192 / dim.max(1)).max(1);
    l.pool().chunks_mut(out, group * dim, |g, out| {
        for (i, out) in out.chunks_exact_mut(dim).enumerate() {
            out.fill(0.0);
            for level in 0..op.num_quantizers {
                let code = codes[level * op.n + g * group + i] as usize;
                accumulate(s, &books[(level * size + code) * dim..][..dim], out);
            }
        }
    });
    Ok(())
}
