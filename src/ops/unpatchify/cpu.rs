//! Patches to planes on the CPU. `patches` have contiguous rows at any distance, `pixels` are contiguous.
//!
//! A part is `patch_h` lines of one plane, a run of the result. Each line is gathered from a row of patches in pieces of
//! `patch_w` pixels: vectors where they are neighbours in the patch, else single elements. Bound: memory, one read and one
//! write; with channels innermost each line of cache is read by every plane in turn, from L2.

use super::{PatchOrder, Unpatchify};
use crate::backend::cpu::simd::{Lane, Simd, widen};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::isa_rows;
use crate::layout::Takes;
use crate::ops::with_float;

impl Kernels<Cpu> for Unpatchify {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("unpatchify", supports, launch).takes(&[Takes::Rows])];
}

fn supports<S: Simd>(_: &Unpatchify, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Unpatchify>, op: &Unpatchify, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => lines::<S, T>(s, op, l));
    Ok(())
}

fn lines<S: Simd, T: Lane>(s: S, op: &Unpatchify, l: &mut Launch<'_, Cpu>) {
    let (patches, strides) = (l.input::<T>(0), l.layout(0).strides);
    let Some(out) = l.output::<f32>(0) else { return };
    let [_, grid_h, grid_w] = op.grid();
    let Unpatchify { channels, frames, width, patch_h, patch_w, tubelet, .. } = *op;
    if out.is_empty() {
        return;
    }
    l.pool().chunks_mut(out, patch_h * width, |i, out| {
        let (plane, gy) = (i / grid_h, i % grid_h);
        let (b, c, t) = (plane / (channels * frames), plane / frames % channels, plane % frames);
        let first = b * strides[0] + (t / tubelet * grid_h + gy) * grid_w * strides[1];
        for (y, line) in out.chunks_exact_mut(width).enumerate() {
            let row = t % tubelet * patch_h + y;
            for (gx, line) in line.chunks_exact_mut(patch_w).enumerate() {
                let patch = &patches[first + gx * strides[1]..];
                match op.order {
                    PatchOrder::ChannelFirst => {
                        widen(s, &patch[(c * tubelet * patch_h + row) * patch_w..][..patch_w], line)
                    }
                    PatchOrder::ChannelLast => {
                        let values = patch[row * patch_w * channels + c..].iter().step_by(channels);
                        for (to, v) in line.iter_mut().zip(values) {
                            *to = v.to_f64() as f32;
                        }
                    }
                }
            }
        }
    });
}
