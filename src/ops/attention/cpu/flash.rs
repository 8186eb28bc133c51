//! Blocked attention: `attention_flash`.
//!
//! Layout: `q` [batch, len_q, heads_q, head_dim], `k` and `v` [batch, len_k, heads_kv, head_dim] with contiguous rows at any
//! distance, likewise `bias`; ids, padding, lengths and results contiguous.
//!
//! Algorithm (FlashAttention-2, arXiv 2307.08691, algorithm 1, with 2^x for e^x and the lanes of vectors for queries):
//! the queries of all heads of a group that share keys form one column of rows; a part of the work is a block of up to
//! three vectors of them. Its queries are scaled by softmax_scale · log2 e and transposed once, to Qᵀ [head_dim][block].
//! For each block of `BK` keys that some query of the block sees, Sᵀ = K · Qᵀ is masked and stored with its maxima on the
//! way (`scores`), P = 2^(S - m) replaces it, and Oᵀ = Oᵀ · 2^(m_old - m) + Vᵀ · P (`accumulate`), where the factor is
//! left out if no maximum moved. At the end Oᵀ / l is transposed back. Blocks of keys that nobody sees are not visited;
//! the order of keys is fixed, so bits depend on nothing but the problem.
//!
//! Keys and values are read where they lie if they are f32, few queries share them and no padding may hide rubbish in
//! them. Otherwise they are first widened into blocks [k: BK rows, v: BK rows] in the workspace, for as many heads at a
//! time as fit `PACKED_BYTES`, so that the packed copy stays in the outer caches.
//!
//! Tunables: BK a multiple of 8. Cache budget with AVX-512 (48 queries) and head_dim 64: Qᵀ 12 KiB, P 24 KiB, Oᵀ 12 KiB.
//! Bound: FMA; an exponential costs about 17 vector operations against the 2 · head_dim products of a score.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

use super::BIAS;
use super::block::{self, Keys, Mask, Slot};
use crate::backend::cpu::simd::{Lane, MAX_LANES, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Backend, Kernel, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::ops::attend::cpu::{Masks, Rows, Scattered, halves, max_nv, turn, widen};
use crate::ops::attention::Attention;
use crate::ops::with_float;
use crate::simd_fn;
use std::sync::Mutex;

/// Keys of a block.
const BK: usize = 128;
/// Vectors of queries in a block, at most.
const NV: usize = 3;
/// Packed keys and values that are held at a time.
const PACKED_BYTES: usize = 1 << 20;
/// Queries per key head from which f32 keys and values are packed, too: strided rows then cost more than a copy.
const PACK_ROWS: usize = 128;

pub fn supports<S: Simd>(op: &Attention, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    // Places of keys are compared as f32.
    Unsupported::at_most("len_k", op.len_k, 1usize << 24)
}

/// The scratch memory of one part at work, in f32.
fn slot_len(op: &Attention) -> usize {
    Slot::len(op.head_dim, BK, NV * MAX_LANES)
}

/// A packed block of keys and values, in f32.
fn packed_len(op: &Attention) -> usize {
    2 * BK * op.head_dim
}

fn blocks_of_keys(op: &Attention) -> usize {
    op.len_k.div_ceil(BK)
}

/// Heads of keys that are packed and worked off together.
fn wave(op: &Attention) -> usize {
    let head_bytes = 4 * packed_len(op) * blocks_of_keys(op);
    (PACKED_BYTES / head_bytes.max(1)).clamp(1, (op.batch * op.heads_kv).max(1))
}

pub fn workspace(op: &Attention, caps: &Caps) -> usize {
    4 * (caps.threads * slot_len(op) + wave(op) * blocks_of_keys(op) * packed_len(op))
}

pub fn launch<S: Simd>(_: &Kernel<Cpu, Attention>, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.dtype, T => with_float!(op.out, O => run::<S, T, O>(s, op, l)))
}

