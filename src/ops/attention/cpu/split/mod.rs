//! Attention of a few queries, split over keys: `attention_split`.
//!
//! Layout: as in `flash.rs`.
//!
//! Algorithm (FlashAttention-2 with the keys split as in Flash-Decoding): a part of the work is some hundreds of keys of a sequence
//! for some heads. Its keys are walked in blocks of `BK`: dot products with the queries; mask, new maximum, weights 2^(s - m); then the
//! values, added up with their weights. Two vectors of bf16 are taken apart into even and odd ones, one instruction a vector
//! instead of two, so q and acc lie in that order. Each part leaves m, l and acc of its queries in the workspace; they are put together
//! in the order of keys.
//!
//! Two orders of keys:
//! - [`in_order`], one query of every head, rows of a key neighbours: one key after the other with all heads, as memory lies.
//! - [`grouped`], anything else: four keys at a time, with heads whose rows fill a page; queries of a group share every load.
//!
//! Parts depend on the problem and its strides alone. Bound: memory; keys and values are read once. Beyond 2x of it: queries that share
//! a head (32 on 8 heads of 128, bf16, out of L3: 30 GB/s), for which four products a value and taking bf16 apart are the bound.

mod grouped;
mod in_order;

use super::{BIAS, log_sum_exp};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd, math};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::error::{Result, Unsupported};
use crate::ops::attend::Attend;
use crate::ops::attend::cpu::{Masks, Rows, widen};
use crate::ops::attention::Attention;
use crate::ops::with_float;
use crate::simd_fn;
use std::ops::Range;

/// Keys of a block: a multiple of the widest vector.
const BK: usize = 64;
/// Queries per key head that a row takes at most.
const MAX_ROWS: usize = 16;
/// Queries per key head up to which this beats the flash kernel, which fills vectors with queries.
const SUITS_ROWS: usize = 8;

pub fn supports<S: Simd>(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    Unsupported::at_most("queries for each head of keys", op.attend().rows_per_head(), MAX_ROWS)
}

pub fn suits(op: &Attention, _: &Caps) -> bool {
    op.attend().rows_per_head() <= SUITS_ROWS
}

/// Keys of a part: the first of these with which there are `PARTS`, or the last.
const SPLITS: [usize; 4] = [512, 256, 128, 64];
const PARTS: usize = 16;

fn split(op: &Attend) -> usize {
    let enough = |&split: &usize| op.batch * op.len_k.div_ceil(split) >= PARTS;
    SPLITS.into_iter().find(enough).unwrap_or(SPLITS[SPLITS.len() - 1])
}

fn splits(op: &Attend) -> usize {
    op.len_k.div_ceil(split(op)).max(1)
}

pub fn workspace(op: &Attention, _: &Caps) -> usize {
    let attend = &op.attend();
    // Parts of several heads take no more than as many of one.
    4 * op.batch * splits(attend) * op.heads_kv * Memory::new(attend, 1).len()
}

pub fn launch<S: Simd>(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let attend = &op.attend();
    let masks = Masks::new("attention", attend, l, BIAS)?;
    if attend.rows_per_head() == 0 {
        return Ok(());
    }
    let mut partial = with_float!(op.dtype, T => meet::<S, T>(s, op, masks, l));
    settle(s, attend, &mut partial, l.output(1));
    with_float!(op.out, O => merge::<S, O>(s, op, &partial, l));
    Ok(())
}

/// What parts have computed of all sequences: [batch][split][group of heads], each laid out by `memory`.
struct Partial<'a> {
    data: &'a mut [f32],
    memory: Memory,
    splits: usize,
    groups: usize,
    /// Whether sums of values have the order of [`Lane::load_two`] that differs from that of memory.
    in_pairs: bool,
}

impl Partial<'_> {
    /// Where the part is that has a split of some heads of a sequence.
    #[inline(always)]
    fn at(&self, b: usize, split: usize, group: usize) -> usize {
        ((b * self.splits + split) * self.groups + group) * self.memory.len()
    }
}

