//! Normally distributed numbers that depend on a key and a position only, so that any part can be made anywhere.

use crate::random::fill_on_all_cores;
use std::f64::consts::TAU;

/// How many numbers are made at a time, on all cores; 4 MiB of them. Even, because numbers come in pairs.
pub(super) const BLOCK: usize = 1 << 20;

/// What tells a tensor's numbers from those of others: its name hashed (FNV-1a) under the seed.
pub(super) fn key(seed: u64, name: &str) -> u64 {
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ mix(seed), |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
}

/// Fills `out` with the numbers from position `start` (even) on.
pub(super) fn normal(key: u64, start: u64, std: f32, out: &mut [f32]) {
    fill_on_all_cores(out, |at, part| pairs(key, (start + at as u64) / 2, std, part));
}

/// Box and Muller, "A Note on the Generation of Random Normal Deviates" (1958): two uniform numbers give two normal
/// ones. In f64, so that the rounding to f32 hides how a platform's logarithm and sine end.
fn pairs(key: u64, first: u64, std: f32, out: &mut [f32]) {
    for (i, pair) in (first..).zip(out.chunks_mut(2)) {
        let bits = mix(key ^ mix(i));
        // 32 bits each; the half keeps the logarithm's argument above 0.
        let (u, v) = ((bits >> 32) as f64 + 0.5, (bits & 0xffff_ffff) as f64);
        let radius = f64::from(std) * (-2.0 * (u / 2f64.powi(32)).ln()).sqrt();
        let (sin, cos) = (TAU * v / 2f64.powi(32)).sin_cos();
        for (x, part) in pair.iter_mut().zip([cos, sin]) {
            *x = (radius * part) as f32;
        }
    }
}

/// The output function of splitmix64 (Steele, Lea, Flood, 2014) at counter `x`.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_normal_and_depends_on_position_only() {
        let mut all = vec![0f32; 1 << 17];
        normal(key(7, "a"), 0, 0.02, &mut all);
        let mean = |f: &dyn Fn(f64) -> f64| all.iter().map(|&x| f(f64::from(x) / 0.02)).sum::<f64>() / all.len() as f64;
        assert!(mean(&|x| x).abs() < 0.01);
        assert!((mean(&|x| x * x) - 1.0).abs() < 0.02);
        assert!((mean(&|x| x.powi(4)) - 3.0).abs() < 0.15);
        let mut part = vec![0f32; 333];
        normal(key(7, "a"), 4096, 0.02, &mut part);
        assert_eq!(part, all[4096..4096 + 333]);
        // Files made elsewhere, or by an earlier version, hold the same numbers.
        assert_eq!(
            all[..4].iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            [0x3c65_ea1e, 0x3b28_6349, 0xbab8_543c, 0xbc9c_b86c]
        );
        assert_ne!(key(7, "a"), key(8, "a"));
        assert_ne!(key(7, "a"), key(7, "b"));
    }
}
