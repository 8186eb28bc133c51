//! Patches on the CPU. `pixels` may lie at any distance as long as their last dimension is contiguous; `patches` are contiguous.
//!
//! A part is one row of patches of one tubelet: it reads a band of pixels and writes one run of the result. It goes
//! through the band in runs of `patch_w` pixels of one channel. Where neighbours stay neighbours, a run is vectors, and
//! without normalisation and rounding a copy; else single elements. A byte has 256 values: each channel gets a table
//! of what they become, which is exact and costs one load from L1 per value.
//!
//! Bound: memory, one read and one write.

use super::{PatchOrder, Patchify, PixelLayout};
use crate::backend::cpu::simd::{Lane, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Elem};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_lane;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Patchify {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("patchify", supports, launch).takes(&[Takes::Rows])];
}

fn supports<S: Simd>(_: &Patchify, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Patchify>, op: &Patchify, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let constants = l.optional::<f32>(1).zip(l.optional::<f32>(2));
    with_lane!(op.out, U => if op.dtype == DType::U8 {
        let tables: Vec<[U; 256]> = (0..op.channels).map(|c| table(op.scale.0, constants.map(|(m, d)| (m[c], d[c])))).collect();
        bands::<u8, U>(op, l, |c, from, to| {
            let table = &tables[c];
            from.for_each(to, |&v| table[usize::from(v)]);
        });
    } else {
        bands::<f32, U>(op, l, |c, from, to| {
            let map = constants.map(|(mean, std)| [op.scale.0, mean[c], 1.0 / std[c]]);
            match (to.step, from.step) {
                (1, 1) => run(s, &from.values[..to.count], map, to.values),
                _ => match map {
                    None => from.for_each(to, |&v| U::from_f64(v.into())),
                    Some([scale, mean, inverse]) => {
                        from.for_each(to, |&v| U::from_f64(((v * scale - mean) * inverse).into()));
                    }
                },
            }
        });
    });
    Ok(())
}

/// What each byte becomes.
fn table<U: Elem>(scale: f32, constants: Option<(f32, f32)>) -> [U; 256] {
    std::array::from_fn(|v| {
        let v = v as f32;
        U::from_f64(constants.map_or(v, |(mean, std)| (v * scale - mean) / std).into())
    })
}

/// Pixels of one channel along x.
struct From<'a, T> {
    values: &'a [T],
    step: usize,
}

/// Their places in the result.
struct To<'a, U> {
    values: &'a mut [U],
    step: usize,
    count: usize,
}

impl<T> From<'_, T> {
    #[inline(always)]
    fn for_each<U>(&self, to: To<'_, U>, f: impl Fn(&T) -> U) {
        if self.step == 0 {
            // A broadcast width.
            let first = &self.values[0];
            return to.values.iter_mut().step_by(to.step).for_each(|to| *to = f(first));
        }
        let from = self.values.iter().step_by(self.step).take(to.count);
        if to.step == 1 {
            for (from, to) in from.zip(to.values) {
                *to = f(from);
            }
        } else {
            for (from, to) in from.zip(to.values.iter_mut().step_by(to.step)) {
                *to = f(from);
            }
        }
    }
}

/// Calls `work(channel, from, to)` for every run of pixels.
fn bands<T: Elem, U: Elem>(
    op: &Patchify,
    l: &mut Launch<'_, Cpu>,
    work: impl Fn(usize, From<'_, T>, To<'_, U>) + Sync,
) {
    let (pixels, strides) = (l.input::<T>(0), l.layout(0).strides);
    let Some(out) = l.output::<U>(0) else { return };
    let [b_step, c_step, t_step, y_step, x_step] = match op.layout {
        PixelLayout::Planar => [strides[0], strides[1], strides[2], strides[3], strides[4]],
        PixelLayout::Interleaved => [strides[0], strides[4], strides[1], strides[2], strides[3]],
    };
    let [grid_t, grid_h, grid_w] = op.grid();
    let Patchify { channels, tubelet, patch_h, patch_w, .. } = *op;
    let len = op.patch_len();
    if out.is_empty() {
        return;
    }
    l.pool().chunks_mut(out, grid_w * len, |i, out| {
        let (b, t, gy) = (i / (grid_t * grid_h), i / grid_h % grid_t, i % grid_h);
        let band = b * b_step + t * tubelet * t_step + gy * patch_h * y_step;
        for (gx, patch) in out.chunks_exact_mut(len).enumerate() {
            for (f, y) in (0..tubelet).flat_map(|f| (0..patch_h).map(move |y| (f, y))) {
                let from = band + f * t_step + y * y_step + gx * patch_w * x_step;
                let line = f * patch_h + y;
                for c in 0..channels {
                    let (to, step) = match op.order {
                        PatchOrder::ChannelFirst => ((c * tubelet * patch_h + line) * patch_w, 1),
                        PatchOrder::ChannelLast => (line * patch_w * channels + c, channels),
                    };
                    let reach = (patch_w - 1) * step + 1;
                    let to = To { values: &mut patch[to..to + reach], step, count: patch_w };
                    work(c, From { values: &pixels[from + c * c_step..], step: x_step }, to);
                }
            }
        }
    });
}

simd_fn! {
    /// Neighbours to neighbours; `map` is scale, mean and 1/std.
    fn run[S, U: Lane](s, x: &[f32], map: Option<[f32; 3]>, out: &mut [U]) {
        let body = x.len() - x.len() % S::LANES;
        let ((x, x_tail), (out, out_tail)) = (x.split_at(body), out.split_at_mut(body));
        let runs = x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES));
        match map {
            None => {
                for (x, out) in runs {
                    U::store(s, s.load(x), out);
                }
                U::store_part(s, s.load_part(x_tail), out_tail);
            }
            Some(map) => {
                let [scale, mean, inverse] = map.map(|v| s.splat(v));
                for (x, out) in runs {
                    U::store(s, s.mul(s.sub(s.mul(s.load(x), scale), mean), inverse), out);
                }
                let tail = s.mul(s.sub(s.mul(s.load_part(x_tail), scale), mean), inverse);
                U::store_part(s, tail, out_tail);
            }
        }
    }
}
