//! Rotary embeddings on the CPU.
//!
//! Layout: `x` [batch, len, heads, head_dim] with contiguous rows at any distance, `positions` [axes, batch or 1, len] and
//! `inv_freq` contiguous, `out` contiguous.
//!
//! Algorithm: threads take places (b, i), about 16 Ki values at a time. The cosines and sines of a place are computed
//! once, axis by axis, and serve all its heads. Halves meet as two vectors. Of interleaved pairs a vector holds both
//! values: the table is spread to (c, c) and (-s, s), and a row is x · c plus x with neighbours exchanged · s.
//!
//! Bound: memory, one read and one write. Angles beyond 1e5 go through the scalar functions, in `math`.

use super::{MAX_AXES, Pairs, Rope};
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for Rope {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("rope", supports, launch).takes(&[Takes::Rows])];
}

/// Values of a part.
const PART: usize = 16384;

fn supports<S: Simd>(_: &Rope, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Rope>, op: &Rope, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => with_float!(op.out, O => places::<S, T, O>(s, op, l)));
    Ok(())
}

fn places<S: Simd, T: Lane, O: Lane>(s: S, op: &Rope, l: &mut Launch<'_, Cpu>) {
    let (x, strides) = (l.input::<T>(0), l.layout(0).strides);
    let angles = Angles { op, positions: Positions::new(op, l), inv_freq: l.input(2) };
    let Some(out) = l.output::<O>(0) else { return };
    if out.is_empty() {
        return;
    }
    let width = op.heads * op.head_dim;
    let places = (PART / width).max(1);
    l.pool().chunks_mut(out, places * width, |part, out| {
        let mut table = Table::new(op);
        for (n, out) in out.chunks_exact_mut(width).enumerate() {
            let (b, i) = ((part * places + n) / op.len, (part * places + n) % op.len);
            angles.fill(s, b, i, &mut table);
            let x = &x[b * strides[0] + i * strides[1]..];
            match op.pairs {
                Pairs::Halves => halves(s, x, strides[2], op.head_dim, &table, out),
                Pairs::Interleaved => interleaved(s, x, strides[2], op.head_dim, &table, out),
            }
        }
    });
}

