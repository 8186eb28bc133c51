//! Attention of a few queries, split over keys: `attention_split`.
//!
//! Layout: as in `flash.rs`.
//!
//! Algorithm (FlashAttention-2 with the keys split as in Flash-Decoding): a part of the work is `SPLIT` keys of a sequence
//! for one head of keys, or for several whose rows are neighbours in memory, so that pages are read whole. Its keys are
//! walked in blocks of `BK`, `MOST_KEYS` at a time: dot products with the queries of the group, which share every load; mask,
//! new maximum, weights 2^(s - m); then the values, added up with their weights. bf16 is taken apart into even and odd values,
//! one instruction a vector instead of two, so q and acc lie in that order. Each part leaves (m, l, acc) of its rows in the
//! workspace; a second loop merges them per query, in the order of the keys.
//!
//! Reading: a run of neighbouring rows is at most a page, and the hardware prefetcher begins anew on every page; so each row
//! asks for a later one. One thread, 32 heads of 4096 keys, 128, bf16, alternating: one key at a time 4.1 ms; four 3.1 to
//! 3.6; with pairs, and asking for whole groups, 2.9 (23 GB/s). Distances of 4 to 16 KiB are equal; runs of 8 KiB instead
//! of 4 take 3.4 ms, of 2 KiB 3.1. On Zen 5 bf16 takes 1.67 ms, and 1.62 asking for a line with every line that is read.
//!
//! A single query of f32 leaves time enough to take keys one by one, all heads of each: then memory is read from front to back, if
//! parts are enough. On Zen 5 that reads 38.5 GB/s of the 41 that a sum of a long row reads (3.49 ms). Four keys of eight heads at a time
//! read 28 GB/s (4.7 ms), and so does a loop that reads memory in that order and does nothing else: 27 GB/s, 30 at most with runs of
//! whole rows, whatever it asks for and when; one row at a time 42. bf16 one by one is bound by what it computes: 2.9 ms. Out of L3
//! one by one is slower, 38 for 52 GB/s, which the weights of a model leave to few. Tried and lost: 4 or 16 KiB ahead 4.0 and 4.2
//! ms; four heads of a key at a time 3.75 ms; one head at a time with less to look at between, 3.7 ms, and 52 GB/s out of L3.
//!
//! Workspace of a head in a part: [q][acc][scores] of its rows, then m and l. Parts depend on the problem and its strides
//! alone. Bound: memory; keys and values are read once.

#![allow(clippy::needless_range_loop)] // loops over registers name them by number

use super::block::narrow;
use super::{BIAS, log_sum_exp};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, fetch_near, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::{Masks, Rows, widen};
use crate::ops::attention::Attention;
use crate::ops::with_float;
use crate::simd_fn;
use std::ops::Range;

/// Keys of a part.
const SPLIT: usize = 512;
/// Keys of a block: a multiple of the widest vector.
const BK: usize = 64;
/// Queries per key head that a row takes at most.
const MAX_ROWS: usize = 16;
/// Queries per key head up to which this beats the flash kernel, which fills vectors with queries.
const SUITS_ROWS: usize = 8;
/// Keys at a time, at most.
const MOST_KEYS: usize = 4;
/// Bytes between what is read and what is asked for, at least: whole groups of keys, each asks for the one that follows.
const AHEAD_BYTES: usize = 8192;
/// Bytes of neighbouring rows that a part reads at a time, where heads are neighbours: a page.
const RUN_BYTES: usize = 4096;
/// Parts from which on all heads of a key are read together.
const PARTS: usize = 8;

pub fn supports<S: Simd>(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    Unsupported::at_most("queries for each head of keys", op.attend().rows_per_head(), MAX_ROWS)
}

pub fn suits(op: &Attention, _: &Caps) -> bool {
    op.attend().rows_per_head() <= SUITS_ROWS
}

fn splits(op: &Attention) -> usize {
    op.len_k.div_ceil(SPLIT).max(1)
}

/// The values of a head in a part.
fn head_len(op: &Attend) -> usize {
    op.rows_per_head() * (2 * op.head_dim + BK + 2)
}

pub fn workspace(op: &Attention, _: &Caps) -> usize {
    4 * op.batch * splits(op) * op.heads_kv * head_len(&op.attend())
}

