//! Weights as tiles read them: 32 values of k after another, for a vector of columns of the result. From packed panels, or
//! unpacked once for many rows of lhs.
#![allow(unsafe_code)] // reads through pointers, whose ranges `Panel::new` and `unpack` have checked

use super::dot::{Dot, Path, dot_fn};
use crate::backend::cpu::simd::{Simd, fetch_near};
use crate::dtype::{PANEL_ROWS, Quant};
use half::f16;
use std::marker::PhantomData;

/// How far ahead memory is asked for, in each of two vectors.
const AHEAD_BYTES: usize = 3072;
/// Values of k that share what lhs was rounded by.
pub(super) const BLOCK: usize = 32;
/// Blocks that are worked on at a time: 512 values of k.
pub(super) const BLOCKS: usize = 16;

/// A kind of quantised blocks, as a type.
pub(super) trait Kind: Copy + Send + Sync + 'static {
    const QUANT: Quant;
    /// Scales in 32 values.
    const GROUPS: usize = if matches!(Self::QUANT, Quant::Q6_K) { 2 } else { 1 };
    /// Whether values are shifted by a number of their own.
    const SHIFTS: bool = matches!(Self::QUANT, Quant::Q4_1 | Quant::Q4_K);
    /// Whether integers take all of eight bits.
    const WIDE: bool = matches!(Self::QUANT, Quant::Q8_0);
}

macro_rules! kinds {
    ($($Q:ident),*) => {$(
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy)]
        pub(super) struct $Q;
        impl Kind for $Q {
            const QUANT: Quant = Quant::$Q;
        }
    )*};
}
kinds!(Q8_0, Q4_0, Q4_1, Q4_K, Q6_K);

/// A vector of columns. Methods read block `block` of those that the value stands for.
pub(super) trait Weights<D: Dot>: Copy {
    type K: Kind;
    /// Integers of values `4·g` to `4·g + 3`, for g from 0 to 7.
    ///
    /// # Safety (all three)
    /// There is such a block.
    unsafe fn integers(self, d: D, block: usize, g: usize) -> D::Bytes;
    /// The factor of a group.
    unsafe fn scale(self, d: D, block: usize, group: usize) -> <D::S as Simd>::V;
    /// What values are shifted by, or its negative ([`shift_sign`]).
    unsafe fn shift(self, d: D, block: usize) -> <D::S as Simd>::V;
    /// Asks for what is read somewhat after values `4·g` to `4·g + 3`.
    #[inline(always)]
    fn fetch(self, _block: usize, _g: usize) {}
}

/// Whether [`Weights::shift`] is added or subtracted.
pub(super) fn shift_sign(quant: Quant) -> f32 {
    if quant == Quant::Q4_K { -1.0 } else { 1.0 }
}

/// What the integers of a kind, as a path multiplies them, have in excess.
pub(super) fn bias<D: Dot>(quant: Quant) -> i32 {
    match quant {
        Quant::Q8_0 => D::WIDE_BIAS,
        Quant::Q4_0 => 8,
        Quant::Q6_K => 32,
        Quant::Q4_1 | Quant::Q4_K => 0,
    }
}

/// Some rows of a panel, packed as [`BlockPanels`](crate::Format::BlockPanels) says.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a, K> {
    at: *const u8,
    /// The first of the rows.
    row: usize,
    blocks: usize,
    /// What is read after this.
    next: *const u8,
    kind: PhantomData<(&'a [u8], K)>,
}

impl<'a, K: Kind> Panel<'a, K> {
    /// The rows from `row` on of the first `blocks` blocks of 32 in `bytes`; `next` begins with what is read after them.
    pub fn new(bytes: &'a [u8], blocks: usize, row: usize, next: &'a [u8]) -> Self {
        assert!(bytes.len() >= bytes_of(K::QUANT, blocks) && row < PANEL_ROWS);
        Panel { at: bytes.as_ptr(), row, blocks, next: next.as_ptr(), kind: PhantomData }
    }