fn meet<'a, S: Simd, T: Lane>(s: S, op: &Attention, masks: Masks<'_>, l: &mut Launch<'a, Cpu>) -> Partial<'a> {
    let attend = masks.op;
    let [q, k, v] = [0, 1, 2].map(|i| Rows::<T>::new(attend, l, i));
    let in_order = in_order::suits::<S, T>(attend, [&k, &v]);
    let heads = if in_order { op.heads_kv } else { grouped::heads(attend, [&k, &v]) };
    let (split, splits) = (split(attend), splits(attend));
    let (groups, memory) = (op.heads_kv / heads, Memory::new(attend, heads));
    let ahead = [&k, &v].map(|of| grouped::ahead::<T>(heads, attend, of));
    let data = &mut l.scratch::<f32>()[..op.batch * splits * groups * memory.len()];
    l.pool().chunks_mut(data, memory.len(), |i, data| {
        let (b, n, first) = (i / groups / splits, i / groups % splits, i % groups * heads);
        let (mut start, mut end) = (usize::MAX, 0);
        for i in 0..op.len_q {
            let seen = masks.visible(b, i);
            (start, end) = (start.min(seen.start), end.max(seen.end));
        }
        let keys = start.max(n * split)..end.min((n + 1) * split);
        let part = Part { masks, q, k, v, ahead, in_order, b, heads: first..first + heads, keys };
        meet_keys(s, &part, memory.deal(data));
    });
    Partial { data, memory, splits, groups, in_pairs: T::IN_PAIRS }
}

/// Some keys of some heads of a sequence.
struct Part<'a, T> {
    masks: Masks<'a>,
    q: Rows<'a, T>,
    k: Rows<'a, T>,
    v: Rows<'a, T>,
    /// Elements from what is read to what is asked for, of `k` and of `v`.
    ahead: [usize; 2],
    /// Whether keys are met in the order of memory.
    in_order: bool,
    b: usize,
    heads: Range<usize>,
    keys: Range<usize>,
}

/// How the memory of a part is dealt out.
#[derive(Clone, Copy)]
struct Memory {
    heads: usize,
    /// Queries that share a head.
    rows: usize,
    head_dim: usize,
}

/// What a part holds of the queries of its heads: query `n` is row `n % rows` of head `n / rows`.
struct State<'a> {
    /// Queries, scaled, and what is summed of values: [query][column].
    q: &'a mut [f32],
    acc: &'a mut [f32],
    /// Scores of a block's keys, then weights.
    p: &'a mut [f32],
    /// For each query what weights are relative to, and their sum.
    m: &'a mut [f32],
    l: &'a mut [f32],
}

impl Memory {
    fn new(op: &Attend, heads: usize) -> Memory {
        Memory { heads, rows: op.rows_per_head(), head_dim: op.head_dim }
    }

    /// Of q, acc, p, m and l, in whole lines.
    fn lens(self) -> [usize; 5] {
        let queries = (self.heads * self.rows).next_multiple_of(MAX_LANES);
        let values = (self.heads * self.rows * self.head_dim).next_multiple_of(MAX_LANES);
        [values, values, BK * queries, queries, queries]
    }

    fn len(self) -> usize {
        self.lens().iter().sum()
    }

    fn deal(self, memory: &mut [f32]) -> State<'_> {
        let [q_len, acc_len, p_len, m_len, _] = self.lens();
        let (q, rest) = memory.split_at_mut(q_len);
        let (acc, rest) = rest.split_at_mut(acc_len);
        let (p, rest) = rest.split_at_mut(p_len);
        let (m, l) = rest.split_at_mut(m_len);
        State { q, acc, p, m, l }
    }

    /// Where [`State`] has acc, m and l.
    fn results(self) -> [usize; 3] {
        let [q, acc, p, m, _] = self.lens();
        [q, q + acc + p, q + acc + p + m]
    }
}

simd_fn! {
    fn meet_keys[S, T: Lane](s, part: &Part<'_, T>, state: State<'_>) {
        let (op, mut state) = (part.masks.op, state);
        let (d, rows) = (op.head_dim, op.rows_per_head());
        let scale = op.scale_log2();
        for (n, q) in state.q.chunks_exact_mut(d).enumerate().take(part.heads.len() * rows) {
            let (head, i) = op.query(part.heads.start + n / rows, n % rows);
            load(s, part.q.row(part.b, i, head), scale, q);
        }
        state.acc.fill(0.0);
        state.p.fill(0.0);
        state.m.fill(f32::NEG_INFINITY);
        state.l.fill(0.0);
        for from in part.keys.clone().step_by(BK) {
            let keys = from..part.keys.end.min(from + BK);
            if part.in_order {
                in_order::block(s, part, keys, &mut state);
            } else if S::IS_ROOMY {
                grouped::block::<S, T, { grouped::MOST_KEYS }>(s, part, keys, &mut state);
            } else {
                grouped::block::<S, T, 2>(s, part, keys, &mut state);
            }
        }
    }
}

/// The values of a row that are taken two vectors at a time. Of those, `q` and `acc` have the order of [`Lane::load_two`].
#[inline(always)]
fn paired<S: Simd>(d: usize) -> usize {
    d - d % (2 * S::LANES)
}

