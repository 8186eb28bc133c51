//! What the CPU kernels of attention share: operands by row, what a query may see, register tiles, results whose rows
//! are written by different parts of the work.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

mod soon;
pub mod tile;
mod words;

pub use soon::Soon;
pub use words::{Single, Words};

use super::Attend;
use crate::backend::Launch;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::simd::{Isa, Lane, Simd, transpose};
use crate::dtype::{DType, Elem};
use crate::error::{Error, Result};
use crate::simd_fn;
use std::ops::Range;

/// Vectors in a row of the register tile of an instruction set. Of AVX2's sixteen registers a tile of 4 x 3 needs every one, and the
/// compiler keeps some in memory: 1.4 to 1.8 times as slow as 4 x 2.
pub fn max_nv<S: Simd>() -> usize {
    match S::ISA {
        Isa::Portable => 1,
        Isa::Avx2 => 2,
        Isa::Avx512 => 3,
    }
}

/// An operand [batch, len, heads, head_dim] with contiguous rows.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    data: &'a [T],
    /// Of batch, len and heads.
    pub strides: [usize; 3],
    head_dim: usize,
}

impl<'a, T: Elem> Rows<'a, T> {
    /// Operand `i` of a launch.
    pub fn new(op: &Attend, l: &Launch<'a, Cpu>, i: usize) -> Rows<'a, T> {
        let s = l.layout(i).strides;
        Rows { data: l.input(i), strides: [s[0], s[1], s[2]], head_dim: op.head_dim }
    }

    /// Row `i` of head `h`.
    #[inline(always)]
    pub fn row(&self, b: usize, i: usize, h: usize) -> &'a [T] {
        &self.from(b, i, h)[..self.head_dim]
    }

    /// Everything from row `i` of head `h` on.
    #[inline(always)]
    pub fn from(&self, b: usize, i: usize, h: usize) -> &'a [T] {
        &self.data[b * self.strides[0] + i * self.strides[1] + h * self.strides[2]..]
    }

    /// `n` rows from number `i` of head `h` on, to be brought closer.
    pub fn soon(&self, b: usize, i: usize, h: usize, n: usize) -> Soon {
        if n == 0 {
            return Soon::NONE;
        }
        let (row, bytes) = (self.row(b, i, h), size_of::<T>());
        Soon { next: row.as_ptr().cast(), stride: self.strides[1] * bytes, bytes: size_of_val(row), left: n }
    }
}

/// What decides which keys a query sees and what is added to its scores.
#[derive(Clone, Copy)]
pub struct Masks<'a> {
    pub op: &'a Attend,
    bias: Option<(&'a [f32], [usize; 3])>,
    ids: Option<(&'a [u32], &'a [u32])>,
    padding: Option<&'a [u8]>,
    lens: Option<&'a [u32]>,
}

impl<'a> Masks<'a> {
    /// From the operands of a launch of op `name`, of which number `first` is the bias.
    ///
    /// # Errors
    /// An entry of `lens_k` is larger than `len_k`.
    pub fn new(name: &'static str, op: &'a Attend, l: &Launch<'a, Cpu>, first: usize) -> Result<Masks<'a>> {
        let lens = l.optional::<u32>(first + 4);
        if let Some(index) = lens.and_then(|lens| lens.iter().position(|&n| n as usize > op.len_k)) {
            let value = u64::from(lens.map_or(0, |lens| lens[index]));
            return Err(Error::Index { op: name, value, index, limit: op.len_k as u64 + 1 });
        }
        Ok(Masks {
            op,
            bias: l.optional::<f32>(first).map(|bias| {
                let s = l.layout(first).strides;
                (bias, [if op.bias_batch == 1 { 0 } else { s[0] }, if op.bias_heads == 1 { 0 } else { s[1] }, s[2]])
            }),
            ids: l.optional(first + 1).zip(l.optional(first + 2)),
            padding: l.optional(first + 3),
            lens,
        })
    }

    /// Whether nothing but the places of keys decides.
    pub fn by_place_alone(&self) -> bool {
        self.bias.is_none() && self.ids.is_none() && self.padding.is_none()
    }

    /// The keys of a sequence that exist.
    pub fn keys(&self, b: usize) -> usize {
        self.lens.map_or(self.op.len_k, |lens| lens[b] as usize)
    }

    /// The keys that query `i` sees by its place.
    pub fn visible(&self, b: usize, i: usize) -> Range<usize> {
        self.op.visible(i, self.keys(b))
    }

    /// The bias of the scores of query `i`, one for each key.
    pub fn bias(&self, b: usize, h: usize, i: usize) -> Option<&'a [f32]> {
        self.bias.map(|(bias, s)| &bias[b * s[0] + h * s[1] + i * s[2]..][..self.op.len_k])
    }

    /// The segment of query `i`, and those of the keys.
    pub fn ids(&self, b: usize, i: usize) -> Option<(u32, &'a [u32])> {
        self.ids.map(|(q, k)| (q[b * self.op.len_q + i], &k[b * self.op.len_k..][..self.op.len_k]))
    }

    /// For each key whether it is there.
    pub fn padding(&self, b: usize) -> Option<&'a [u8]> {
        self.padding.map(|p| &p[b * self.op.len_k..][..self.op.len_k])
    }
}

