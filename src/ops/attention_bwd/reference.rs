use super::AttentionBwd;
use crate::ops::attend::Attend;
use crate::ops::{Real, Sample};

pub fn attention_bwd<T: Real>(op: &AttentionBwd, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let given = &Given::new(op, inputs);
    let &Attend { batch, len_q, len_k, heads_q, heads_kv, head_dim: d, .. } = &given.op;
    let (group, scale) = (heads_q / heads_kv, T::of(f64::from(given.op.scale())));
    let zeros = |rows: usize, cols: usize| vec![T::default(); rows * cols];

    let mut dq = zeros(batch * len_q * heads_q, d);
    for (row, dq) in dq.chunks_exact_mut(d).enumerate().filter(|(row, _)| rows.wants(*row)) {
        let (b, i, h) = (row / heads_q / len_q, row / heads_q % len_q, row % heads_q);
        for j in given.op.visible(i, given.keys(b)) {
            let (_, ds) = given.score(b, h, i, j);
            add(dq, ds.rounded(op.dtype) * scale, &given.k[given.key(b, j, h)..]);
        }
    }
    let (mut dk, mut dv) = (zeros(batch * len_k * heads_kv, d), zeros(batch * len_k * heads_kv, d));
    for (row, (dk, dv)) in dk.chunks_exact_mut(d).zip(dv.chunks_exact_mut(d)).enumerate() {
        let (b, j, head) = (row / heads_kv / len_k, row / heads_kv % len_k, row % heads_kv);
        let seen = |i: &usize| given.op.visible(*i, given.keys(b)).contains(&j);
        for i in (0..if rows.wants(row) { len_q } else { 0 }).filter(seen) {
            for h in head * group..(head + 1) * group {
                let (p, ds) = given.score(b, h, i, j);
                add(dk, ds.rounded(op.dtype) * scale, &given.q[given.query(b, i, h)..]);
                add(dv, p.rounded(op.dtype), &given.rounded_dout[given.query(b, i, h)..]);
            }
        }
    }
    let mut dbias = Vec::new();
    if op.dbias {
        dbias = zeros(op.bias_batch * op.bias_heads * len_q, len_k);
        for b in 0..batch {
            for h in 0..heads_q {
                for i in 0..len_q {
                    let row = given.bias_row(b, h, i);
                    for j in given.op.visible(i, given.keys(b)).filter(|_| rows.wants(row)) {
                        dbias[row * len_k + j] += given.score(b, h, i, j).1;
                    }
                }
            }
        }
    }
    vec![dq, dk, dv, dbias]
}

/// `to += x · row`
fn add<T: Real>(to: &mut [T], x: T, row: &[T]) {
    for (to, &y) in to.iter_mut().zip(row) {
        *to += x * y;
    }
}

/// The operands, and what a query's gradient loses: `delta = dout · out - dlse` [batch, heads_q, len_q].
struct Given<'a, T> {
    op: Attend,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    lse: &'a [T],
    dout: &'a [T],
    rounded_dout: Vec<T>,
    bias: &'a [T],
    ids_q: &'a [T],
    ids_k: &'a [T],
    padding: &'a [T],
    lens: &'a [T],
    delta: Vec<T>,
}

impl<'a, T: Real> Given<'a, T> {
    fn new(op: &AttentionBwd, inputs: &'a [Option<Vec<T>>]) -> Given<'a, T> {
        let operand = |n: usize| inputs[n].as_deref().unwrap_or_default();
        let (out, dlse) = (operand(3), operand(11));
        let mut given = Given {
            op: op.attend(),
            q: operand(0),
            k: operand(1),
            v: operand(2),
            lse: operand(4),
            dout: operand(5),
            rounded_dout: operand(5).iter().map(|x| x.rounded(op.dtype)).collect(),
            bias: operand(6),
            ids_q: operand(7),
            ids_k: operand(8),
            padding: operand(9),
            lens: operand(10),
            delta: Vec::new(),
        };
        let d = op.head_dim;
        given.delta = (0..given.lse.len())
            .map(|at| {
                let (b, h, i) = (at / op.len_q / op.heads_q, at / op.len_q % op.heads_q, at % op.len_q);
                let row = given.query(b, i, h);
                let delta = dot(&given.dout[row..][..d], &out[row..]);
                if op.dlse { delta - dlse[at] } else { delta }
            })
            .collect();
        given
    }

    /// Where the row of a query begins, and that of a key of head `h` of the queries.
    fn query(&self, b: usize, i: usize, h: usize) -> usize {
        ((b * self.op.len_q + i) * self.op.heads_q + h) * self.op.head_dim
    }

    fn key(&self, b: usize, j: usize, h: usize) -> usize {
        let head = h / (self.op.heads_q / self.op.heads_kv);
        ((b * self.op.len_k + j) * self.op.heads_kv + head) * self.op.head_dim
    }

    fn bias_row(&self, b: usize, h: usize, i: usize) -> usize {
        let (b, h) = (b.min(self.op.bias_batch - 1), h.min(self.op.bias_heads - 1));
        (b * self.op.bias_heads + h) * self.op.len_q + i
    }

    /// The keys of a sequence that exist.
    fn keys(&self, b: usize) -> usize {
        if self.op.lens_k { self.lens[b].to_f64() as usize } else { self.op.len_k }
    }

    /// `p` and `ds` of a key that query `i` sees by its place.
    fn score(&self, b: usize, h: usize, i: usize, j: usize) -> (T, T) {
        let op = &self.op;
        let (at, row) = ((b * op.heads_q + h) * op.len_q + i, b * op.len_k + j);
        let hidden = op.segments && self.ids_q[b * op.len_q + i] != self.ids_k[row]
            || op.key_padding && self.padding[row] == T::default();
        if hidden || self.lse[at].to_f64() == f64::NEG_INFINITY {
            return Default::default();
        }
        let (query, key) = (self.query(b, i, h), self.key(b, j, h));
        let mut s = dot(&self.q[query..][..op.head_dim], &self.k[key..]) * T::of(f64::from(op.scale()));
        if op.bias {
            s += self.bias[self.bias_row(b, h, i) * op.len_k + j];
        }
        let p = (s - self.lse[at]).exp();
        (p, p * (dot(&self.rounded_dout[query..][..op.head_dim], &self.v[key..]) - self.delta[at]))
    }
}

fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    x.iter().zip(y).fold(T::default(), |sum, (&x, &y)| sum + x * y)
}