pub fn launch<S: Simd>(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let partials = with_float!(op.dtype, T => run::<S, T>(s, op, l)?);
    if op.attend().rows_per_head() == 0 {
        return Ok(());
    }
    with_float!(op.out, O => merge::<S, O>(s, op, partials, l));
    Ok(())
}

fn run<'a, S: Simd, T: Lane>(s: S, op: &Attention, l: &mut Launch<'a, Cpu>) -> Result<&'a [f32]> {
    let attend = &op.attend();
    let masks = Masks::new("attention", attend, l, BIAS)?;
    let [q, k, v] = [0, 1, 2].map(|i| Rows::<T>::new(attend, l, i));
    let partials = l.scratch::<f32>();
    let neighbours = k.strides[2] < k.strides[1] && v.strides[2] < v.strides[1];
    let (d, heads_kv) = (op.head_dim, op.heads_kv);
    // A single query of f32 leaves time enough to read all heads of a key, one after the other.
    let whole = |of: &Rows<'_, T>| of.strides[1..] == [heads_kv * d, d];
    let one_by_one = T::DTYPE == DType::F32
        && attend.rows_per_head() == 1
        && whole(&k)
        && whole(&v)
        && op.batch * splits(op) >= PARTS;
    let most = if neighbours { RUN_BYTES / (d * size_of::<T>()) } else { 1 };
    let fits = |heads: usize| heads <= most && heads_kv.is_multiple_of(heads);
    let heads = (1..=heads_kv).rev().find(|&heads| one_by_one || fits(heads)).unwrap_or(1);
    let groups = heads_kv / heads;
    let row_bytes = (heads * d * size_of::<T>()).max(1);
    let keys_ahead = AHEAD_BYTES.div_ceil(row_bytes).next_multiple_of(MOST_KEYS);
    let ahead = [&k, &v].map(|of| if one_by_one { AHEAD_BYTES / size_of::<T>() } else { keys_ahead * of.strides[1] });
    l.pool().chunks_mut(partials, (heads * head_len(attend)).max(1), |i, memory| {
        let (b, split, first) = (i / groups / splits(op), i / groups % splits(op), i % groups * heads);
        let (mut start, mut end) = (usize::MAX, 0);
        for i in 0..op.len_q {
            let seen = masks.visible(b, i);
            (start, end) = (start.min(seen.start), end.max(seen.end));
        }
        let keys = start.max(split * SPLIT)..end.min((split + 1) * SPLIT);
        part::<S, T>(s, Part { masks, q, k, v, ahead, one_by_one, b, heads: first..first + heads, keys }, memory);
    });
    Ok(partials)
}

/// Some keys of some heads of a sequence.
struct Part<'a, T> {
    masks: Masks<'a>,
    q: Rows<'a, T>,
    k: Rows<'a, T>,
    v: Rows<'a, T>,
    /// Elements from what is read to what is asked for, of `k` and of `v`.
    ahead: [usize; 2],
    /// Whether keys are taken one by one.
    one_by_one: bool,
    b: usize,
    heads: Range<usize>,
    keys: Range<usize>,
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
        let row = self.rows[i].as_ptr().wrapping_add(self.ahead);
        for at in at.step_by(64 / size_of::<T>()) {
            fetch_near(row.wrapping_add(at).cast());
        }
    }
}

/// What a part holds of a head.
struct Head<'a> {
    q: &'a mut [f32],
    acc: &'a mut [f32],
    p: &'a mut [f32],
    m: &'a mut [f32],
    l: &'a mut [f32],
}

