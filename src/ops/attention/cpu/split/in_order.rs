//! One query of every head: keys are met one by one, all heads of each, so that memory is read from front to back.
//!
//! Layout of a part: the queries of all heads, what is summed of values, scores [key][head]: each loop touches one stretch of L1, and
//! softmax has heads in lanes, without sums across them. Both loops are functions of their own: inside the one that calls them, the
//! compiler reloads what it knows from the stack, which costs a tenth.
//!
//! Zen 5, one thread, 32 heads of 128, 4096 keys: f32 3.16 ms (42.5 GB/s; a sum of as much memory reads 44 to 50, of twice as much 42 to
//! 45), bf16 1.41 (47). 8 heads of 64, out of L3: f32 0.201 ms (84 GB/s). Tried and lost (builds for one instruction set, f32 as above at
//! 3.2 to 3.4 ms, and in C at 3.05):
//! - keys in groups of four for eight heads, as in `grouped`: 4.8 ms, out of L3 0.306. A loop that reads memory in that order and does
//!   nothing else takes 4.9;
//! - q, acc and scores of a head next to each other: 3.6 ms; in C 3.40;
//! - scores as [head][key]: in C 3.27;
//! - asking 2, 4, 6, 12 KiB ahead: 3.65, 3.40, 3.39, 3.56 ms; for lines that are read once (`prefetchnta`): the same;
//! - parts of 512 keys instead of 256: the same; of 128: 2 % longer.

use super::{BK, Part, State, paired, splits};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, fetch_beyond, math};
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::Rows;
use crate::simd_fn;
use std::ops::Range;

/// Bytes from what is read to what is asked for.
const AHEAD_BYTES: usize = 8192;
/// Heads at least: they are the lanes of scores.
const HEADS: usize = 4;

/// Whether heads have one query each and the rows of a key are neighbours.
pub fn suits<S: Simd, T: Lane>(op: &Attend, of: [&Rows<'_, T>; 2]) -> bool {
    let neighbours = of.iter().all(|of| of.strides[2] == op.head_dim);
    let parts = op.batch * splits(op);
    op.rows_per_head() == 1
        && op.heads_kv >= HEADS
        && op.head_dim == paired::<S>(op.head_dim)
        && neighbours
        && parts > 1
}

/// Up to `BK` keys.
#[inline(always)]
pub fn block<S: Simd, T: Lane>(s: S, part: &Part<'_, T>, keys: Range<usize>, state: &mut State<'_>) {
    let (masks, b) = (&part.masks, part.b);
    let (heads, d) = (masks.op.heads_kv, masks.op.head_dim);
    let width = heads.next_multiple_of(MAX_LANES);
    // All keys of a part are seen by their place. Those that are hidden otherwise are not met: a weight of 0 times NaN would be NaN.
    let (mut met, mut n) = ([0; BK], 0);
    let (padding, ids) = (masks.padding(b), masks.ids(b, 0));
    for key in keys {
        if padding.is_none_or(|there| there[key] != 0) && ids.is_none_or(|(id, ids)| ids[key] == id) {
            met[n] = key;
            n += 1;
        }
    }
    for (&key, p) in met[..n].iter().zip(state.p.chunks_exact_mut(width)) {
        scores(s, part.k.from(b, key, 0), d, state.q, &mut p[..heads]);
        for (h, p) in p[..heads].iter_mut().enumerate() {
            let Some(bias) = masks.bias(b, h, 0) else { break };
            *p += bias[key] * std::f32::consts::LOG2_E;
        }
    }
    weights(s, n, width, d, state);
    for (&key, p) in met[..n].iter().zip(state.p.chunks_exact(width)) {
        values(s, part.v.from(b, key, 0), d, &p[..heads], state.acc);
    }
}

simd_fn! {
    /// `p[h] = q[h] · k[h]`
    fn scores[S, T: Lane](s, k: &[T], d: usize, q: &[f32], p: &mut [f32]) {
        for ((p, k), q) in p.iter_mut().zip(k.chunks_exact(d)).zip(q.chunks_exact(d)) {
            let mut sums = [s.zero(); 2];
            for (k, q) in k.chunks_exact(2 * S::LANES).zip(q.chunks_exact(2 * S::LANES)) {
                fetch_beyond(k, AHEAD_BYTES);
                let k = T::load_two(s, k);
                sums[0] = s.fma(k[0], s.load(q), sums[0]);
                sums[1] = s.fma(k[1], s.load(&q[S::LANES..]), sums[1]);
            }
            *p = s.sum(s.add(sums[0], sums[1]));
        }
    }
}

simd_fn! {
    /// `acc[h] += p[h] · v[h]`
    fn values[S, T: Lane](s, v: &[T], d: usize, p: &[f32], acc: &mut [f32]) {
        for ((&p, v), acc) in p.iter().zip(v.chunks_exact(d)).zip(acc.chunks_exact_mut(d)) {
            let p = s.splat(p);
            for (v, acc) in v.chunks_exact(2 * S::LANES).zip(acc.chunks_exact_mut(2 * S::LANES)) {
                fetch_beyond(v, AHEAD_BYTES);
                let v = T::load_two(s, v);
                let sums = [s.fma(v[0], p, s.load(acc)), s.fma(v[1], p, s.load(&acc[S::LANES..]))];
                s.store(sums[0], acc);
                s.store(sums[1], &mut acc[S::LANES..]);
            }
        }
    }
}

simd_fn! {
    /// Turns the scores of some keys, [key][head], into weights, and scales what was summed before in heads where a larger one came.
    fn weights[S](s, keys: usize, width: usize, d: usize, state: &mut State<'_>) {
        for at in (0..width).step_by(S::LANES) {
            let rows = || at..at + S::LANES;
            let old = s.load(&state.m[rows()]);
            let mut new = old;
            for p in state.p.chunks_exact(width).take(keys) {
                new = s.max(new, s.load(&p[rows()]));
            }
            // Without a finite score: any finite base gives weights of 2^-inf = 0.
            let base = s.select_lt(new, s.splat(f32::MIN), s.zero(), new);
            let mut sum = s.zero();
            for p in state.p.chunks_exact_mut(width).take(keys) {
                let weight = math::exp2(s, s.sub(s.load(&p[rows()]), base));
                sum = s.add(sum, weight);
                s.store(weight, &mut p[rows()]);
            }
            if s.any_lt(old, new) {
                let mut factors = [0.0; MAX_LANES];
                s.store(math::exp2(s, s.sub(old, base)), &mut factors);
                for (acc, &factor) in state.acc.chunks_exact_mut(d).skip(at).zip(&factors[..S::LANES]) {
                    acc.iter_mut().for_each(|acc| *acc *= factor);
                }
                sum = s.fma(s.load(&state.l[rows()]), s.load(&factors), sum);
            } else {
                sum = s.add(sum, s.load(&state.l[rows()]));
            }
            s.store(sum, &mut state.l[rows()]);
            s.store(new, &mut state.m[rows()]);
        }
    }
}