/// The positions of all axes.
enum Positions<'a> {
    U32(&'a [u32]),
    I32(&'a [i32]),
    F32(&'a [f32]),
}

impl<'a> Positions<'a> {
    fn new(op: &Rope, l: &Launch<'a, Cpu>) -> Positions<'a> {
        match op.positions {
            DType::U32 => Positions::U32(l.input(1)),
            DType::I32 => Positions::I32(l.input(1)),
            _ => Positions::F32(l.input(1)),
        }
    }

    fn at(&self, i: usize) -> f32 {
        match self {
            Positions::U32(p) => p[i] as f32,
            Positions::I32(p) => p[i] as f32,
            Positions::F32(p) => p[i],
        }
    }
}

/// Cosines and sines of one place: one of each for a pair, or for each of its values.
struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Table {
    fn new(op: &Rope) -> Table {
        let len = match op.pairs {
            Pairs::Halves => op.rotary_dim / 2,
            Pairs::Interleaved => op.rotary_dim,
        };
        Table { cos: vec![0.0; len], sin: vec![0.0; len] }
    }
}

/// What the angles are made of.
struct Angles<'a> {
    op: &'a Rope,
    positions: Positions<'a>,
    inv_freq: &'a [f32],
}

impl Angles<'_> {
    /// The table of place `i` of sequence `b`.
    fn fill<S: Simd>(&self, s: S, b: usize, i: usize, table: &mut Table) {
        let op = self.op;
        let b = if op.positions_batch == 1 { 0 } else { b };
        let mut position = [0f32; MAX_AXES];
        for (axis, position) in position.iter_mut().enumerate().take(op.sections.len()) {
            *position = self.positions.at((axis * op.positions_batch + b) * op.len + i);
        }
        let (cos, sin) = (&mut table.cos, &mut table.sin);
        let mut from = 0;
        for (&pairs, position) in op.sections.iter().zip(position) {
            let pairs = from..from + pairs;
            from = pairs.end;
            let factors = [op.factor.0, op.sine_factor()];
            turns(s, position, &self.inv_freq[pairs.clone()], factors, &mut cos[pairs.clone()], &mut sin[pairs]);
        }
        if op.pairs == Pairs::Interleaved {
            // From the back, so that nothing is overwritten before it is read.
            for j in (0..op.rotary_dim / 2).rev() {
                (cos[2 * j + 1], cos[2 * j]) = (cos[j], cos[j]);
                (sin[2 * j + 1], sin[2 * j]) = (sin[j], -sin[j]);
            }
        }
    }
}

simd_fn! {
    /// Cosine and sine of each frequency times the position, times their factors.
    fn turns[S](s, position: f32, inv_freq: &[f32], factors: [f32; 2], cos: &mut [f32], sin: &mut [f32]) {
        let position = s.splat(position);
        let [cos_factor, sin_factor] = factors.map(|f| s.splat(f));
        for from in (0..inv_freq.len()).step_by(S::LANES) {
            let to = (from + S::LANES).min(inv_freq.len());
            let (sines, cosines) = math::sin_cos(s, s.mul(position, s.load_part(&inv_freq[from..to])));
            s.store_part(s.mul(cosines, cos_factor), &mut cos[from..to]);
            s.store_part(s.mul(sines, sin_factor), &mut sin[from..to]);
        }
    }
}

/// A pair turned.
#[inline(always)]
fn turned<S: Simd>(s: S, [first, second]: [S::V; 2], cos: S::V, sin: S::V) -> [S::V; 2] {
    [s.fnma(second, sin, s.mul(first, cos)), s.fma(first, sin, s.mul(second, cos))]
}

/// The values that are not turned.
#[inline(always)]
fn pass<S: Simd, T: Lane, O: Lane>(s: S, x: &[T], out: &mut [O]) {
    let (x_body, x_tail) = x.split_at(x.len() - x.len() % S::LANES);
    let (body, tail) = out.split_at_mut(x_body.len());
    for (x, out) in x_body.chunks_exact(S::LANES).zip(body.chunks_exact_mut(S::LANES)) {
        O::store(s, T::load(s, x), out);
    }
    O::store_part(s, T::load_part(s, x_tail), tail);
}

simd_fn! {
    /// The heads of one place, `stride` apart in `x`.
    fn halves[S, T: Lane, O: Lane](s, x: &[T], stride: usize, head_dim: usize, table: &Table, out: &mut [O]) {
        let half = table.cos.len();
        let body = half - half % S::LANES;
        let (cos, sin) = (&table.cos[..], &table.sin[..half]);
        for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let x = &x[h * stride..][..head_dim];
            let ((x, x_rest), (out, out_rest)) = (x.split_at(2 * half), out.split_at_mut(2 * half));
            let ((x0, x1), (out0, out1)) = (x.split_at(half), out.split_at_mut(half));
            for at in (0..body).step_by(S::LANES) {
                let pair = [T::load(s, &x0[at..]), T::load(s, &x1[at..])];
                let [first, second] = turned(s, pair, s.load(&cos[at..]), s.load(&sin[at..]));
                O::store(s, first, &mut out0[at..]);
                O::store(s, second, &mut out1[at..]);
            }
            if body < half {
                let pair = [T::load_part(s, &x0[body..]), T::load_part(s, &x1[body..])];
                let [first, second] = turned(s, pair, s.load_part(&cos[body..]), s.load_part(&sin[body..]));
                O::store_part(s, first, &mut out0[body..]);
                O::store_part(s, second, &mut out1[body..]);
            }
            if !x_rest.is_empty() {
                pass(s, x_rest, out_rest);
            }
        }
    }
}