/// An id as two values that f32 holds exactly.
pub fn halves(id: u32) -> (f32, f32) {
    ((id >> 16) as f32, (id & 0xffff) as f32)
}

/// A result whose rows are written by different parts of the work.
pub struct Scattered<T> {
    first: *mut T,
    len: usize,
}

impl<T: Elem> Scattered<T> {
    pub fn new(result: Option<&mut [T]>) -> Scattered<T> {
        let result = result.unwrap_or_default();
        Scattered { first: result.as_mut_ptr(), len: result.len() }
    }

    /// Rows of `len` elements from `at` on, `stride` apart, to be brought closer.
    pub fn soon(&self, at: usize, stride: usize, len: usize, left: usize) -> Soon {
        let bytes = size_of::<T>();
        Soon { next: self.first.wrapping_add(at).cast(), stride: stride * bytes, bytes: len * bytes, left }
    }

    /// # Safety
    /// The result is still borrowed by the launch, and no other slice of these elements exists.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: just checked to lie inside; the caller warrants that nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(at), len) }
    }
}
// SAFETY: a pointer to plain elements that parts use for disjoint slices, as `get` demands.
unsafe impl<T: Elem> Sync for Scattered<T> {}

simd_fn! {
    /// `to = x · factor` in f32.
    pub fn widen[S, T: Lane](s, x: &[T], factor: f32, to: &mut [f32]) {
        let factor = s.splat(factor);
        let body = x.len() - x.len() % S::LANES;
        for (x, to) in x[..body].chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
            s.store(s.mul(T::load(s, x), factor), to);
        }
        if body < x.len() {
            s.store_part(s.mul(T::load_part(s, &x[body..]), factor), &mut to[body..x.len()]);
        }
    }
}

/// `to[t · to_stride + i] = row(i)[t]`, times a factor, for the `d` words of eight rows; a row that is not there counts as zeros.
/// Where they lie at a distance, `direct` has the first and that distance: words of one f32 are read there.
#[inline(always)]
pub fn turn_eight<'a, S: Simd, W: Words<S>, T: Lane>(
    s: S,
    words: W,
    direct: Option<(&'a [T], usize)>,
    row: impl Fn(usize) -> Option<&'a [T]>,
    factor: Option<f32>,
    stage: &mut [f32],
    (to, to_stride, d): (&mut [f32], usize, usize),
) {
    match direct {
        Some((rows, stride)) if T::DTYPE == DType::F32 && W::VALUES == 1 => {
            transpose(s, bytemuck::cast_slice(rows), stride, (8, d), factor, to, to_stride);
        }
        _ => {
            for (i, stage) in stage.chunks_exact_mut(d).take(8).enumerate() {
                match row(i) {
                    Some(row) => words.of_row(s, row, stage),
                    None => stage.fill(0.0),
                }
            }
            transpose(s, stage, d, (8, d), factor, to, to_stride);
        }
    }
}

/// Values that lie side by side in packed matrices.
pub const PANEL: usize = 16;

/// Row `i` of the packed matrix `to` [panel of columns][row][`PANEL`] of words, whose panels have `len` of them: of `row(n)` for each
/// value n of a word. Rows that are not there count as zeros. A last panel may be cut short, after whole vectors.
#[inline(always)]
pub fn spread<'a, S: Simd, W: Words<S>, T: Lane>(
    s: S,
    words: W,
    row: impl Fn(usize) -> Option<&'a [T]>,
    i: usize,
    to: &mut [f32],
    len: usize,
) {
    let mut rows: [&[T]; 2] = [&[]; 2];
    for (n, of_word) in rows.iter_mut().enumerate().take(W::VALUES) {
        *of_word = row(n).unwrap_or_default();
    }
    let filled = rows[..W::VALUES].iter().map(|row| row.len() / PANEL).min().unwrap_or(0);
    let (mut whole, mut panels) = (rows.map(|row| row.chunks_exact(PANEL)), to.chunks_mut(len));
    for to in panels.by_ref().take(filled) {
        let rows = whole.each_mut().map(|row| row.next().unwrap_or_default());
        words_of_panel(s, words, rows, &mut to[i * PANEL..(i + 1) * PANEL]);
    }
    for (n, to) in panels.enumerate() {
        let mut padded = [[<T as bytemuck::Zeroable>::zeroed(); PANEL]; 2];
        for (row, padded) in rows.iter().zip(&mut padded).take(W::VALUES) {
            let rest = row.get((filled + n) * PANEL..).unwrap_or_default();
            let rest = &rest[..rest.len().min(PANEL)];
            padded[..rest.len()].copy_from_slice(rest);
        }
        words_of_panel(s, words, [&padded[0], &padded[1]], &mut to[i * PANEL..]);
    }
}

/// The words of a panel's columns.
#[inline(always)]
fn words_of_panel<S: Simd, W: Words<S>, T: Lane>(s: S, words: W, rows: [&[T]; 2], to: &mut [f32]) {
    for at in (0..PANEL.min(to.len())).step_by(S::LANES) {
        let rows = rows.map(|row| row.get(at..).unwrap_or_default());
        s.store(words.of_columns(s, rows), &mut to[at..]);
    }
}