/// A query, scaled.
#[inline(always)]
fn load<S: Simd, T: Lane>(s: S, row: &[T], scale: f32, to: &mut [f32]) {
    let (row, rest) = row.split_at(paired::<S>(row.len()));
    widen(s, rest, scale, &mut to[row.len()..]);
    let scale = s.splat(scale);
    for (row, to) in row.chunks_exact(2 * S::LANES).zip(to.chunks_exact_mut(2 * S::LANES)) {
        let two = T::load_two(s, row);
        s.store(s.mul(two[0], scale), to);
        s.store(s.mul(two[1], scale), &mut to[S::LANES..]);
    }
}

simd_fn! {
    /// Leaves for each query of each part, in place of m, what its sums of values are multiplied by.
    fn settle[S](s, op: &Attend, partial: &mut Partial<'_>, lse: Option<&mut [f32]>) {
        let (Memory { heads, rows, .. }, [_, m_at, l_at], mut lse) = (partial.memory, partial.memory.results(), lse);
        for (b, group) in (0..op.batch).flat_map(|b| (0..partial.groups).map(move |group| (b, group))) {
            for from in (0..heads * rows).step_by(S::LANES) {
                let (mut largest, mut sum) = (s.splat(f32::NEG_INFINITY), s.zero());
                for split in 0..partial.splits {
                    largest = s.max(largest, s.load(&partial.data[partial.at(b, split, group) + m_at + from..]));
                }
                let base = s.select_lt(largest, s.splat(f32::MIN), s.zero(), largest);
                for split in 0..partial.splits {
                    let at = partial.at(b, split, group) + from;
                    let factor = math::exp2(s, s.sub(s.load(&partial.data[at + m_at..]), base));
                    sum = s.fma(factor, s.load(&partial.data[at + l_at..]), sum);
                    s.store(factor, &mut partial.data[at + m_at..]);
                }
                let inverse = s.select_lt(s.zero(), sum, s.div(s.splat(1.0), sum), sum);
                for split in 0..partial.splits {
                    let at = partial.at(b, split, group) + from;
                    let factor = s.mul(s.load(&partial.data[at + m_at..]), inverse);
                    s.store(factor, &mut partial.data[at + m_at..]);
                }
                let Some(lse) = &mut lse else { continue };
                let mut of_lanes = [[0.0; MAX_LANES]; 2];
                s.store(largest, &mut of_lanes[0]);
                s.store(sum, &mut of_lanes[1]);
                for query in from..(heads * rows).min(from + S::LANES) {
                    let (head, i) = op.query(group * heads + query / rows, query % rows);
                    let [largest, sum] = of_lanes.map(|values| values[query - from]);
                    lse[(b * op.heads_q + head) * op.len_q + i] = log_sum_exp(largest, sum);
                }
            }
        }
    }
}

/// Adds up the parts of every query, in their order.
fn merge<S: Simd, O: Lane>(s: S, op: &Attention, partial: &Partial<'_>, l: &mut Launch<'_, Cpu>) {
    let Some(out) = l.output::<O>(0) else { return };
    l.pool().chunks_mut(out, op.head_dim, |row, out| {
        let (b, i, h) = (row / op.heads_q / op.len_q, row / op.heads_q % op.len_q, row % op.heads_q);
        merge_row(s, op, partial, (b, i, h), out);
    });
}

simd_fn! {
    fn merge_row[S, O: Lane](s, op: &Attention, partial: &Partial<'_>, row: (usize, usize, usize), out: &mut [O]) {
        let (b, i, h) = row;
        let (group, Memory { heads, rows, head_dim }) = (op.heads_q / op.heads_kv, partial.memory);
        let [acc_at, m_at, _] = partial.memory.results();
        let query = h / group % heads * rows + h % group * op.len_q + i;
        for (n, out) in out.chunks_mut(2 * S::LANES).enumerate() {
            let (mut sums, low) = ([s.zero(); 2], out.len().min(S::LANES));
            for split in 0..partial.splits {
                let of_part = &partial.data[partial.at(b, split, h / group / heads)..];
                let factor = s.splat(of_part[m_at + query]);
                let acc = &of_part[acc_at + query * head_dim + n * 2 * S::LANES..][..out.len()];
                sums[0] = s.fma(factor, s.load_part(&acc[..low]), sums[0]);
                sums[1] = s.fma(factor, s.load_part(&acc[low..]), sums[1]);
            }
            let mut row = [0.0; 2 * MAX_LANES];
            s.store(sums[0], &mut row);
            s.store(sums[1], &mut row[S::LANES..]);
            if partial.in_pairs && out.len() == 2 * S::LANES {
                let turned = row;
                for (i, value) in row[..out.len()].iter_mut().enumerate() {
                    *value = turned[i / 2 + i % 2 * S::LANES];
                }
            }
            for (out, row) in out.chunks_mut(S::LANES).zip(row.chunks_exact(S::LANES)) {
                O::store_part(s, s.load(row), out);
            }
        }
    }
}
