//! Some keys at a time of some heads, with any number of queries for each.
//!
//! Reading: a run of neighbouring rows is at most a page, and the hardware prefetcher begins anew on every page; so each row
//! asks for a later one. Sapphire Rapids, one thread, 32 heads of 4096 keys, 128, bf16, alternating: one key at a time 4.1 ms; four 3.1
//! to 3.6; with pairs, and asking for whole groups, 2.9 (23 GB/s). Distances of 4 to 16 KiB are equal; runs of 8 KiB instead
//! of 4 take 3.4 ms, of 2 KiB 3.1. On Zen 5 the same takes 1.67 ms, and 1.62 asking for a line with every line that is read.
#![allow(clippy::needless_range_loop)] // loops over registers name them by number

use super::{BK, Part, State, paired};
use crate::backend::cpu::simd::{Lane, Simd, fetch_beyond};
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::{Masks, Rows, Single};
use crate::ops::attention::cpu::weights::weights;
use std::ops::Range;

/// Keys at a time, at most.
pub const MOST_KEYS: usize = 4;
/// Bytes between what is read and what is asked for, at least: whole groups of keys, each asks for the one that follows.
const AHEAD_BYTES: usize = 8192;
/// Bytes of neighbouring rows that a part reads at a time, where heads are neighbours: a page.
const RUN_BYTES: usize = 4096;