simd_fn! {
    /// The heads of one place, `stride` apart in `x`. Vectors begin at even places, so that pairs stay together.
    fn interleaved[S, T: Lane, O: Lane](s, x: &[T], stride: usize, head_dim: usize, table: &Table, out: &mut [O]) {
        let turned_len = table.cos.len();
        let body = turned_len - turned_len % S::LANES;
        let (cos, sin) = (&table.cos[..], &table.sin[..turned_len]);
        for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let x = &x[h * stride..][..head_dim];
            let ((x, x_rest), (out, out_rest)) = (x.split_at(turned_len), out.split_at_mut(turned_len));
            for at in (0..body).step_by(S::LANES) {
                let v = T::load(s, &x[at..]);
                let y = s.fma(s.swap_pairs(v), s.load(&sin[at..]), s.mul(v, s.load(&cos[at..])));
                O::store(s, y, &mut out[at..]);
            }
            if body < turned_len {
                let v = T::load_part(s, &x[body..]);
                let y = s.fma(s.swap_pairs(v), s.load_part(&sin[body..]), s.mul(v, s.load_part(&cos[body..])));
                O::store_part(s, y, &mut out[body..]);
            }
            if !x_rest.is_empty() {
                pass(s, x_rest, out_rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::rope::*;
    use crate::{Device, Tensor};

    #[test]
    fn far_positions_are_exact_and_slices_are_taken_as_they_lie() {
        let d = Device::cpu_with_threads(2).unwrap();
        let (len, half) = (3, 64);
        let positions = [999_983u32, 1_048_575, 7];
        let inv_freq: Vec<f32> = (0..half).map(|j| 5e7f32.powf(-(j as f32) / half as f32)).collect();
        // Of three parts the second, whose heads are (1, 0) in each pair: they become cosine and sine.
        let ones: Vec<f32> = (0..len * 3 * 2 * 2 * half).map(|i| f32::from(i / half % 2 == 0)).collect();
        let fused = Tensor::from_slice(&d, &ones, &[1, len, 3, 2, 2 * half]).unwrap();
        let x = fused.slice(2, 1..2).unwrap().reshape(&[1, len, 2, 2 * half]).unwrap();
        let at = Tensor::from_slice(&d, &positions, &[len]).unwrap();
        let freq = Tensor::from_slice(&d, &inv_freq, &[half]).unwrap();
        let out = rope(&x, &at, &freq, &Options::default()).unwrap();
        for (row, y) in out.to_vec::<f32>().unwrap().chunks_exact(2 * half).enumerate() {
            for j in 0..half {
                let angle = f64::from(positions[row / 2] as f32 * inv_freq[j]);
                assert!((f64::from(y[j]) - angle.cos()).abs() < 2e-7, "cos {angle}: {}", y[j]);
                assert!((f64::from(y[half + j]) - angle.sin()).abs() < 2e-7, "sin {angle}: {}", y[half + j]);
            }
        }
        let back = Options { inverse: true, ..Default::default() };
        let back = rope(&out, &at, &freq, &back).unwrap().to_vec::<f32>().unwrap();
        assert!(back.iter().zip(x.contiguous().unwrap().to_vec::<f32>().unwrap()).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let d = Device::cpu_with_threads(1).unwrap();
        let zeros = |dtype, shape: &[usize]| Tensor::zeros(&d, dtype, shape).unwrap();
        let (x, freq) = (zeros(DType::F32, &[2, 3, 1, 8]), zeros(DType::F32, &[4]));
        let turn = |positions: &Tensor, freq: &Tensor, sections: &[usize]| {
            rope(&x, positions, freq, &Options { sections, ..Default::default() })
        };
        assert!(turn(&zeros(DType::U32, &[2, 3]), &freq, &[]).is_ok());
        assert!(turn(&zeros(DType::U32, &[3, 1, 3]), &freq, &[1, 1, 2]).is_ok());
        assert!(turn(&zeros(DType::U32, &[3, 1, 3]), &freq, &[]).is_err());
        assert!(turn(&zeros(DType::U32, &[3, 1, 3]), &freq, &[1, 1, 1]).is_err());
        assert!(turn(&zeros(DType::U32, &[5, 1, 3]), &freq, &[1, 1, 1, 1, 0]).is_err());
        assert!(turn(&zeros(DType::U32, &[3, 3]), &freq, &[]).is_err());
        assert!(turn(&zeros(DType::U32, &[4]), &freq, &[]).is_err());
        assert!(turn(&zeros(DType::BF16, &[3]), &freq, &[]).is_err());
        assert!(turn(&zeros(DType::U32, &[3]), &zeros(DType::F32, &[5]), &[]).is_err());
        assert!(turn(&zeros(DType::U32, &[3]), &zeros(DType::F32, &[0]), &[]).is_err());
        assert!("rope(sections=18446744073709551615x33)".parse::<Rope>().is_err());
    }
}