impl<'a> Head<'a> {
    fn new(memory: &'a mut [f32], rows: usize, d: usize) -> Head<'a> {
        let (q, rest) = memory.split_at_mut(rows * d);
        let (acc, rest) = rest.split_at_mut(rows * d);
        let (p, rest) = rest.split_at_mut(rows * BK);
        let (m, l) = rest.split_at_mut(rows);
        Head { q, acc, p, m, l }
    }
}

simd_fn! {
    fn part[S, T: Lane](s, part: Part<'_, T>, memory: &mut [f32]) {
        let (op, b) = (part.masks.op, part.b);
        let (d, rows, len) = (op.head_dim, op.rows_per_head(), head_len(op));
        let scale = (f64::from(op.scale()) * std::f64::consts::LOG2_E) as f32;
        for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
            let head = Head::new(memory, rows, d);
            for (r, q) in head.q.chunks_exact_mut(d).enumerate() {
                let (head, i) = op.query(h, r);
                widen(s, part.q.row(b, i, head), scale, q);
                turn::<S, T>(q, false);
            }
            head.acc.fill(0.0);
            head.m.fill(f32::NEG_INFINITY);
            head.l.fill(0.0);
        }
        for from in part.keys.clone().step_by(BK) {
            let keys = from..part.keys.end.min(from + BK);
            if part.one_by_one {
                block::<S, T, 1>(s, &part, keys, memory);
            } else if S::IS_ROOMY {
                block::<S, T, MOST_KEYS>(s, &part, keys, memory);
            } else {
                block::<S, T, 2>(s, &part, keys, memory);
            }
        }
        for memory in memory.chunks_exact_mut(len) {
            Head::new(memory, rows, d).acc.chunks_exact_mut(d).for_each(|acc| turn::<S, T>(acc, true));
        }
    }
}

/// Up to `BK` keys, `KEYS` of them at a time.
#[inline(always)]
fn block<S: Simd, T: Lane, const KEYS: usize>(s: S, part: &Part<'_, T>, keys: Range<usize>, memory: &mut [f32]) {
    let op = part.masks.op;
    let (d, rows, len, n) = (op.head_dim, op.rows_per_head(), head_len(op), keys.len());
    let mut all = [0; BK];
    all.iter_mut().zip(keys.clone()).for_each(|(to, key)| *to = key);
    let (groups, rest) = all[..n].as_chunks::<KEYS>();
    for (g, &group) in groups.iter().enumerate() {
        scores::<S, T, KEYS>(s, part, group, g * KEYS, memory);
    }
    for (g, &key) in rest.iter().enumerate() {
        scores::<S, T, 1>(s, part, [key], groups.len() * KEYS + g, memory);
    }
    for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
        let mut head = Head::new(memory, rows, d);
        for r in 0..rows {
            hide(&part.masks, (part.b, h, r), keys.clone(), &mut head.p[r * BK..(r + 1) * BK]);
            weights(s, r, d, &mut head);
        }
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
        values::<S, T, KEYS>(s, part, group, keys.start, memory);
    }
    for &key in rest {
        values::<S, T, 1>(s, part, [key], keys.start, memory);
    }
}

/// Dot products of some keys with the queries of every head, from place `at` of its scores on.
#[inline(always)]
fn scores<S: Simd, T: Lane, const KEYS: usize>(
    s: S,
    part: &Part<'_, T>,
    keys: [usize; KEYS],
    at: usize,
    memory: &mut [f32],
) {
    let op = part.masks.op;
    let (d, rows, len) = (op.head_dim, op.rows_per_head(), head_len(op));
    for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
        let head = Head::new(memory, rows, d);
        let k = Read::new(&part.k, part.b, keys, h, part.ahead[0]);
        let (whole, rest) = (rows - rows % 4, &mut head.p[at..]);
        for r in (0..whole).step_by(4) {
            dots::<S, T, KEYS, 4>(s, k, &head.q[r * d..], &mut rest[r * BK..]);
        }
        for r in whole..rows {
            dots::<S, T, KEYS, 1>(s, k, &head.q[r * d..], &mut rest[r * BK..]);
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
    memory: &mut [f32],
) {
    let op = part.masks.op;
    let (d, rows, len) = (op.head_dim, op.rows_per_head(), head_len(op));
    for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
        let head = Head::new(memory, rows, d);
        let v = Read::new(&part.v, part.b, keys, h, part.ahead[1]);
        let whole = rows - rows % 4;
        for r in (0..whole).step_by(4) {
            add::<S, T, KEYS, 4>(s, v, keys, &head.p[r * BK..], first, &mut head.acc[r * d..]);
        }
        for r in whole..rows {
            add::<S, T, KEYS, 1>(s, v, keys, &head.p[r * BK..], first, &mut head.acc[r * d..]);
        }
    }
}

/// The values of a row that are taken two vectors at a time. Of those, `q` and `acc` have the order of [`Lane::load_two`].
#[inline(always)]
fn paired<S: Simd>(d: usize) -> usize {
    d - d % (2 * S::LANES)
}

