//! Casts on the CPU: `x` and `out` contiguous.
//!
//! Between floats (and from u8 to a float) vectors go through f32, which holds every value of the narrower types, so that
//! the only rounding is that of the result. All other pairs go through f64, which holds every value of all types, one
//! element at a time. Threads take parts of 16 Ki elements. Bound: memory.

use super::Cast;
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Elem};
use crate::error::{Result, Unsupported};
use crate::ops::with_lane;
use crate::{isa_rows, simd_fn, with_elem};

impl Kernels<Cpu> for Cast {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("cast", supports, launch)];
}

const PART: usize = 16384;

fn supports<S: Simd>(_: &Cast, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Cast>, op: &Cast, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it").exact();
    if op.to.is_float() && (op.from.is_float() || op.from == DType::U8) {
        with_lane!(op.from, T => match op.to {
            DType::F16 => parts::<T, half::f16>(l, |x, out| vectors(s, x, out)),
            DType::BF16 => parts::<T, half::bf16>(l, |x, out| vectors(s, x, out)),
            _ => parts::<T, f32>(l, |x, out| vectors(s, x, out)),
        });
    } else {
        with_elem!(op.from, T => with_elem!(op.to, U => parts::<T, U>(l, scalars)));
    }
    Ok(())
}

fn parts<T: Elem, U: Elem>(l: &mut Launch<'_, Cpu>, work: impl Fn(&[T], &mut [U]) + Sync) {
    let x = l.input::<T>(0);
    let Some(out) = l.output::<U>(0) else { return };
    l.pool().chunks_mut(out, PART, |i, out| work(&x[i * PART..][..out.len()], out));
}

simd_fn! {
    fn vectors[S, T: Lane, U: Lane](s, x: &[T], out: &mut [U]) {
        let (x_body, x_tail) = x.split_at(x.len() - x.len() % S::LANES);
        let (body, tail) = out.split_at_mut(x_body.len());
        for (x, out) in x_body.chunks_exact(S::LANES).zip(body.chunks_exact_mut(S::LANES)) {
            U::store(s, T::load(s, x), out);
        }
        if !tail.is_empty() {
            U::store_part(s, T::load_part(s, x_tail), tail);
        }
    }
}

fn scalars<T: Elem, U: Elem>(x: &[T], out: &mut [U]) {
    for (x, out) in x.iter().zip(out) {
        *out = U::from_f64(x.to_f64());
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Device, Tensor};

    #[test]
    fn values_out_of_range_become_the_nearest() {
        let d = Device::cpu_with_threads(1).unwrap();
        let x = [f32::NAN, -1.0, 255.9, 256.0, 3e9, f32::INFINITY, -3e9, -0.5];
        let x = Tensor::from_slice(&d, &x, &[8]).unwrap();
        assert_eq!(x.to_dtype(DType::U8).unwrap().to_vec::<u8>().unwrap(), [0, 0, 255, 255, 255, 255, 0, 0]);
        let wide = x.to_dtype(DType::I32).unwrap().to_vec::<i32>().unwrap();
        assert_eq!(wide, [0, -1, 255, 256, i32::MAX, i32::MAX, i32::MIN, 0]);
        let back = x.to_dtype(DType::F16).unwrap().to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap();
        assert!(back[0].is_nan() && back[4] == f32::INFINITY && back[2] == 255.875);
    }
}
