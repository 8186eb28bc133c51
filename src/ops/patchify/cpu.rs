//! Patches on the CPU. `pixels` may lie at any distance as long as their last dimension is contiguous; `patches` are contiguous.
//!
//! A part is one row of patches of one tubelet: it reads a band of pixels and writes one run of the result. It goes
//! through the band by lines, and through a line by runs of `patch_w` pixels. Where a run's pixels stay neighbours it is
//! vectors; so are bytes of three interleaved channels, which are taken apart in registers. What sticks out of a run is
//! written too where a later line overwrites it: a store of a part costs several of a whole. All else is single elements,
//! and of a byte's 256 values each channel has a table of what they become.
//!
//! Bound: memory, one read and one write.

use super::{PatchOrder, Patchify, PixelLayout};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Elem};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Patchify {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("patchify", supports, launch).takes(&[Takes::Rows])];
}

fn supports<S: Simd>(_: &Patchify, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Patchify>, op: &Patchify, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it").exact();
    let constants = l.optional::<f32>(1).zip(l.optional::<f32>(2));
    // Scale, mean and 1/std of a channel.
    let map = |c: usize| constants.map_or([1.0, 0.0, 1.0], |(mean, std)| [op.scale.0, mean[c], 1.0 / std[c]]);
    let maps: Vec<[f32; 3]> = (0..op.channels).map(map).collect();
    let ahead = op.order == PatchOrder::ChannelFirst;
    with_float!(op.out, U => if op.dtype == DType::U8 {
        let tables: Vec<[U; 256]> = (0..op.channels).map(|c| table(op.scale.0, constants.map(|(m, d)| (m[c], d[c])))).collect();
        lines::<u8, U>(op, l, |line| match (ahead, op.channels, line.steps) {
            (true, 3, [1, 3]) => triples(s, line, [maps[0], maps[1], maps[2]]),
            _ => line.for_each(|c, &v| tables[c][usize::from(v)]),
        });
    } else {
        lines::<f32, U>(op, l, |mut line| match (ahead, line.steps) {
            (true, [_, 1]) => (0..op.channels).for_each(|c| runs(s, line.channel(c), maps[c])),
            _ => line.for_each(|c, &v| {
                let [scale, mean, inverse] = maps[c];
                U::from_f64(((v * scale - mean) * inverse).into())
            }),
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

/// A line of pixels through a row of patches.
struct Line<'a, T, U> {
    op: &'a Patchify,
    pixels: &'a [T],
    /// From a pixel's channel to the next, and from a pixel to the next.
    steps: [usize; 2],
    /// From the first patch's first place on.
    out: &'a mut [U],
    /// Places of a patch that follow in the same channel once this line has been written, all by later lines.
    after: usize,
}

impl<'a, T, U> Line<'a, T, U> {
    /// Places from a channel to the next, and from a pixel to the next.
    fn places(&self) -> [usize; 2] {
        match self.op.order {
            PatchOrder::ChannelFirst => [self.op.tubelet * self.op.patch_h * self.op.patch_w, 1],
            PatchOrder::ChannelLast => [1, self.op.channels],
        }
    }

    /// One channel of it.
    fn channel(&mut self, c: usize) -> Line<'_, T, U> {
        let (places, steps) = (self.places(), self.steps);
        let Line { op, pixels, after, .. } = *self;
        Line { op, pixels: &pixels[c * steps[0]..], steps, out: &mut self.out[c * places[0]..], after }
    }

    /// Any line, an element at a time.
    #[inline(always)]
    fn for_each(self, f: impl Fn(usize, &T) -> U) {
        let (places, steps, patch_w) = (self.places(), self.steps, self.op.patch_w);
        for (gx, out) in self.out.chunks_mut(self.op.patch_len()).enumerate() {
            for c in 0..self.op.channels {
                let from = &self.pixels[c * steps[0] + gx * patch_w * steps[1]..];
                for (x, to) in out[c * places[0]..].iter_mut().step_by(places[1]).take(patch_w).enumerate() {
                    *to = f(c, &from[x * steps[1]]);
                }
            }
        }
    }
}

/// Calls `work` for every line of every row of patches.
fn lines<T: Elem, U: Elem>(op: &Patchify, l: &mut Launch<'_, Cpu>, work: impl Fn(Line<'_, T, U>) + Sync) {
    let (pixels, strides) = (l.input::<T>(0), l.layout(0).strides);
    let Some(out) = l.output::<U>(0) else { return };
    let [b_step, c_step, t_step, y_step, x_step] = match op.layout {
        PixelLayout::Planar => [strides[0], strides[1], strides[2], strides[3], strides[4]],
        PixelLayout::Interleaved => [strides[0], strides[4], strides[1], strides[2], strides[3]],
    };
    let [grid_t, grid_h, grid_w] = op.grid();
    let Patchify { channels, tubelet, patch_h, patch_w, .. } = *op;
    if out.is_empty() {
        return;
    }
    l.pool().chunks_mut(out, grid_w * op.patch_len(), |i, out| {
        let (b, t, gy) = (i / (grid_t * grid_h), i / grid_h % grid_t, i % grid_h);
        let band = b * b_step + t * tubelet * t_step + gy * patch_h * y_step;
        for (f, y) in (0..tubelet).flat_map(|f| (0..patch_h).map(move |y| (f, y))) {
            let line = f * patch_h + y;
            let place = match op.order {
                PatchOrder::ChannelFirst => line * patch_w,
                PatchOrder::ChannelLast => line * patch_w * channels,
            };
            work(Line {
                op,
                pixels: &pixels[band + f * t_step + y * y_step..],
                steps: [c_step, x_step],
                out: &mut out[place..],
                after: (tubelet * patch_h - 1 - line) * patch_w,
            });
        }
    });
}

/// `(v · scale - mean) · inverse`
#[inline(always)]
fn mapped<S: Simd>(s: S, v: S::V, [scale, mean, inverse]: [f32; 3]) -> S::V {
    s.mul(s.sub(s.mul(v, s.splat(scale)), s.splat(mean)), s.splat(inverse))
}

/// Writes the first `count` lanes, or all of them where what follows is written later.
#[inline(always)]
fn put<S: Simd, U: Lane>(s: S, v: S::V, count: usize, after: usize, out: &mut [U]) {
    match count + after >= S::LANES {
        true => U::store(s, v, out),
        false => U::store_part(s, v, &mut out[..count]),
    }
}

simd_fn! {
    /// Neighbours to neighbours, of one channel.
    fn runs[S, U: Lane](s, line: Line<'_, f32, U>, map: [f32; 3]) {
        let (patch_w, len) = (line.op.patch_w, line.op.patch_len());
        let patches = line.out.len().div_ceil(len);
        for x in (0..patch_w).step_by(S::LANES) {
            let count = (patch_w - x).min(S::LANES);
            let (pixels, out) = (&line.pixels[x..], &mut line.out[x..]);
            // Patches whose pixels are read and written as whole vectors. With nothing to decide for each, a line of patches
            // 14 wide takes half as long.
            let whole = match patch_w - x + line.after >= S::LANES {
                true => (pixels.len() + patch_w).saturating_sub(S::LANES) / patch_w,
                false => 0,
            };
            for gx in 0..whole.min(patches) {
                U::store(s, mapped(s, s.load(&pixels[gx * patch_w..]), map), &mut out[gx * len..]);
            }
            for gx in whole.min(patches)..patches {
                let v = s.load_part(&pixels[gx * patch_w..][..count]);
                U::store_part(s, mapped(s, v, map), &mut out[gx * len..][..count]);
            }
        }
    }
}

simd_fn! {
    /// Three channels of neighbouring pixels to neighbours each.
    fn triples[S, U: Lane](s, line: Line<'_, u8, U>, maps: [[f32; 3]; 3]) {
        let (patch_w, len, [channel, _]) = (line.op.patch_w, line.op.patch_len(), line.places());
        let mut last = [0u8; 3 * MAX_LANES];
        for (gx, out) in line.out.chunks_mut(len).enumerate() {
            for x in (0..patch_w).step_by(S::LANES) {
                let count = (patch_w - x).min(S::LANES);
                let mut from = &line.pixels[3 * (gx * patch_w + x)..];
                if from.len() < 3 * S::LANES {
                    last[..3 * count].copy_from_slice(&from[..3 * count]);
                    from = &last;
                }
                for (c, (v, map)) in s.load_u8_triples(from).into_iter().zip(maps).enumerate() {
                    put(s, mapped(s, v, map), count, patch_w - x - count + line.after, &mut out[c * channel + x..]);
                }
            }
        }
    }
}