    /// The block of the file that a block of 32 lies in, and its number there.
    #[inline(always)]
    unsafe fn find(self, block: usize) -> (*const u8, usize) {
        let per = K::QUANT.block_values() / BLOCK;
        // SAFETY: inside of the bytes that `new` was given, as the caller vouches.
        (unsafe { self.at.add(block / per * K::QUANT.panel_block_bytes()) }, block % per)
    }

    #[inline(always)]
    unsafe fn halves<D: Dot>(self, d: D, at: *const u8) -> <D::S as Simd>::V {
        // SAFETY: as `find`; parts of a panel are aligned to 32 bytes, and `row` is a multiple of the lanes.
        let factors = unsafe { std::slice::from_raw_parts(at.cast::<f16>().add(self.first::<D>()), D::S::LANES) };
        d.simd().load_f16(factors)
    }

    #[inline(always)]
    unsafe fn bytes<D: Dot>(self, d: D, at: *const u8) -> <D::S as Simd>::V {
        // SAFETY: as `find`.
        d.simd().load_u8(unsafe { std::slice::from_raw_parts(at.add(self.first::<D>()), D::S::LANES) })
    }

    /// The first row; known to be the panel's where a vector holds them all.
    #[inline(always)]
    fn first<D: Dot>(self) -> usize {
        if D::S::LANES == PANEL_ROWS { 0 } else { self.row }
    }
}

/// Bytes of a panel's blocks of 32.
pub(super) fn bytes_of(quant: Quant, blocks: usize) -> usize {
    blocks * BLOCK / quant.block_values() * quant.panel_block_bytes()
}

/// Bytes of 16 f16.
const HALVES: usize = 2 * PANEL_ROWS;
/// Bytes of a vector of four values of each row.
const FOURS: usize = 4 * PANEL_ROWS;

impl<D: Dot, K: Kind> Weights<D> for Panel<'_, K> {
    type K = K;

    #[inline(always)]
    unsafe fn integers(self, d: D, block: usize, g: usize) -> D::Bytes {
        let (head, each) = match K::QUANT {
            Quant::Q8_0 => (HALVES, 8 * FOURS),
            Quant::Q4_0 => (HALVES, 4 * FOURS),
            Quant::Q4_1 => (2 * HALVES, 4 * FOURS),
            Quant::Q4_K => (2 * HALVES + 16 * PANEL_ROWS, 4 * FOURS),
            Quant::Q6_K => (HALVES + 16 * PANEL_ROWS, 6 * FOURS),
        };
        // No closures here: compiled by themselves, they lack the instruction set.
        // SAFETY: as the caller vouches, the block is there.
        unsafe {
            let (at, i) = self.find(block);
            let at = at.add(head + i * each + 4 * self.first::<D>());
            if K::WIDE {
                return d.wide(d.load(at.add(g * FOURS)));
            }
            let pair = d.load(at.add(g % 4 * FOURS));
            let nibbles = if g < 4 { d.low(pair) } else { d.high(pair) };
            match K::QUANT {
                Quant::Q6_K => d.six(nibbles, d.load(at.add((4 + g % 2) * FOURS)), g / 2),
                _ => nibbles,
            }
        }
    }

    #[inline(always)]
    unsafe fn scale(self, d: D, block: usize, group: usize) -> <D::S as Simd>::V {
        let s = d.simd();
        // SAFETY: as the caller vouches, the block is there.
        unsafe {
            let (at, i) = self.find(block);
            let factor = self.halves(d, at);
            match K::QUANT {
                Quant::Q4_K => s.mul(factor, self.bytes(d, at.add(2 * HALVES + i * PANEL_ROWS))),
                Quant::Q6_K => {
                    let raised = self.bytes(d, at.add(HALVES + (2 * i + group) * PANEL_ROWS));
                    s.mul(factor, s.sub(raised, s.splat(128.0)))
                }
                _ => factor,
            }
        }
    }

    #[inline(always)]
    unsafe fn shift(self, d: D, block: usize) -> <D::S as Simd>::V {
        // SAFETY: as the caller vouches, the block is there.
        unsafe {
            let (at, i) = self.find(block);
            let factor = self.halves(d, at.add(HALVES));
            match K::QUANT {
                Quant::Q4_K => d.simd().mul(factor, self.bytes(d, at.add(2 * HALVES + (8 + i) * PANEL_ROWS))),
                _ => factor,
            }
        }
    }

    #[inline(always)]
    fn fetch(self, block: usize, g: usize) {
        let each = bytes_of(K::QUANT, BLOCKS) / BLOCKS;
        let block = block + AHEAD_BYTES / each;
        let at = match block.checked_sub(self.blocks) {
            None => self.at.wrapping_add(block * each),
            Some(beyond) => self.next.wrapping_add(beyond * each),
        };
        for line in (g * 64..each).step_by(8 * 64) {
            fetch_near(at.wrapping_add(line));
        }
    }
}

