//! The product: a tile of residuals against a slice of a panel of entries, and what it does to the best of each lane.
//!
//! Registers (AVX-512): 24 accumulators, 2 of the panel, 1 broadcast. The next slice is asked for every four steps: each request
//! costs what it costs, and one in every step is for a line that has been asked for before (an Xeon with AMX, builds for AVX-512,
//! calls in turn in one process: 1500x1024x1024x8 takes 4 % less on one thread and on two, two steps at a time 2 %).
//!
//! The innermost loop reads through pointers whose ranges are asserted before it. Loops over registers name them by number, over a
//! range known to be there: otherwise some are kept in memory.
#![allow(unsafe_code, clippy::needless_range_loop)]

use crate::backend::cpu::simd::{Isa, LINE, Simd, fetch_line};
use crate::simd_fn;

/// Vectors of a tile.
pub const fn height<S: Simd>() -> usize {
    match S::ISA {
        Isa::Avx512 => 12,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

/// What a tile multiplies.
pub struct Slice<'a> {
    /// [depth][HEIGHT]
    pub residuals: &'a [f32],
    /// [depth][2·LANES]
    pub entries: &'a [f32],
    /// What is added to the products of the panel's entries.
    pub added: &'a [f32],
    /// Entries to bring into L2 meanwhile.
    pub ahead: &'a [f32],
    /// Whether sums begin here, and end.
    pub first: bool,
    pub last: bool,
    /// The panel's first vector, counted from the first entry.
    pub number: u32,
}

/// A tile of [`height`] vectors: `sums` [height, 2·LANES] and `bests` [height, 3·LANES].
pub fn multiply<S: Simd>(s: S, slice: Slice<'_>, sums: &mut [f32], bests: &mut [f32]) {
    match S::ISA {
        Isa::Avx512 => tile::<S, 12>(s, slice, sums, bests),
        Isa::Avx2 => tile::<S, 6>(s, slice, sums, bests),
        Isa::Portable => tile::<S, 4>(s, slice, sums, bests),
    }
}

/// Steps between two requests for memory, if these are enough.
const STEPS: usize = 4;

simd_fn! {
    /// Products of a slice; at the end of the sums, what they do to the best of each lane.
    fn tile[S; const HEIGHT: usize](s, slice: Slice<'_>, sums: &mut [f32], bests: &mut [f32]) {
        let (l, nr) = (S::LANES, 2 * S::LANES);
        let Slice { residuals, entries, added, .. } = slice;
        let depth = entries.len() / nr;
        assert!(residuals.len() >= depth * HEIGHT);
        let sums = &mut sums[..HEIGHT * nr];
        let mut c = [[s.zero(); 2]; HEIGHT];
        for i in 0..HEIGHT {
            let from = if slice.first { added } else { &sums[i * nr..] };
            c[i] = [s.load(from), s.load(&from[l..])];
        }
        // A little at a time: asked for in one go they would wait for each other, and everything for them.
        let (mut ahead, share) = (slice.ahead.as_ptr().cast::<u8>(), size_of_val(slice.ahead) / depth.max(1));
        let mut at = residuals.as_ptr();
        let mut groups = entries.chunks_exact(STEPS * nr);
        for group in &mut groups {
            fetch_line(ahead);
            if STEPS * share > LINE {
                (1..STEPS).for_each(|step| fetch_line(ahead.wrapping_add(step * share)));
            }
            ahead = ahead.wrapping_add(STEPS * share);
            for entries in group.chunks_exact(nr) {
                // SAFETY: `at` has advanced by fewer than `depth` steps, so HEIGHT values are there by the assertion above.
                unsafe { step(s, &mut c, at, entries) };
                at = at.wrapping_add(HEIGHT);
            }
        }
        for entries in groups.remainder().chunks_exact(nr) {
            fetch_line(ahead);
            ahead = ahead.wrapping_add(share);
            // SAFETY: as above.
            unsafe { step(s, &mut c, at, entries) };
            at = at.wrapping_add(HEIGHT);
        }
        for i in 0..HEIGHT {
            s.store(c[i][0], &mut sums[i * nr..]);
            s.store(c[i][1], &mut sums[i * nr + l..]);
        }
        if !slice.last {
            return;
        }
        let numbers = [0, 1].map(|half| s.splat(f32::from_bits(slice.number + half)));
        for (sums, bests) in sums.chunks_exact(nr).zip(bests.chunks_exact_mut(3 * l)) {
            let none = s.splat(f32::NEG_INFINITY);
            let [mut best, mut second, mut number] = match slice.number {
                0 => [none, none, s.zero()],
                _ => [s.load(bests), s.load(&bests[l..]), s.load(&bests[2 * l..])],
            };
            for (score, of) in sums.chunks_exact(l).zip(numbers) {
                let score = s.load(score);
                // What is no number stays out of both: `max` and `min` hand on the operand on the right.
                second = s.max(s.min(score, best), second);
                number = s.select_lt(best, score, of, number);
                best = s.max(score, best);
            }
            s.store(best, bests);
            s.store(second, &mut bests[l..]);
            s.store(number, &mut bests[2 * l..]);
        }
    }
}

/// One value of each vector of a tile against two vectors of entries.
///
/// # Safety
/// HEIGHT values lie at `at`.
#[inline(always)]
unsafe fn step<S: Simd, const HEIGHT: usize>(s: S, c: &mut [[S::V; 2]; HEIGHT], at: *const f32, entries: &[f32]) {
    let e = [s.load(entries), s.load(&entries[S::LANES..])];
    for i in 0..HEIGHT {
        // SAFETY: i < HEIGHT.
        let r = s.splat(unsafe { *at.add(i) });
        c[i][0] = s.fma(r, e[0], c[i][0]);
        c[i][1] = s.fma(r, e[1], c[i][1]);
    }
}