fn run<S: Simd, T: Lane, O: Lane>(s: S, op: &Attention, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let attend = &op.attend();
    let masks = Masks::new("attention", attend, l, BIAS)?;
    let [q, k, v] = [0, 1, 2].map(|i| Rows::<T>::new(attend, l, i));
    let out = Scattered::new(l.output::<O>(0));
    let lse = op.lse.then(|| Scattered::new(l.output::<f32>(1)));
    let (rows, heads) = (attend.rows_per_head(), op.batch * op.heads_kv);
    if heads * rows == 0 {
        return Ok(());
    }
    let (slots, packed) = l.scratch::<f32>().split_at_mut(Cpu::caps(l.device).threads * slot_len(op));
    let slots = Mutex::new(slots.chunks_exact_mut(slot_len(op)).collect::<Vec<_>>());
    let lock = || slots.lock().unwrap_or_else(|e| e.into_inner());

    // Rows that overlap (broadcast ones) cannot be walked in chunks.
    let overlapping = k.strides[1].min(v.strides[1]) < op.head_dim;
    let pack = T::DTYPE != DType::F32 || rows >= PACK_ROWS || op.key_padding || overlapping;
    let (per_head, wave) = (blocks_of_keys(op), if pack { wave(op) } else { heads });
    let vectors = rows.div_ceil(S::LANES);
    let blocks = vectors.div_ceil(max_nv::<S>());

    for first in (0..heads).step_by(wave) {
        let wave = wave.min(heads - first);
        if pack && per_head > 0 {
            let packed = &mut packed[..wave * per_head * packed_len(op)];
            l.pool().chunks_mut(packed, packed_len(op), |i, to| {
                let (head, block) = (first + i / per_head, i % per_head);
                let (b, h) = (head / op.heads_kv, head % op.heads_kv);
                pack_block(s, &masks, &k, &v, (b, h, block * BK), to);
            });
        }
        let packed = &*packed;
        l.pool().run(wave * blocks, |part| {
            // The last blocks of a head first: with a causal mask they take the longest.
            let (head, block) = (first + part / blocks, blocks - 1 - part % blocks);
            let (b, h) = (head / op.heads_kv, head % op.heads_kv);
            let keys = |i: usize| {
                if pack {
                    let at = &packed[((head - first) * per_head + i) * packed_len(op)..][..packed_len(op)];
                    let (k, v) = at.split_at(BK * op.head_dim);
                    Keys { k, v, strides: [op.head_dim; 2] }
                } else {
                    // Only f32 comes here.
                    let (at_k, at_v) = (k.from(b, i * BK, h), v.from(b, i * BK, h));
                    let strides = [k.strides[1], v.strides[1]];
                    Keys { k: bytemuck::cast_slice(at_k), v: bytemuck::cast_slice(at_v), strides }
                }
            };
            // Vectors are dealt out evenly: 13 are 3 + 3 + 3 + 2 + 2.
            let (even, more) = (vectors / blocks, vectors % blocks);
            let (nv, start) = (even + usize::from(block < more), (even * block + block.min(more)) * S::LANES);
            let queries = Queries { masks: &masks, b, h, start, count: (rows - start).min(nv * S::LANES), nv };
            let memory = lock().pop().expect("there is a slot for each thread");
            let mut slot = Slot::new(memory, op.head_dim, BK, nv * S::LANES);
            load(s, &queries, &q, &mut slot);
            queries.attend(s, keys, &mut slot);
            finish(s, &queries, &out, lse.as_ref(), &mut slot);
            lock().push(memory);
        });
    }
    Ok(())
}

simd_fn! {
/// Widens the keys from `from` on and their values into `to`: [k: BK rows, v: BK rows].
fn pack_block[S, T: Lane](s, masks: &Masks<'_>, k: &Rows<'_, T>, v: &Rows<'_, T>, at: (usize, usize, usize), to: &mut [f32]) {
    let (b, h, from) = at;
    let d = masks.op.head_dim;
    let (to_k, to_v) = to.split_at_mut(BK * d);
    let padding = masks.padding(b);
    let keys = from..(from + BK).min(masks.keys(b)).max(from);
    for (j, (to_k, to_v)) in keys.zip(to_k.chunks_exact_mut(d).zip(to_v.chunks_exact_mut(d))) {
        if padding.is_some_and(|p| p[j] == 0) {
            // What is hidden may be anything, and 0 · NaN is not 0.
            to_k.fill(0.0);
            to_v.fill(0.0);
        } else {
            widen(s, k.row(b, j, h), 1.0, to_k);
            widen(s, v.row(b, j, h), 1.0, to_v);
        }
    }
}
}

/// A block of the queries that share a head of keys.
struct Queries<'a> {
    masks: &'a Masks<'a>,
    b: usize,
    h: usize,
    /// The first row: query `row % len_q` of head `row / len_q` of the group.
    start: usize,
    /// Rows; the block's other lanes repeat the last.
    count: usize,
    /// Vectors.
    nv: usize,
}

