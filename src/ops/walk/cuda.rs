//! Walking in CUDA: the structs of `kernels/common/walk.cuh`.

use super::{MAX_DIMS, Walk};
use crate::backend::cuda::Call;
use crate::dtype::DType;
use crate::error::Result;

/// Threads of a block of a kernel that walks.
pub const WALKERS: usize = 128;

/// Threads of a block of a kernel that writes 16 bytes in each.
const BLOCK: usize = 256;

/// The most elements that a kernel walks: what it divides is below 2^31.
pub const MAX_INDEX: usize = (1 << 31) - 1;

/// A part of a walk that one launch takes.
pub struct Part {
    pub walk: Walk,
    /// Where it begins in each operand, in elements.
    pub starts: [usize; 3],
    /// Where it begins in the result.
    pub start: usize,
}

/// What elements are moved as: 1, 2, 4, 8 or 16 bytes.
#[derive(Clone, Copy)]
pub struct Word(pub usize);

impl Word {
    /// How many a thread of `common/move.cuh` has under way.
    pub const fn in_flight(self) -> usize {
        if self.0 == 16 { 4 } else { 8 }
    }

    /// Blocks that move so many.
    pub const fn blocks(self, words: usize) -> usize {
        words.div_ceil(WALKERS * self.in_flight())
    }
}

impl Walk {
    /// The number of elements.
    pub fn count(&self) -> usize {
        self.dims[..self.rank].iter().product()
    }

    /// As parts that launches can take: itself, unless it is very large.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        self.part([0; 3], 0, &mut parts);
        parts
    }

    fn part(&self, starts: [usize; 3], start: usize, parts: &mut Vec<Part>) {
        let count = self.count();
        if count <= MAX_INDEX {
            parts.push(Part { walk: *self, starts, start });
            return;
        }
        let d = self.dims.iter().position(|&n| n > 1).unwrap_or(0);
        // Halves of a long row begin where vectors may.
        let half = if self.dims[d] >= 64 { self.dims[d] / 32 * 16 } else { self.dims[d] / 2 };
        let (mut first, mut second) = (*self, *self);
        (first.dims[d], second.dims[d]) = (half, self.dims[d] - half);
        (first.inner, second.inner) = (first.dims[self.rank - 1], second.dims[self.rank - 1]);
        first.part(starts, start, parts);
        let next = std::array::from_fn(|i| starts[i] + half * self.strides[i][d]);
        second.part(next, start + count / self.dims[d] * half, parts);
    }

    /// Whether units of so many elements lie in one row of the innermost dimension each (the last of a single row may be cut
    /// short).
    pub fn has_units(&self, per: usize) -> bool {
        self.rank == 1 || self.inner.is_multiple_of(per)
    }

    /// Whether an operand's units are runs that begin at multiples of their size.
    fn has_vectors(&self, operand: usize, per: usize) -> bool {
        let strides = &self.strides[operand][..self.rank];
        self.has_units(per)
            && strides[self.rank - 1] == 1
            && strides[..self.rank - 1].iter().all(|s| s.is_multiple_of(per))
    }

    /// Appends `Walk<N>` of the first operands, which lie at `addresses` and have elements of so many bytes, for units of
    /// `per` elements; `units` says whether the result can be written so.
    pub fn of_units<'a>(&self, call: Call<'a>, addresses: &[u64], bytes: usize, per: usize, units: bool) -> Call<'a> {
        let units = units && self.has_units(per);
        let mut call = call.params(&[self.count(), self.rank, usize::from(units)]);
        for (i, address) in addresses.iter().enumerate() {
            let vectors = units && self.has_vectors(i, per) && address.is_multiple_of((per * bytes) as u64);
            call = call.param(usize::from(vectors));
        }
        // Innermost first; dimensions that do not exist have an extent of 1.
        (0..self.rank).rev().chain(self.rank..MAX_DIMS).fold(call, |call, d| {
            (0..addresses.len()).fold(call.divisor(self.dims[d]), |call, i| call.param(self.strides[i][d]))
        })
    }

    /// Launches a kernel that takes `Pixels` of `kernels/patchify.cu` and gives each thread 16 bytes of the result; `from` is
    /// the operand's address and dtype.
    pub fn launch(&self, call: Call<'_>, scale: f32, (address, from): (u64, DType), to: DType) -> Result<()> {
        let each = 16 / to.bytes();
        let unit = [each, 2].into_iter().find(|&n| self.inner.is_multiple_of(n)).unwrap_or(1);
        // Whether a unit lies side by side in the operand, and at a multiple of what is read at once.
        let (last, outer) = self.strides[0][..self.rank].split_last().expect("there is a dimension");
        let whole = |elements: usize| (elements * from.bytes()).is_multiple_of((unit * from.bytes()).min(16));
        let vectors = *last == 1 && outer.iter().all(|&s| whole(s)) && whole(address as usize / from.bytes());
        let call = call.params(&[unit, usize::from(vectors)]).param_f32(scale);
        self.of_words(call).block(BLOCK).launch(self.count().div_ceil(each * BLOCK))
    }

    /// The same walk of two operands in the widest words that both have at `addresses`.
    pub fn in_words(&self, addresses: [u64; 2], bytes: usize) -> (Walk, Word) {
        let fits = |word: usize| {
            let per = word / bytes;
            let whole = |i: usize| self.has_vectors(i, per) && addresses[i].is_multiple_of(word as u64);
            self.inner.is_multiple_of(per) && whole(0) && whole(1)
        };
        let word = [16, 8, 4, 2].into_iter().find(|&w| w > bytes && fits(w)).unwrap_or(bytes);
        let (per, last) = (word / bytes, self.rank - 1);
        let mut walk = *self;
        walk.dims[last] /= per;
        walk.inner /= per;
        for strides in &mut walk.strides {
            strides[..last].iter_mut().for_each(|s| *s /= per);
        }
        (walk, Word(word))
    }

    /// Appends `Walk<2>` for words that are moved one by one.
    pub fn of_words<'a>(&self, call: Call<'a>) -> Call<'a> {
        self.of_units(call, &[0; 2], 1, 1, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_walks_are_taken_in_parts() {
        let walk = Walk::of([[3, 0, 1 << 33, 0], [1 << 33, 1, 0, 0]]);
        let parts = walk.parts();
        let total: usize = parts.iter().map(|p| p.walk.count()).sum();
        assert_eq!(total, 3 << 33);
        let mut start = 0;
        for part in &parts {
            assert!(part.walk.count() <= MAX_INDEX);
            assert_eq!(part.start, start);
            assert_eq!((part.starts[0], part.starts[1]), (start % (1 << 33), start >> 33 << 33));
            start += part.walk.count();
        }
    }

    #[test]
    fn words_are_as_wide_as_rows_allow() {
        let walk = Walk::of([[6, 64, 32, 0], [32, 1, 1, 0]]);
        let (words, word) = walk.in_words([0, 32], 2);
        assert_eq!((word.0, words.dims[1], words.strides[0][0]), (16, 4, 8));
        let (_, word) = walk.in_words([0, 4], 2);
        assert_eq!(word.0, 4);
        let (words, word) = Walk::of([[6, 7, 7, 0], [5, 1, 1, 0]]).in_words([0, 0], 4);
        assert_eq!((word.0, words.count()), (4, 30));
    }
}