/// Two vectors of columns, unpacked: what depends on the kind of blocks is done once for all rows of lhs.
pub(super) struct Scratch<D: Dot> {
    integers: [[D::Bytes; 8 * BLOCKS]; 2],
    scales: [[<D::S as Simd>::V; 2 * BLOCKS]; 2],
    shifts: [[<D::S as Simd>::V; BLOCKS]; 2],
}

impl<D: Dot> Scratch<D> {
    pub fn new(d: D) -> Self {
        let (none, zero) = (d.four([0; 4]), d.simd().zero());
        Scratch { integers: [[none; 8 * BLOCKS]; 2], scales: [[zero; 2 * BLOCKS]; 2], shifts: [[zero; BLOCKS]; 2] }
    }

    /// Vector `v`, of which as many blocks may be read as were unpacked.
    pub fn vector<K: Kind>(&self, v: usize) -> Unpacked<'_, D, K> {
        Unpacked { integers: &self.integers[v], scales: &self.scales[v], shifts: &self.shifts[v], kind: PhantomData }
    }
}

dot_fn! {
    /// Unpacks blocks of two vectors of columns.
    pub(super) fn unpack[D, K: Kind](d, from: [Panel<'_, K>; 2], blocks: usize, to: &mut Scratch<D>) {
        for (v, from) in from.into_iter().enumerate() {
            for block in 0..blocks {
                // SAFETY: `Panel::new` has checked that the blocks are there.
                unsafe {
                    for g in 0..8 {
                        Weights::<D>::fetch(from, block, g);
                        to.integers[v][8 * block + g] = from.integers(d, block, g);
                    }
                    for group in 0..K::GROUPS {
                        to.scales[v][2 * block + group] = from.scale(d, block, group);
                    }
                    if K::SHIFTS {
                        to.shifts[v][block] = from.shift(d, block);
                    }
                }
            }
        }
    }
}

/// A vector of columns in a [`Scratch`].
pub(super) struct Unpacked<'a, D: Dot, K> {
    integers: &'a [D::Bytes; 8 * BLOCKS],
    scales: &'a [<D::S as Simd>::V; 2 * BLOCKS],
    shifts: &'a [<D::S as Simd>::V; BLOCKS],
    kind: PhantomData<K>,
}

impl<D: Dot, K> Clone for Unpacked<'_, D, K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Dot, K> Copy for Unpacked<'_, D, K> {}

impl<D: Dot, K: Kind> Weights<D> for Unpacked<'_, D, K> {
    type K = K;

    #[inline(always)]
    unsafe fn integers(self, _: D, block: usize, g: usize) -> D::Bytes {
        // SAFETY (all three): the caller vouches for the block.
        unsafe { *self.integers.get_unchecked(8 * block + g) }
    }
    #[inline(always)]
    unsafe fn scale(self, _: D, block: usize, group: usize) -> <D::S as Simd>::V {
        unsafe { *self.scales.get_unchecked(2 * block + group) }
    }
    #[inline(always)]
    unsafe fn shift(self, _: D, block: usize) -> <D::S as Simd>::V {
        unsafe { *self.shifts.get_unchecked(block) }
    }
}