impl Queries<'_> {
    /// The head and the place of the query of a lane.
    fn lane(&self, lane: usize) -> (usize, usize) {
        let op = self.masks.op;
        let row = self.start + lane.min(self.count - 1);
        (self.h * (op.heads_q / op.heads_kv) + row / op.len_q, row % op.len_q)
    }

    fn attend<'k, S: Simd>(&self, s: S, keys: impl Fn(usize) -> Keys<'k>, slot: &mut Slot<'_>) {
        let fold = |x: &[f32], start: f32, f: fn(f32, f32) -> f32| x.iter().fold(start, |a, &b| f(a, b)) as usize;
        // Keys that some query sees, and those that all see.
        let some = fold(slot.lo, f32::MAX, f32::min)..fold(slot.hi, 0.0, f32::max);
        let all = fold(slot.lo, 0.0, f32::max)..fold(slot.hi, f32::MAX, f32::min);
        let mut first = true;
        for block in some.start / BK..some.end.div_ceil(BK) {
            let at = some.start.max(block * BK)..some.end.min((block + 1) * BK);
            let bounded = at.start < all.start || at.end > all.end;
            let added = self.added(s, at.clone(), slot);
            let mask = Mask { bounded, added, first_key: at.start as f32 };
            let keys = keys(block).skip(at.start - block * BK);
            match self.nv {
                1 => block::step::<S, 1>(s, keys, at.len(), first, mask, slot),
                2 => block::step::<S, 2>(s, keys, at.len(), first, mask, slot),
                _ => block::step::<S, 3>(s, keys, at.len(), first, mask, slot),
            }
            first = false;
        }
        if first {
            slot.o.fill(0.0);
        }
    }

    /// Writes what is added to the scores of some keys to `slot.added` [key][lane]; `false` if there is nothing.
    fn added<S: Simd>(&self, s: S, keys: std::ops::Range<usize>, slot: &mut Slot<'_>) -> bool {
        let (masks, width) = (self.masks, self.nv * S::LANES);
        if masks.by_place_alone() {
            return false;
        }
        let added = &mut slot.added[..keys.len() * width];
        added.fill(0.0);
        if masks.op.bias {
            for lane in 0..width {
                let (head, i) = self.lane(lane);
                let to = &mut slot.stage[lane % 8 * BK..][..keys.len()];
                if let Some(bias) = masks.bias(self.b, head, i) {
                    widen(s, &bias[keys.clone()], std::f32::consts::LOG2_E, to);
                }
                if lane % 8 == 7 {
                    turn(s, slot.stage, BK, (8, keys.len()), &mut added[lane - 7..], width);
                }
            }
        }
        if let Some((_, ids)) = masks.ids(self.b, 0) {
            block::part_segments(s, &ids[keys.clone()], slot.id_high, slot.id_low, added);
        }
        if let Some(padding) = masks.padding(self.b) {
            for (added, _) in added.chunks_exact_mut(width).zip(&padding[keys]).filter(|(_, there)| **there == 0) {
                added.fill(f32::NEG_INFINITY);
            }
        }
        true
    }
}

simd_fn! {
    /// Scales and transposes the queries, and notes what they see.
 fn load[S, T: Lane](s, queries: &Queries<'_>, q: &Rows<'_, T>, slot: &mut Slot<'_>) {
        let (op, width) = (queries.masks.op, queries.nv * S::LANES);
        let scale = (f64::from(op.scale()) * std::f64::consts::LOG2_E) as f32;
        for lane in 0..width {
            let (head, i) = queries.lane(lane);
            let seen = queries.masks.visible(queries.b, i);
            (slot.lo[lane], slot.hi[lane]) = (seen.start as f32, seen.end as f32);
            if let Some((id, _)) = queries.masks.ids(queries.b, i) {
                (slot.id_high[lane], slot.id_low[lane]) = halves(id);
            }
            widen(s, q.row(queries.b, i, head), scale, &mut slot.stage[lane % 8 * op.head_dim..][..op.head_dim]);
            if lane % 8 == 7 {
                let to = &mut slot.qt[lane - 7..];
                turn(s, slot.stage, op.head_dim, (8, op.head_dim), to, width);
            }
        }
        slot.m.fill(f32::NEG_INFINITY);
        slot.l.fill(0.0);
    }

}

simd_fn! {
   /// Divides by the sums, transposes back and writes the results.
fn finish[S, O: Lane](s, queries: &Queries<'_>, out: &Scattered<O>, lse: Option<&Scattered<f32>>, slot: &mut Slot<'_>) {
       let (op, width) = (queries.masks.op, queries.nv * S::LANES);
       let d = op.head_dim;
       block::normalise(s, slot.l, slot.o);
       for lane in 0..queries.count {
           if lane % 8 == 0 {
               turn(s, &slot.o[lane..], width, (d, 8), slot.stage, d);
           }
           let (head, i) = queries.lane(lane);
           let row = &slot.stage[lane % 8 * d..][..d];
           // SAFETY: every query of every head is in one block, so this row is written by this part alone.
           let to = unsafe { out.get(((queries.b * op.len_q + i) * op.heads_q + head) * d, d) };
           block::narrow(s, row, to);
           if let Some(lse) = lse {
               // SAFETY: as above.
               let to = unsafe { lse.get((queries.b * op.heads_q + head) * op.len_q + i, 1) };
               to[0] = super::log_sum_exp(slot.m[lane], slot.l[lane]);
           }
       }
   }}
