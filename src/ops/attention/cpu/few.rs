//! A few queries that would leave most of a vector empty, against one block of keys: columns are in lanes, not queries.
//!
//! 197 queries of a head are twelve vectors and five queries; 577 and 257, whole vectors and one. As a vector they would take 64 cycles of
//! products for a key of 64 values, whether there is one or sixteen; five by themselves take 40 in all (Zen 5).
//!
//! Algorithm: the flash kernel's, with the largest score for m. Scores are dot products of four keys with every query, added up across
//! lanes four at a time; results are tiles of all queries and four vectors of columns. Register budget of either: 6 · 4
//! accumulators, 4 vectors that all queries share, and one: 29 of 32.
// Loops over registers name them by number: iterators over the arrays keep some of them in memory.
#![allow(clippy::needless_range_loop)]

use super::block::{Keys, Shape, Values};
use super::weights::weights;
use crate::backend::cpu::simd::{Lane, Simd};
use crate::ops::attend::cpu::{PANEL, Words, widen};
use crate::simd_fn;

/// Queries, at most.
const MOST: usize = 6;

/// Whether so many queries are worked on by themselves: rows are whole vectors of words, and panels vectors.
pub fn suits<S: Simd, W: Words<S>>(head_dim: usize, few: usize) -> bool {
    S::LANES == PANEL && few <= MOST && head_dim.is_multiple_of(S::LANES * W::VALUES)
}

/// The working memory of the queries.
pub struct Few<'a> {
    /// Queries, those of single values scaled: [query][word].
    q: &'a mut [f32],
    /// Results before division: [query][column].
    o: &'a mut [f32],
    /// Scores, then weights in words: [query][key].
    p: &'a mut [f32],
    /// For each query what weights are relative to, and their sum.
    m: &'a mut [f32],
    l: &'a mut [f32],
    shape: Shape,
}

impl<'a> Few<'a> {
    pub fn len(shape: &Shape) -> usize {
        MOST * (shape.depth() + shape.head_dim + shape.keys + 2)
    }

