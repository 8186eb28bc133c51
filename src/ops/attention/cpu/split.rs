//! Attention of a few queries, split over keys: `attention_split`.
//!
//! Layout: as in `flash.rs`.
//!
//! Algorithm (FlashAttention-2 with the keys split as in Flash-Decoding): a part of the work is `SPLIT` keys of a sequence
//! for one head of keys, or for several whose rows are neighbours in memory, so that pages are read whole. Its keys are
//! walked in blocks of `BK`: dot products with the queries of the group, which share every load; mask, new maximum,
//! weights 2^(s - m); then the values, added up with their weights. Each part leaves (m, l, acc) of its rows in the
//! workspace; a second loop merges them per query, in the order of the keys.
//!
//! Reading: a run of neighbouring rows is at most a page, and the hardware prefetcher begins anew on every page; so each row
//! asks for the one `AHEAD_BYTES` further. One thread, 32 heads of 4096 keys, 128, memory shared with busy neighbours, four
//! rounds: f32 33 to 41 ms become 25 to 33, bf16 18 to 24 become 10 to 18. Distances of 4, 8 and 16 KiB are equal; runs of
//! 16 KiB instead of 4 are equal with f32 and 1.6 times slower with bf16.
//!
//! Workspace of a head in a part: [q][acc][scores] of its rows, then m and l. Parts depend on the problem and its strides
//! alone. Bound: memory; keys and values are read once.

use super::block::narrow;
use super::{BIAS, log_sum_exp};
use crate::backend::cpu::simd::{Lane, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
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
/// Bytes between what is read and what is asked for.
const AHEAD_BYTES: usize = 8192;
/// Bytes of neighbouring rows that a part reads at a time, where heads are neighbours: a page.
const RUN_BYTES: usize = 4096;

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
    let most = if neighbours { RUN_BYTES / (op.head_dim * op.dtype.bytes()) } else { 1 };
    let heads = (1..=op.heads_kv).rev().find(|&n| n <= most && op.heads_kv.is_multiple_of(n)).unwrap_or(1);
    let groups = op.heads_kv / heads;
    l.pool().chunks_mut(partials, (heads * head_len(attend)).max(1), |i, memory| {
        let (b, split, first) = (i / groups / splits(op), i / groups % splits(op), i % groups * heads);
        let (mut start, mut end) = (usize::MAX, 0);
        for i in 0..op.len_q {
            let seen = masks.visible(b, i);
            (start, end) = (start.min(seen.start), end.max(seen.end));
        }
        let keys = start.max(split * SPLIT)..end.min((split + 1) * SPLIT);
        part::<S, T>(s, Part { masks, q, k, v, b, heads: first..first + heads, keys }, memory);
    });
    Ok(partials)
}

/// Some keys of some heads of a sequence.
struct Part<'a, T> {
    masks: Masks<'a>,
    q: Rows<'a, T>,
    k: Rows<'a, T>,
    v: Rows<'a, T>,
    b: usize,
    heads: Range<usize>,
    keys: Range<usize>,
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
                let query = part.q.row(b, r % op.len_q, h * (op.heads_q / op.heads_kv) + r / op.len_q);
                widen(s, query, scale, q);
            }
            head.acc.fill(0.0);
            head.m.fill(f32::NEG_INFINITY);
            head.l.fill(0.0);
        }
        let padding = part.masks.padding(b);
        // Keys from what is read to what is asked for.
        let ahead = AHEAD_BYTES.div_ceil(part.heads.len() * d * size_of::<T>());
        let soon = |rows: &Rows<'_, T>, key: usize, h: usize| {
            if key + ahead < op.len_k {
                rows.soon(b, key + ahead, h, 1).fetch(1);
            }
        };
        for from in part.keys.clone().step_by(BK) {
            let n = BK.min(part.keys.end - from);
            for j in 0..n {
                for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
                    let head = Head::new(memory, rows, d);
                    soon(&part.k, from + j, h);
                    dots::<S, T>(s, part.k.row(b, from + j, h), head.q, &mut head.p[j..]);
                }
            }
            for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
                let mut head = Head::new(memory, rows, d);
                for r in 0..rows {
                    hide(&part.masks, (b, h, r), from..from + n, &mut head.p[r * BK..(r + 1) * BK]);
                    weights(s, r, d, &mut head);
                }
            }
            for j in (0..n).filter(|j| padding.is_none_or(|p| p[from + j] != 0)) {
                for (memory, h) in memory.chunks_exact_mut(len).zip(part.heads.clone()) {
                    let head = Head::new(memory, rows, d);
                    soon(&part.v, from + j, h);
                    add::<S, T>(s, part.v.row(b, from + j, h), &head.p[j..], head.acc);
                }
            }
        }
    }
}

/// `p[r · BK] = q[r] · k` for every row.
#[inline(always)]
fn dots<S: Simd, T: Lane>(s: S, k: &[T], q: &[f32], p: &mut [f32]) {
    let mut q = q;
    let mut r = 0;
    while q.len() >= 4 * k.len() {
        dots_of::<S, T, 4>(s, k, q, &mut p[r * BK..]);
        (q, r) = (&q[4 * k.len()..], r + 4);
    }
    while q.len() >= k.len() {
        dots_of::<S, T, 1>(s, k, q, &mut p[r * BK..]);
        (q, r) = (&q[k.len()..], r + 1);
    }
}

#[inline(always)]
fn dots_of<S: Simd, T: Lane, const R: usize>(s: S, k: &[T], q: &[f32], p: &mut [f32]) {
    let d = k.len();
    let mut sums = [s.zero(); R];
    let body = d - d % S::LANES;
    for at in (0..body).step_by(S::LANES) {
        let k = T::load(s, &k[at..]);
        for r in 0..R {
            sums[r] = s.fma(k, s.load(&q[r * d + at..]), sums[r]);
        }
    }
    if body < d {
        let k = T::load_part(s, &k[body..]);
        for r in 0..R {
            sums[r] = s.fma(k, s.load_part(&q[r * d + body..(r + 1) * d]), sums[r]);
        }
    }
    for r in 0..R {
        p[r * BK] = s.sum(sums[r]);
    }
}

/// Sets the scores of keys that row `r` does not see to -inf, those after the last too, and adds the bias.
fn hide(masks: &Masks<'_>, (b, h, r): (usize, usize, usize), keys: Range<usize>, p: &mut [f32]) {
    let op = masks.op;
    let (head, i) = (h * (op.heads_q / op.heads_kv) + r / op.len_q, r % op.len_q);
    let n = keys.len();
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

/// `acc[r] += p[r · BK] · v` for every row.
#[inline(always)]
fn add<S: Simd, T: Lane>(s: S, v: &[T], p: &[f32], acc: &mut [f32]) {
    let d = v.len();
    for (acc, p) in acc.chunks_exact_mut(d).zip(p.iter().step_by(BK)) {
        let weight = s.splat(*p);
        let body = d - d % S::LANES;
        for (v, acc) in v[..body].chunks_exact(S::LANES).zip(acc.chunks_exact_mut(S::LANES)) {
            s.store(s.fma(T::load(s, v), weight, s.load(acc)), acc);
        }
        if body < d {
            let acc = &mut acc[body..];
            s.store_part(s.fma(T::load_part(s, &v[body..]), weight, s.load_part(acc)), acc);
        }
    }
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