/// The heads of keys that a part has.
pub fn heads<T: Lane>(op: &Attend, [k, v]: [&Rows<'_, T>; 2]) -> usize {
    let neighbours = k.strides[2] < k.strides[1] && v.strides[2] < v.strides[1];
    let most = if neighbours { RUN_BYTES / (op.head_dim * size_of::<T>()) } else { 1 };
    (1..=most.min(op.heads_kv)).rev().find(|&heads| op.heads_kv.is_multiple_of(heads)).unwrap_or(1)
}

/// Elements from what is read of an operand to what is asked for.
pub fn ahead<T: Lane>(heads: usize, op: &Attend, of: &Rows<'_, T>) -> usize {
    let row_bytes = (heads * op.head_dim * size_of::<T>()).max(1);
    AHEAD_BYTES.div_ceil(row_bytes).next_multiple_of(MOST_KEYS) * of.strides[1]
}

/// Rows that are read, and how many elements from each its memory is asked for that of a later one: with every line a line, for
/// requests for whole rows hold up the loads that follow.
#[derive(Clone, Copy)]
struct Read<'a, T, const N: usize> {
    rows: [&'a [T]; N],
    ahead: usize,
}

// Loops and no `map`: a closure that is not inlined is compiled without the instruction set.
impl<'a, T: Lane, const N: usize> Read<'a, T, N> {
    /// Those of some keys.
    #[inline(always)]
    fn new(of: &Rows<'a, T>, b: usize, keys: [usize; N], h: usize, ahead: usize) -> Self {
        let mut rows = [&[][..]; N];
        for i in 0..N {
            rows[i] = of.row(b, keys[i], h);
        }
        Read { rows, ahead }
    }

    /// Two vectors of each row.
    #[inline(always)]
    fn two<S: Simd>(&self, s: S, at: usize) -> [[S::V; 2]; N] {
        let mut vectors = [[s.zero(); 2]; N];
        for i in 0..N {
            self.ask(i, at..at + 2 * S::LANES);
            vectors[i] = T::load_two(s, &self.rows[i][at..]);
        }
        vectors
    }

    /// A vector of each row, or less.
    #[inline(always)]
    fn up_to_one<S: Simd>(&self, s: S, at: Range<usize>) -> [S::V; N] {
        let mut vectors = [s.zero(); N];
        for i in 0..N {
            self.ask(i, at.clone());
            vectors[i] = T::load_part(s, &self.rows[i][at.clone()]);
        }
        vectors
    }

    /// Asks for what is `ahead` of a part of a row.
    #[inline(always)]
    fn ask(&self, i: usize, at: Range<usize>) {
        fetch_beyond(&self.rows[i][at], self.ahead * size_of::<T>());
    }
}

/// Up to `BK` keys, `KEYS` of them at a time.
#[inline(always)]
pub fn block<S: Simd, T: Lane, const KEYS: usize>(s: S, part: &Part<'_, T>, keys: Range<usize>, state: &mut State<'_>) {
    let (d, rows, n) = (part.masks.op.head_dim, part.masks.op.rows_per_head(), keys.len());
    let mut all = [0; BK];
    all.iter_mut().zip(keys.clone()).for_each(|(to, key)| *to = key);
    let (groups, rest) = all[..n].as_chunks::<KEYS>();
    for (g, &group) in groups.iter().enumerate() {
        scores::<S, T, KEYS>(s, part, group, g * KEYS, state);
    }
    for (g, &key) in rest.iter().enumerate() {
        scores::<S, T, 1>(s, part, [key], groups.len() * KEYS + g, state);
    }
    for query in 0..part.heads.len() * rows {
        let row = (part.b, part.heads.start + query / rows, query % rows);
        let p = &mut state.p[query * BK..(query + 1) * BK];
        hide(&part.masks, row, keys.clone(), &mut p[..n]);
        let acc = &mut state.acc[query * d..(query + 1) * d];
        weights(s, Single, n, p, [&mut state.m[query], &mut state.l[query]], acc);
    }
    // What is padded may hold anything, so its weight of 0 is not enough.
    let mut there = n;
    if let Some(padding) = part.masks.padding(part.b) {
        there = 0;
        for key in keys.clone().filter(|&key| padding[key] != 0) {
            all[there] = key;
            there += 1;
        }
    }
    let (groups, rest) = all[..there].as_chunks::<KEYS>();
    for &group in groups {
        values::<S, T, KEYS>(s, part, group, keys.start, state);
    }
    for &key in rest {
        values::<S, T, 1>(s, part, [key], keys.start, state);
    }
}

/// Dot products of some keys with the queries of every head, from place `at` of its scores on.
#[inline(always)]
fn scores<S: Simd, T: Lane, const KEYS: usize>(
    s: S,
    part: &Part<'_, T>,
    keys: [usize; KEYS],
    at: usize,
    state: &mut State<'_>,
) {
    let (d, rows) = (part.masks.op.head_dim, part.masks.op.rows_per_head());
    let each = state.q.chunks_exact(rows * d).zip(state.p.chunks_exact_mut(rows * BK));
    for (h, (q, p)) in part.heads.clone().zip(each) {
        let k = Read::new(&part.k, part.b, keys, h, part.ahead[0]);
        let (whole, p) = (rows - rows % 4, &mut p[at..]);
        for r in (0..whole).step_by(4) {
            dots::<S, T, KEYS, 4>(s, k, &q[r * d..], &mut p[r * BK..]);
        }
        for r in whole..rows {
            dots::<S, T, KEYS, 1>(s, k, &q[r * d..], &mut p[r * BK..]);
        }
    }
}

/// `p[r · BK + i] = q[r] · k[i]`
#[inline(always)]
fn dots<S: Simd, T: Lane, const KEYS: usize, const ROWS: usize>(s: S, k: Read<'_, T, KEYS>, q: &[f32], p: &mut [f32]) {
    let d = k.rows[0].len();
    let mut sums = [[s.zero(); KEYS]; ROWS];
    for at in (0..paired::<S>(d)).step_by(2 * S::LANES) {
        let k = k.two(s, at);
        for r in 0..ROWS {
            let q = [s.load(&q[r * d + at..]), s.load(&q[r * d + at + S::LANES..])];
            for i in 0..KEYS {
                sums[r][i] = s.fma(k[i][1], q[1], s.fma(k[i][0], q[0], sums[r][i]));
            }
        }
    }
    for at in (paired::<S>(d)..d).step_by(S::LANES) {
        let end = d.min(at + S::LANES);
        let k = k.up_to_one(s, at..end);
        for r in 0..ROWS {
            let q = s.load_part(&q[r * d + at..r * d + end]);
            for i in 0..KEYS {
                sums[r][i] = s.fma(k[i], q, sums[r][i]);
            }
        }
    }
    for r in 0..ROWS {
        let p = &mut p[r * BK..r * BK + KEYS];
        if KEYS == 4 {
            p.copy_from_slice(&s.sum_four([sums[r][0], sums[r][1], sums[r][2], sums[r][3]]));
        } else {
            for i in 0..KEYS {
                p[i] = s.sum(sums[r][i]);
            }
        }
    }
}

/// Adds the values of some keys to what every head has summed; `first` is the block's first key.
#[inline(always)]
fn values<S: Simd, T: Lane, const KEYS: usize>(
    s: S,
    part: &Part<'_, T>,
    keys: [usize; KEYS],
    first: usize,
    state: &mut State<'_>,
) {
    let (d, rows) = (part.masks.op.head_dim, part.masks.op.rows_per_head());
    let each = state.p.chunks_exact(rows * BK).zip(state.acc.chunks_exact_mut(rows * d));
    for (h, (p, acc)) in part.heads.clone().zip(each) {
        let v = Read::new(&part.v, part.b, keys, h, part.ahead[1]);
        let whole = rows - rows % 4;
        for r in (0..whole).step_by(4) {
            add::<S, T, KEYS, 4>(s, v, keys, &p[r * BK..], first, &mut acc[r * d..]);
        }
        for r in whole..rows {
            add::<S, T, KEYS, 1>(s, v, keys, &p[r * BK..], first, &mut acc[r * d..]);
        }
    }
}

/// `acc[r] += Σ_i p[r · BK + keys[i] - first] · v[i]`
#[inline(always)]
fn add<S: Simd, T: Lane, const KEYS: usize, const ROWS: usize>(
    s: S,
    v: Read<'_, T, KEYS>,
    keys: [usize; KEYS],
    p: &[f32],
    first: usize,
    acc: &mut [f32],
) {
    let d = v.rows[0].len();
    let mut weights = [[s.zero(); KEYS]; ROWS];
    for r in 0..ROWS {
        for i in 0..KEYS {
            weights[r][i] = s.splat(p[r * BK + keys[i] - first]);
        }
    }
    for at in (0..paired::<S>(d)).step_by(2 * S::LANES) {
        let v = v.two(s, at);
        for r in 0..ROWS {
            let acc = &mut acc[r * d + at..r * d + at + 2 * S::LANES];
            let mut sums = [s.load(acc), s.load(&acc[S::LANES..])];
            for i in 0..KEYS {
                sums = [s.fma(v[i][0], weights[r][i], sums[0]), s.fma(v[i][1], weights[r][i], sums[1])];
            }
            s.store(sums[0], acc);
            s.store(sums[1], &mut acc[S::LANES..]);
        }
    }
    for at in (paired::<S>(d)..d).step_by(S::LANES) {
        let end = d.min(at + S::LANES);
        let v = v.up_to_one(s, at..end);
        for r in 0..ROWS {
            let acc = &mut acc[r * d + at..r * d + end];
            let mut sum = s.load_part(acc);
            for i in 0..KEYS {
                sum = s.fma(v[i], weights[r][i], sum);
            }
            s.store_part(sum, acc);
        }
    }
}

/// Sets the scores of keys that row `r` does not see to -inf, and adds the bias.
fn hide(masks: &Masks<'_>, (b, h, r): (usize, usize, usize), keys: Range<usize>, p: &mut [f32]) {
    let op = masks.op;
    let ((head, i), n) = (op.query(h, r), keys.len());
    if let Some(bias) = masks.bias(b, head, i) {
        for (p, bias) in p.iter_mut().zip(&bias[keys.clone()]) {
            *p += bias * std::f32::consts::LOG2_E;
        }
    }
    if let Some((id, ids)) = masks.ids(b, i) {
        for (p, _) in p.iter_mut().zip(&ids[keys.clone()]).filter(|(_, other)| **other != id) {
            *p = f32::NEG_INFINITY;
        }
    }
    if let Some(padding) = masks.padding(b) {
        for (p, _) in p.iter_mut().zip(&padding[keys.clone()]).filter(|(_, there)| **there == 0) {
            *p = f32::NEG_INFINITY;
        }
    }
    let seen = masks.visible(b, i);
    let from = seen.start.clamp(keys.start, keys.end) - keys.start;
    let to = seen.end.clamp(keys.start, keys.end) - keys.start;
    p[..from].fill(f32::NEG_INFINITY);
    p[to.max(from)..n].fill(f32::NEG_INFINITY);
}