/// Brings what `paired` counts of a row into the order of [`Lane::load_two`], or back.
fn turn<S: Simd, T: Lane>(row: &mut [f32], back: bool) {
    if !T::IN_PAIRS {
        return;
    }
    let mut turned = [0.0; 2 * MAX_LANES];
    for row in row.chunks_exact_mut(2 * S::LANES) {
        for i in 0..row.len() {
            let half = i / 2 + i % 2 * S::LANES;
            let (to, from) = if back { (i, half) } else { (half, i) };
            turned[to] = row[from];
        }
        row.copy_from_slice(&turned[..row.len()]);
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

/// Sets the scores of keys that row `r` does not see to -inf, those after the last too, and adds the bias.
fn hide(masks: &Masks<'_>, (b, h, r): (usize, usize, usize), keys: Range<usize>, p: &mut [f32]) {
    let op = masks.op;
    let ((head, i), n) = (op.query(h, r), keys.len());
    p[n..].fill(f32::NEG_INFINITY);
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

/// Turns the scores of row `r` into weights, and scales what was summed before if the maximum moved.
#[inline(always)]
fn weights<S: Simd>(s: S, r: usize, d: usize, head: &mut Head<'_>) {
    let p = &mut head.p[r * BK..(r + 1) * BK];
    let mut top = s.splat(head.m[r]);
    for p in p.chunks_exact(S::LANES) {
        top = s.max(top, s.load(p));
    }
    let (old, new) = (head.m[r], s.max_lane(top));
    // A row that has seen nothing: any finite base gives weights of 2^-inf = 0.
    let base = s.splat(if new == f32::NEG_INFINITY { 0.0 } else { new });
    let mut sum = s.zero();
    for p in p.chunks_exact_mut(S::LANES) {
        let weight = math::exp2(s, s.sub(s.load(p), base));
        sum = s.add(sum, weight);
        s.store(weight, p);
    }
    let mut before = head.l[r];
    if new > old && old > f32::NEG_INFINITY {
        let factor = (old - new).exp2();
        before *= factor;
        for acc in &mut head.acc[r * d..(r + 1) * d] {
            *acc *= factor;
        }
    }
    head.l[r] = before + s.sum(sum);
    head.m[r] = new;
}

/// Merges the splits of every query, in their order.
fn merge<S: Simd, O: Lane>(s: S, op: &Attention, partials: &[f32], l: &mut Launch<'_, Cpu>) {
    let attend = &op.attend();
    let (d, rows, len) = (op.head_dim, attend.rows_per_head(), head_len(attend));
    let group = op.heads_q / op.heads_kv;
    // For query i of head h: where its row's numbers are in each split.
    let of = |b: usize, h: usize, i: usize| {
        let r = h % group * op.len_q + i;
        let head = move |split: usize| &partials[((b * splits(op) + split) * op.heads_kv + h / group) * len..][..len];
        let at = rows * (2 * d + BK) + r;
        let largest = (0..splits(op)).fold(f32::NEG_INFINITY, |m, split| m.max(head(split)[at]));
        let base = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
        let each = (0..splits(op)).map(move |split| {
            let head = head(split);
            let factor = (head[at] - base).exp2();
            (factor, factor * head[at + rows], &head[(rows + r) * d..][..d])
        });
        (largest, each)
    };
    if let Some(lse) = l.output::<f32>(1) {
        for (row, lse) in lse.iter_mut().enumerate() {
            let (h, i) = (row / op.len_q % op.heads_q, row % op.len_q);
            let (largest, each) = of(row / op.len_q / op.heads_q, h, i);
            *lse = log_sum_exp(largest, each.map(|(_, sum, _)| sum).sum());
        }
    }
    let Some(out) = l.output::<O>(0) else { return };
    l.pool().chunks_mut(out, d, |row, out| {
        let (b, i, h) = (row / op.heads_q / op.len_q, row / op.heads_q % op.len_q, row % op.heads_q);
        let (_, each) = of(b, h, i);
        let sum: f32 = each.clone().map(|(_, sum, _)| sum).sum();
        let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        let mut merged = [0f32; 64];
        for (n, out) in out.chunks_mut(merged.len()).enumerate() {
            let merged = &mut merged[..out.len()];
            merged.fill(0.0);
            for (factor, _, acc) in each.clone() {
                for (m, x) in merged.iter_mut().zip(&acc[n * 64..]) {
                    *m += factor * inverse * x;
                }
            }
            narrow(s, merged, 1.0, out);
        }
    });
}
