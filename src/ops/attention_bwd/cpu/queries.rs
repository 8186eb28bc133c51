//! A block of queries: what its rows see, and what it does to a span of keys.
#![allow(unsafe_code)] // parts write rows of the results that lie apart

use super::slot::{Ahead, Shape, Sight, Slot};
use super::{Given, Gradients, Products, strips};
use crate::backend::cpu::simd::Simd;
use crate::dtype::Elem;
use crate::ops::attend::cpu::{Masks, Scattered, halves};
use crate::simd_fn;
use std::ops::Range;

/// A block of the queries that share a head of keys, and the span of keys that it meets.
pub struct Queries<'a> {
    pub masks: &'a Masks<'a>,
    pub b: usize,
    pub h: usize,
    /// The first row: query `row % len_q` of head `row / len_q` of the group.
    pub start: usize,
    pub count: usize,
    pub span: Range<usize>,
    /// Whether the gradient of the bias is wanted.
    pub dbias: bool,
}

/// What happens to a strip's scores before they count.
#[derive(Clone, Copy)]
pub struct Mask<'a> {
    /// What they are multiplied by, for weights that are powers of 2.
    pub scale: f32,
    /// Keys lie outside of some query's `lo..hi`.
    pub bounded: bool,
    /// A bias, segments or padding.
    pub others: Option<&'a Queries<'a>>,
}

impl Mask<'_> {
    /// Whether it hides or changes anything.
    pub fn hides(&self) -> bool {
        self.bounded || self.others.is_some()
    }

    /// Scores of a row and a vector of keys, whose first has number `key` of the span, as they count: -inf where they do not.
    #[inline(always)]
    pub fn apply<S: Simd>(&self, s: S, mut x: S::V, row: usize, key: usize, sight: &Sight<'_>) -> S::V {
        let hidden = s.splat(f32::NEG_INFINITY);
        if let Some(queries) = self.others {
            if let Some(bias) = queries.bias(row) {
                let from = (queries.span.start + key).min(bias.len());
                let bias = &bias[from..bias.len().min(from + S::LANES)];
                x = s.fma(s.load_part(bias), s.splat(std::f32::consts::LOG2_E), x);
            }
            let high = s.abs(s.sub(s.load(&sight.key_high[key..]), s.splat(sight.id_high[row])));
            let low = s.abs(s.sub(s.load(&sight.key_low[key..]), s.splat(sight.id_low[row])));
            x = s.select_lt(s.add(high, low), s.splat(0.5), x, hidden);
            x = s.select_lt(s.load(&sight.there[key..]), s.splat(0.5), hidden, x);
        }
        if self.bounded {
            let place = s.load(&sight.place[key..]);
            x = s.select_lt(place, s.splat(sight.lo[row]), hidden, x);
            x = s.select_lt(place, s.splat(sight.hi[row]), x, hidden);
        }
        x
    }
}

