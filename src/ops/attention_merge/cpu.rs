//! The merge of two attentions on the CPU.
//!
//! Layout: all contiguous; results [batch, len_q, heads, head_dim], log-sum-exps [batch, heads, len_q].
//!
//! Algorithm: with m the larger log-sum-exp and x = e^(lse_a - m), y = e^(lse_b - m), lse = m + ln(x + y), and a row is
//! x/(x + y) · a + y/(x + y) · b: weights of 1 and 0 where one part saw nothing, and then the other is copied, whatever
//! the empty one holds. Rows are spread over threads in chunks of about 32 KiB.
//!
//! Bound: memory, two reads and one write; the two scalar exponentials of a row are shared by its head_dim values.

use super::AttentionMerge;
use crate::backend::cpu::simd::Simd;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::error::{Result, Unsupported};
use crate::{isa_rows, simd_fn};

impl Kernels<Cpu> for AttentionMerge {
    const KERNELS: &'static [Kernel<Cpu, Self>] = isa_rows![("attention_merge_f32", supports, launch)];
}

fn supports<S: Simd>(_: &AttentionMerge, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, AttentionMerge>, op: &AttentionMerge, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    let (out_a, lse_a, out_b, lse_b) = (l.input::<f32>(0), l.input::<f32>(1), l.input::<f32>(2), l.input::<f32>(3));
    if let Some(lse) = l.output::<f32>(1) {
        l.pool().chunks_mut(lse, 4096, |i, lse| {
            for ((lse, &a), &b) in lse.iter_mut().zip(&lse_a[i * 4096..]).zip(&lse_b[i * 4096..]) {
                *lse = Weights::of(a, b).lse;
            }
        });
    }
    let Some(out) = l.output::<f32>(0) else { return Ok(()) };
    let d = op.head_dim;
    if d == 0 {
        return Ok(());
    }
    let rows = (8192 / d).max(1);
    l.pool().chunks_mut(out, rows * d, |chunk, out| {
        for (n, out) in out.chunks_exact_mut(d).enumerate() {
            let row = chunk * rows + n;
            let (b, i, h) = (row / op.heads / op.len_q, row / op.heads % op.len_q, row % op.heads);
            let at = (b * op.heads + h) * op.len_q + i;
            let (a, b) = (&out_a[row * d..(row + 1) * d], &out_b[row * d..(row + 1) * d]);
            let weights = Weights::of(lse_a[at], lse_b[at]);
            match (weights.a, weights.b) {
                (0.0, 0.0) => out.fill(0.0),
                (_, 0.0) => out.copy_from_slice(a),
                (0.0, _) => out.copy_from_slice(b),
                (x, y) => mix(s, x, a, y, b, out),
            }
        }
    });
    Ok(())
}

/// What both parts count for, and the merged log-sum-exp.
struct Weights {
    a: f32,
    b: f32,
    lse: f32,
}

impl Weights {
    fn of(a: f32, b: f32) -> Weights {
        if b == f32::NEG_INFINITY {
            return Weights { a: if a == b { 0.0 } else { 1.0 }, b: 0.0, lse: a };
        }
        if a == f32::NEG_INFINITY {
            return Weights { a: 0.0, b: 1.0, lse: b };
        }
        let largest = a.max(b);
        let (x, y) = ((a - largest).exp(), (b - largest).exp());
        Weights { a: x / (x + y), b: y / (x + y), lse: largest + (x + y).ln() }
    }
}

simd_fn! {
    /// `out = x · a + y · b`
    fn mix[S](s, x: f32, a: &[f32], y: f32, b: &[f32], out: &mut [f32]) {
        let (x, y) = (s.splat(x), s.splat(y));
        let body = out.len() - out.len() % S::LANES;
        let (a, a_tail) = a.split_at(body);
        let (b, b_tail) = b.split_at(body);
        let (out, out_tail) = out.split_at_mut(body);
        let both = a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES));
        for ((a, b), out) in both.zip(out.chunks_exact_mut(S::LANES)) {
            s.store(s.fma(x, s.load(a), s.mul(y, s.load(b))), out);
        }
        s.store_part(s.fma(x, s.load_part(a_tail), s.mul(y, s.load_part(b_tail))), out_tail);
    }
}
