//! The working memory of a part of the work: a span of keys, and the block of queries that meets it.

use crate::ops::attend::cpu::{PANEL, Soon};
use std::ops::Range;

/// Keys of a span, at most.
const MAX_KEYS: usize = 768;

/// What the size of the working memory depends on.
#[derive(Clone, Copy)]
pub struct Shape {
    pub head_dim: usize,
    /// Values of a word: see [`Words`](crate::ops::attend::cpu::Words).
    pub values: usize,
    /// What words of a row, and columns of gradients, are whole multiples of.
    pub whole: [usize; 2],
    /// What the queries that meet a strip begin and end with multiples of.
    pub tile: [usize; 2],
    /// Queries of a block, and rows that there is room for.
    pub queries: usize,
    pub room: usize,
    /// Words that these take with words of columns, and with words of queries.
    pub packed: [usize; 2],
    /// Lanes that are a multiple of every strip.
    pub strips: usize,
    /// What a span's keys, values and their gradients take, at most.
    pub bytes: usize,
    /// Words of weights, and of gradients of scores.
    pub scores: [usize; 2],
    /// Rows and columns of a tile of the gradients of queries, whose tiles lie one after the other.
    pub sums: [usize; 2],
}

impl Shape {
    /// Words of a row.
    pub fn depth(&self) -> usize {
        self.head_dim.div_ceil(self.values).next_multiple_of(self.whole[0])
    }

    /// Columns of the gradients of keys and values.
    pub fn columns(&self) -> usize {
        self.head_dim.next_multiple_of(self.whole[1])
    }

    /// Columns, rounded up to whole vectors of any instruction set.
    pub fn wide(&self) -> usize {
        self.columns().next_multiple_of(PANEL)
    }

    /// Keys of a span, at most.
    pub fn keys(&self) -> usize {
        let of_key = 2 * self.depth() + 2 * self.columns() + self.wide() / self.values;
        let [least, most] = [2 * self.strips, MAX_KEYS / self.strips * self.strips];
        (self.bytes / (4 * of_key) / self.strips * self.strips).clamp(least, most)
    }

    /// Where the gradient of a query lies, piece by piece.
    pub fn pieces(&self, query: usize) -> impl Iterator<Item = Range<usize>> {
        let ([rows, columns], wide) = (self.sums, self.wide());
        let first = query / rows * rows * wide + query % rows * columns;
        (0..wide / columns).map(move |i| first + i * rows * columns).map(move |at| at..at + columns)
    }

    /// The f32 values and words that a slot takes.
    pub fn len(&self) -> usize {
        let wide = self.wide();
        self.keys() * (2 * self.depth() + 2 * self.columns() + wide / self.values + 4)
            + self.room * (wide + 6)
            + 2 * self.packed.iter().sum::<usize>()
            + self.scores.iter().sum::<usize>()
            + 8 * wide
    }
}

/// The working memory of a part.
pub struct Slot<'a> {
    /// Keys and values of the span: [word of a row][lane] of one strip after the other.
    pub kt: &'a mut [f32],
    pub vt: &'a mut [f32],
    /// Their gradients so far, likewise: [column][lane].
    pub dkt: &'a mut [f32],
    pub dvt: &'a mut [f32],
    /// Keys: [word of keys][column] of one group of columns after the other.
    pub k: &'a mut [f32],
    /// Queries, and gradients of their results, with words of columns, and with words of queries.
    pub q: [&'a mut [f32]; 2],
    pub dout: [&'a mut [f32]; 2],
    /// What the span adds to the gradients of queries.
    pub dq: &'a mut [f32],
    /// Weights, and gradients of scores.
    pub p: &'a mut [f32],
    pub ds: &'a mut [f32],
    /// Per query: what 2^x is divided by, its log-sum-exp in base 2, negated; delta.
    pub minus_lse: &'a mut [f32],
    pub delta: &'a mut [f32],
    pub sight: Sight<'a>,
    /// Eight rows on their way through a transposition.
    pub stage: &'a mut [f32],
    pub shape: Shape,
}

/// What decides who sees whom.
pub struct Sight<'a> {
    /// Per query: the keys that it sees by their place are those from `lo` to before `hi`; both halves of its segment's id.
    pub lo: &'a mut [f32],
    pub hi: &'a mut [f32],
    pub id_high: &'a mut [f32],
    pub id_low: &'a mut [f32],
    /// Per key: its place; 1 if it is there and 0 if not; both halves of its segment's id.
    pub place: &'a mut [f32],
    pub there: &'a mut [f32],
    pub key_high: &'a mut [f32],
    pub key_low: &'a mut [f32],
}

impl Sight<'_> {
    /// Whether a query sees any key by its place.
    pub fn sees(&self, query: usize) -> bool {
        self.lo[query] < self.hi[query]
    }
}

impl<'a> Slot<'a> {
    /// Cuts a slot out of at least [`len`](Shape::len) values.
    pub fn new(memory: &'a mut [f32], shape: Shape) -> Slot<'a> {
        let mut rest = memory;
        let mut cut = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        let (keys, depth, columns, wide) = (shape.keys(), shape.depth(), shape.columns(), shape.wide());
        let (room, packed) = (shape.room, shape.packed);
        Slot {
            kt: cut(keys * depth),
            vt: cut(keys * depth),
            dkt: cut(keys * columns),
            dvt: cut(keys * columns),
            k: cut(keys / shape.values * wide),
            q: packed.map(&mut cut),
            dout: packed.map(&mut cut),
            dq: cut(room * wide),
            p: cut(shape.scores[0]),
            ds: cut(shape.scores[1]),
            minus_lse: cut(room),
            delta: cut(room),
            sight: Sight {
                lo: cut(room),
                hi: cut(room),
                id_high: cut(room),
                id_low: cut(room),
                place: cut(keys),
                there: cut(keys),
                key_high: cut(keys),
                key_low: cut(keys),
            },
            stage: cut(8 * wide),
            shape,
        }
    }
}

/// What is brought closer during steps: `each` rows at every tile of scores.
pub struct Ahead {
    pub rows: [Soon; 3],
    pub each: usize,
}

impl Ahead {
    #[inline(always)]
    pub fn fetch(&mut self) {
        for rows in &mut self.rows {
            rows.fetch(self.each);
        }
    }
}