impl Queries<'_> {
    /// The head and the place of the query of a row.
    pub fn row(&self, row: usize) -> (usize, usize) {
        self.masks.op.query(self.h, self.start + row)
    }

    /// The bias of a row's scores, one for each key.
    fn bias(&self, row: usize) -> Option<&[f32]> {
        let (head, i) = self.row(row.min(self.count - 1));
        self.masks.bias(self.b, head, i)
    }

    /// Notes what decides what each row sees. Gives the keys from the first that some row sees by its place to the last.
    pub fn place<T>(&self, given: &Given<'_, T>, slot: &mut Slot<'_>) -> Range<usize> {
        let (op, sight) = (self.masks.op, &mut slot.sight);
        let (mut first, mut end) = (usize::MAX, 0);
        // What fills the last tile up sees nothing.
        for row in self.count..self.count.next_multiple_of(slot.shape.tile[0]) {
            for of_row in [&mut sight.lo, &mut sight.hi, &mut slot.minus_lse, &mut slot.delta] {
                of_row[row] = 0.0;
            }
        }
        for row in 0..self.count {
            let (head, i) = self.row(row);
            let at = (self.b * op.heads_q + head) * op.len_q + i;
            let (lse, seen) = (given.lse[at], self.masks.visible(self.b, i));
            // A query that saw nothing has no share, and -inf - -inf is not a number.
            let sees = lse > f32::NEG_INFINITY && !seen.is_empty();
            if sees {
                (first, end) = (first.min(seen.start), end.max(seen.end));
            }
            (sight.lo[row], sight.hi[row]) = if sees { (seen.start as f32, seen.end as f32) } else { (0.0, 0.0) };
            (slot.minus_lse[row], slot.delta[row]) =
                if sees { (lse * -std::f32::consts::LOG2_E, given.delta[at]) } else { (0.0, 0.0) };
            (sight.id_high[row], sight.id_low[row]) = halves(self.masks.ids(self.b, i).map_or(0, |(id, _)| id));
        }
        first..end
    }

    /// The rows that the next block takes, and those of its gradients; `each` are asked for at a time.
    pub fn ahead<T: Elem>(&self, given: &Given<'_, T>, gradients: &Gradients, shape: &Shape, each: usize) -> Ahead {
        let (op, n) = (self.masks.op, self.start.min(shape.queries));
        let ((head, i), (head_next, i_next)) = (op.query(self.h, self.start), op.query(self.h, self.start - n));
        let (b, d) = (self.b, op.head_dim);
        let dq = gradients.dq.soon(((b * op.len_q + i) * op.heads_q + head) * d, op.heads_q * d, d, self.count);
        let next = |n: usize| (b, i_next, head_next, n.min(op.len_q - i_next));
        let (b, i, head, n) = next(n);
        Ahead { rows: [given.q.soon(b, i, head, n), given.dout.soon(b, i, head, n), dq], each }
    }

    /// What this block adds to the gradients of the span's keys and values, in `slot.dq` to that of its queries, and to
    /// that of the bias, if it is wanted.
    #[allow(clippy::too_many_arguments)]
    pub fn step<S: Simd, P: Products<S>>(
        &self,
        s: S,
        products: P,
        turn: &mut P::Turn,
        seen: Range<usize>,
        mut ahead: Ahead,
        dbias: &Scattered<f32>,
        slot: &mut Slot<'_>,
    ) {
        let scale = self.masks.op.scale_log2();
        let others = (!self.masks.by_place_alone()).then_some(self);
        if P::ADDS {
            slot.dq[..self.count * slot.shape.wide()].fill(0.0);
        }
        let [begins, ends] = slot.shape.tile;
        for strip in strips::<S, P>(self.span.len()) {
            let (first, end) = (self.span.start + strip.start, self.span.start + strip.end);
            if end <= seen.start || first >= seen.end {
                continue;
            }
            let (first, end) = (first as f32, end as f32);
            let (lo, hi) = (&*slot.sight.lo, &*slot.sight.hi);
            let sees = |&row: &usize| lo[row] < end && hi[row] > first;
            let start = (0..self.count).find(sees).unwrap_or(0) / begins * begins;
            let rows = start..(0..self.count).rfind(sees).map_or(start, |last| last + 1).next_multiple_of(ends);
            if rows.is_empty() {
                continue;
            }
            let bounded = rows.clone().any(|row| lo[row] > first || hi[row] < end);
            let mask = Mask { scale, bounded, others };
            products.step(s, turn, strip.clone(), rows.clone(), mask, &mut ahead, slot);
            if self.dbias {
                self.add_bias(s, dbias, rows, strip, slot);
            }
        }
        products.end(turn, self.count, slot);
    }

    /// Adds `slot.dq`, scaled, to the gradients of the queries.
    ///
    /// # Safety
    /// Nobody else has these rows meanwhile.
    pub unsafe fn add<S: Simd>(&self, s: S, dq: &Scattered<f32>, slot: &Slot<'_>) {
        let (op, d) = (self.masks.op, slot.shape.head_dim);
        for row in 0..self.count {
            let (head, i) = self.row(row);
            // SAFETY: what this function demands.
            let to = unsafe { dq.get(((self.b * op.len_q + i) * op.heads_q + head) * d, d) };
            for (piece, to) in slot.shape.pieces(row).zip(to.chunks_mut(slot.shape.sums[1])) {
                add(s, op.scale(), &slot.dq[piece], to);
            }
        }
    }

    /// Adds `slot.ds` of some rows and a strip to the gradient of the bias.
    fn add_bias<S: Simd>(
        &self,
        s: S,
        dbias: &Scattered<f32>,
        rows: Range<usize>,
        strip: Range<usize>,
        slot: &Slot<'_>,
    ) {
        let (op, one) = (self.masks.op, |shared: bool, i: usize| if shared { 0 } else { i });
        let keys = self.span.start + strip.start..self.span.start + strip.end;
        for row in rows {
            let ((head, i), ds) = (self.row(row), &slot.ds[row * strip.len()..][..strip.len()]);
            let (lo, hi) = (keys.start.max(slot.sight.lo[row] as usize), keys.end.min(slot.sight.hi[row] as usize));
            if lo < hi {
                let (b, head) = (one(op.bias_batch == 1, self.b), one(op.bias_heads == 1, head));
                let at = ((b * op.bias_heads + head) * op.len_q + i) * op.len_k + lo;
                // SAFETY: this part alone does the sequences and heads that share these rows of the bias, one after the
                // other, and no other span has these keys.
                let to = unsafe { dbias.get(at, hi - lo) };
                add(s, 1.0, &ds[lo - keys.start..], to);
            }
        }
    }
}

simd_fn! {
    /// `to += factor · x`
    fn add[S](s, factor: f32, x: &[f32], to: &mut [f32]) {
        let (body, factor) = (to.len() - to.len() % S::LANES, s.splat(factor));
        for (x, to) in x[..body].chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
            s.store(s.fma(factor, s.load(x), s.load(to)), to);
        }
        if body < to.len() {
            let (x, to) = (&x[body..to.len()], &mut to[body..]);
            s.store_part(s.fma(factor, s.load_part(x), s.load_part(to)), to);
        }
    }
}
