//! Transcendental functions on vectors, shared by every op. Errors are the largest ones seen against f64 (see the
//! tests): relative, in units of f32's epsilon 2^-23 unless said otherwise. NaN gives NaN.

use super::Simd;

/// 2^x, within 1 epsilon; below -126.5 it is 0, above 127.5 it is infinite.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    // 2^x = 2^n · 2^f with n = round(x) and f in [-1/2, 1/2]; the polynomial is a minimax fit of 2^f with relative
    // error 2e-9. The exponent fields of n = -127 and n = 128 are those of zero and of infinity.
    let x = s.max(s.splat(-127.0), s.min(s.splat(128.0), x));
    let n = s.round(x);
    let f = s.sub(x, n);
    let mut p = s.splat(1.534_581_2e-4);
    for c in [1.339_993_1e-3, 9.618_489e-3, 5.550_328_6e-2, 2.402_264_6e-1, 6.931_472e-1, 1.0] {
        p = s.fma(p, f, s.splat(c));
    }
    s.scale2(p, n)
}
