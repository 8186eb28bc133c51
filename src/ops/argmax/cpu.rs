//! The place of the largest value, on the CPU.
//!
//! Layout: `x` [rows, cols] with contiguous rows at any distance, `out` [rows].
//!
//! Algorithm: the largest value of each block of `BLOCK` is found with vectors; only the first block with the largest
//! of all is searched for the place. A row is not split: at 32000 values it stays in L2. Threads take parts of about
//! 16 Ki values. Bound: memory, one read.

use super::Argmax;
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Argmax {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("argmax", supports, launch).takes(&[Takes::Rows])];
}

const PART: usize = 16384;
/// Values of a block: long against the folding of lanes at its end, short against a row.
const BLOCK: usize = 512;

fn supports<S: Simd>(_: &Argmax, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Argmax>, op: &Argmax, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => {
        let (x, stride) = (l.input::<T>(0), l.layout(0).strides[0]);
        let Some(out) = l.output::<u32>(0) else { return Ok(()) };
        let rows = (PART / op.cols).max(1);
        l.pool().chunks_mut(out, rows, |part, out| {
            for (j, out) in out.iter_mut().enumerate() {
                *out = place(s, &x[(part * rows + j) * stride..][..op.cols]);
            }
        });
    });
    Ok(())
}

simd_fn! {
    fn place[S, T: Lane](s, x: &[T]) -> u32 {
        let (mut best, mut block) = (f32::NEG_INFINITY, 0);
        for (i, values) in x.chunks(BLOCK).enumerate() {
            let m = largest(s, values);
            if m > best || m.is_nan() {
                (best, block) = (m, i);
            }
            if m.is_nan() {
                break;
            }
        }
        let first = block * BLOCK;
        let is_best = |v: &T| {
            let v = v.to_f64() as f32;
            v == best || (v.is_nan() && best.is_nan())
        };
        // A row of -inf alone: the first.
        (first + x[first..].iter().position(is_best).unwrap_or(0)) as u32
    }
}

/// NaN if there is one.
#[inline(always)]
fn largest<S: Simd, T: Lane>(s: S, x: &[T]) -> f32 {
    let mut all = [s.splat(f32::NEG_INFINITY); 4];
    let mut fours = x.chunks_exact(4 * S::LANES);
    for four in &mut fours {
        for (all, v) in all.iter_mut().zip(four.chunks_exact(S::LANES)) {
            *all = math::maximum(s, *all, T::load(s, v));
        }
    }
    let [a, b, c, d] = all;
    let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
    s.store(math::maximum(s, math::maximum(s, a, b), math::maximum(s, c, d)), &mut lanes);
    let fold = |m: f32, v: f32| if m >= v || m.is_nan() { m } else { v };
    let folded = lanes.into_iter().fold(f32::NEG_INFINITY, fold);
    fours.remainder().iter().fold(folded, |m, v| fold(m, v.to_f64() as f32))
}

#[cfg(test)]
mod tests {
    use crate::ops::argmax::*;
    use crate::{Device, Tensor};

    #[test]
    fn the_lowest_of_several_and_nan_first() {
        let d = Device::cpu_with_threads(1).unwrap();
        let place =
            |x: &[f32]| argmax(&Tensor::from_slice(&d, x, &[x.len()]).unwrap()).unwrap().to_vec::<u32>().unwrap()[0];
        assert_eq!(place(&[f32::NEG_INFINITY; 700]), 0);
        assert_eq!(place(&[0.0, -0.0, 0.0]), 0);
        let mut x = vec![1.0; 2000];
        (x[700], x[1700]) = (2.0, 2.0);
        assert_eq!(place(&x), 700);
        for at in [1999, 1800, 515, 0] {
            x[at] = f32::NAN;
            assert_eq!(place(&x), at as u32);
        }
        assert!(argmax(&Tensor::zeros(&d, DType::F32, &[3, 0]).unwrap()).is_err());
        assert!(argmax(&Tensor::zeros(&d, DType::F32, &[]).unwrap()).is_err());
    }
}
