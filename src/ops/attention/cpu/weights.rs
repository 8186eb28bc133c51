//! Weights of one query, with keys in lanes.

use crate::backend::cpu::simd::{Simd, math};
use crate::ops::attend::cpu::Words;

/// Turns the scores of `keys` keys, in whole vectors, into words of weights 2^(score - m), places after the last key into 0. `m` and `l`
/// are what weights are relative to and their sum; if m rises, `l` and `o`, what was summed of values, are scaled.
#[inline(always)]
pub fn weights<S: Simd, W: Words<S>>(s: S, words: W, keys: usize, p: &mut [f32], [m, l]: [&mut f32; 2], o: &mut [f32]) {
    let mut top = s.splat(*m);
    p[keys..].fill(f32::NEG_INFINITY);
    for at in (0..p.len()).step_by(S::LANES) {
        top = s.max(top, s.load(&p[at..]));
    }
    let (old, new) = (*m, s.max_lane(top));
    // Without a finite score: any finite base gives weights of 2^-inf = 0.
    let base = s.splat(if new == f32::NEG_INFINITY { 0.0 } else { new });
    let mut sum = s.zero();
    for at in (0..p.len()).step_by(S::LANES) {
        let weight = math::exp2(s, s.sub(s.load(&p[at..]), base));
        sum = s.add(sum, weight);
        words.store_row(s, weight, &mut p[at / W::VALUES..]);
    }
    if new > old && old > f32::NEG_INFINITY {
        let factor = (old - new).exp2();
        *l *= factor;
        o.iter_mut().for_each(|o| *o *= factor);
    }
    *l += s.sum(sum);
    *m = new;
}