    pub fn new(memory: &'a mut [f32], shape: Shape) -> Few<'a> {
        let (q, rest) = memory.split_at_mut(MOST * shape.depth());
        let (o, rest) = rest.split_at_mut(MOST * shape.head_dim);
        let (p, rest) = rest.split_at_mut(MOST * shape.keys);
        let (m, l) = rest.split_at_mut(MOST);
        Few { q, o, p, m, l, shape }
    }

    /// Query `n`, which has met no key.
    pub fn load<S: Simd, W: Words<S>, T: Lane>(&mut self, s: S, words: W, n: usize, row: &[T], scale: f32) {
        let (depth, d) = (self.shape.depth(), self.shape.head_dim);
        let q = &mut self.q[n * depth..(n + 1) * depth];
        if W::VALUES == 1 {
            widen(s, row, scale, q)
        } else {
            words.of_row(s, row, q)
        }
        self.o[n * d..(n + 1) * d].fill(0.0);
        (self.m[n], self.l[n]) = (f32::NEG_INFINITY, 0.0);
    }

    /// The result of query `n` before division, and its m and sum of weights.
    pub fn result(&self, n: usize) -> (&[f32], f32, f32) {
        let d = self.shape.head_dim;
        (&self.o[n * d..(n + 1) * d], self.m[n], self.l[n])
    }
}

/// The first `count` queries meet `keys` keys; `scale` is for scores of queries that are not scaled.
pub fn step<S: Simd, W: Words<S>>(
    s: S,
    words: W,
    count: usize,
    keys: usize,
    scale: f32,
    of: (Keys<'_>, Values<'_>),
    few: &mut Few<'_>,
) {
    match count {
        1 => meet::<S, W, 1>(s, words, keys, scale, of, few),
        2 => meet::<S, W, 2>(s, words, keys, scale, of, few),
        3 => meet::<S, W, 3>(s, words, keys, scale, of, few),
        4 => meet::<S, W, 4>(s, words, keys, scale, of, few),
        5 => meet::<S, W, 5>(s, words, keys, scale, of, few),
        _ => meet::<S, W, MOST>(s, words, keys, scale, of, few),
    }
}

simd_fn! {
    fn meet[S, W: Words<S>; const R: usize](s, words: W, keys: usize, scale: f32, of: (Keys<'_>, Values<'_>), few: &mut Few<'_>) {
        let (k, v) = of;
        scores::<S, W, R>(s, words, keys, scale, k, few);
        let (room, d) = (few.shape.keys, few.shape.head_dim);
        for r in 0..R {
            let p = &mut few.p[r * room..][..keys.next_multiple_of(S::LANES)];
            weights(s, words, keys, p, [&mut few.m[r], &mut few.l[r]], &mut few.o[r * d..(r + 1) * d]);
        }
        let (panels, steps) = (d / PANEL, keys.div_ceil(W::VALUES));
        for panel in (0..panels / 4 * 4).step_by(4) {
            results::<S, W, R, 4>(s, words, steps, panel, v, few);
        }
        for panel in panels / 4 * 4..panels {
            results::<S, W, R, 1>(s, words, steps, panel, v, few);
        }
    }
}

/// `p[r][j] = q[r] · k[j]`, scaled unless queries are.
#[inline(always)]
fn scores<S: Simd, W: Words<S>, const R: usize>(
    s: S,
    words: W,
    keys: usize,
    scale: f32,
    k: Keys<'_>,
    few: &mut Few<'_>,
) {
    let (depth, room) = (few.shape.depth(), few.shape.keys);
    for j in (0..keys).step_by(4) {
        // Beyond the last key it is computed again, and not looked at.
        let mut rows: [&[f32]; 4] = [&[]; 4];
        for i in 0..4 {
            rows[i] = &k.data[(j + i).min(keys - 1) * k.stride..][..depth];
        }
        let mut sums = [[s.zero(); 4]; R];
        for t in (0..depth).step_by(S::LANES) {
            let mut k = [s.zero(); 4];
            for i in 0..4 {
                k[i] = s.load(&rows[i][t..]);
            }
            for r in 0..R {
                let q = s.load(&few.q[r * depth + t..]);
                for i in 0..4 {
                    sums[r][i] = words.fma(s, k[i], q, sums[r][i]);
                }
            }
        }
        for r in 0..R {
            let mut four = s.sum_four(sums[r]);
            if W::VALUES > 1 {
                four.iter_mut().for_each(|score| *score *= scale);
            }
            few.p[r * room + j..][..4].copy_from_slice(&four);
        }
    }
}

/// `o[r] += Σ_j p[r][j] · v[j]`, in `N` panels of columns.
#[inline(always)]
fn results<S: Simd, W: Words<S>, const R: usize, const N: usize>(
    s: S,
    words: W,
    steps: usize,
    panel: usize,
    v: Values<'_>,
    few: &mut Few<'_>,
) {
    let (room, d) = (few.shape.keys, few.shape.head_dim);
    let [row, of_panel] = v.strides;
    let mut acc = [[s.zero(); N]; R];
    for r in 0..R {
        for n in 0..N {
            acc[r][n] = s.load(&few.o[r * d + (panel + n) * PANEL..]);
        }
    }
    for j in 0..steps {
        let mut columns = [s.zero(); N];
        for n in 0..N {
            columns[n] = s.load(&v.data[j * row + (panel + n) * of_panel..]);
        }
        for r in 0..R {
            let p = s.splat(few.p[r * room + j]);
            for n in 0..N {
                acc[r][n] = words.fma(s, p, columns[n], acc[r][n]);
            }
        }
    }
    for r in 0..R {
        for n in 0..N {
            s.store(acc[r][n], &mut few.o[r * d + (panel + n) * PANEL..]);
        }
    }
}
