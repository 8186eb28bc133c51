//! Products of bytes, four of them summed in each 32-bit lane, on every kind of processor.
//!
//! `Portable` and `Avx2` (`x86.rs`) work wherever their namesakes of [`Simd`] do; `Vnni256` and `Vnni512` need AVX-VNNI and
//! AVX512_VNNI, whose one instruction does it all.
#![allow(unsafe_code)] // loads through pointers, whose callers vouch for them

use crate::backend::cpu::Caps;
use crate::backend::cpu::simd::{Portable, Simd};
use crate::error::Unsupported;

/// What functions of [`dot_fn!`] are compiled for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Portable,
    Avx2,
    Vnni256,
    Vnni512,
}

/// Vectors of bytes and of integers beside an instruction set's vectors of f32. A value is the proof that the processor has
/// what it takes.
pub trait Dot: Copy + Send + Sync + 'static {
    type S: Simd;
    /// Four bytes for each lane of `S`.
    type Bytes: Copy;
    /// An i32 for each lane of `S`.
    type Ints: Copy;

    const PATH: Path;
    /// The most rows of lhs in a tile of two vectors.
    const MR: usize;
    /// What [`wide`](Dot::wide) leaves of the 128 that weights were raised by.
    const WIDE_BIAS: i32;

    fn detect() -> Option<Self>;
    fn supported(caps: &Caps) -> Result<(), Unsupported>;
    fn simd(self) -> Self::S;

    /// # Safety
    /// A vector of bytes can be read there.
    unsafe fn load(self, at: *const u8) -> Self::Bytes;
    /// The low four bits of each byte.
    fn low(self, x: Self::Bytes) -> Self::Bytes;
    /// The high four bits of each byte.
    fn high(self, x: Self::Bytes) -> Self::Bytes;
    /// Bytes below 16, with the bits `2·field` and `2·field + 1` of `more` as their bits 4 and 5.
    fn six(self, low: Self::Bytes, more: Self::Bytes, field: usize) -> Self::Bytes;
    /// Bytes that are signed numbers plus 128, as [`dot_wide`](Dot::dot_wide) takes them.
    fn wide(self, x: Self::Bytes) -> Self::Bytes;
    /// The same integer in every lane.
    fn splat(self, x: i32) -> Self::Ints;
    /// The same four bytes in every lane.
    fn four(self, x: [i8; 4]) -> Self::Bytes;
    /// `acc + Σ w·x` over the four bytes of each lane, with w from 0 to 127 and x from -127 to 127.
    fn dot(self, acc: Self::Ints, w: Self::Bytes, x: Self::Bytes) -> Self::Ints;
    /// The same for weights from [`wide`](Dot::wide), which stand for 128 - [`WIDE_BIAS`](Dot::WIDE_BIAS) less than stored.
    fn dot_wide(self, acc: Self::Ints, w: Self::Bytes, x: Self::Bytes) -> Self::Ints;
    fn to_floats(self, x: Self::Ints) -> <Self::S as Simd>::V;
    /// Stores whole numbers from -127 to 127; of others any byte. Panics if there are fewer places than lanes.
    fn store(self, x: <Self::S as Simd>::V, to: &mut [i8]);
}

/// Compiles a function once for each [`Path`], as [`simd_fn!`](crate::simd_fn) does for instruction sets.
macro_rules! dot_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$D:ident $(, $G:ident : $B:path)* $(; const $C:ident : $CT:ty)?]
     ($d:ident $(, $a:ident : $t:ty)* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        #[inline]
        $vis fn $name<$D: Dot $(, $G: $B)* $(, const $C: $CT)?>($d: $D $(, $a: $t)*) {
            #[inline(always)]
            fn body<$D: Dot $(, $G: $B)* $(, const $C: $CT)?>($d: $D $(, $a: $t)*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
            fn avx2<$D: Dot $(, $G: $B)* $(, const $C: $CT)?>($d: $D $(, $a: $t)*) {
                body::<$D $(, $G)* $(, $C)?>($d $(, $a)*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avxvnni,avx2,fma,f16c,bmi1,bmi2")]
            fn vnni256<$D: Dot $(, $G: $B)* $(, const $C: $CT)?>($d: $D $(, $a: $t)*) {
                body::<$D $(, $G)* $(, $C)?>($d $(, $a)*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
            fn vnni512<$D: Dot $(, $G: $B)* $(, const $C: $CT)?>($d: $D $(, $a: $t)*) {
                body::<$D $(, $G)* $(, $C)?>($d $(, $a)*)
            }
            match $D::PATH {
                // SAFETY (all arms): a value of `D` exists only where the processor has been found to have these features.
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => unsafe { avx2::<$D $(, $G)* $(, $C)?>($d $(, $a)*) },
                #[cfg(target_arch = "x86_64")]
                Path::Vnni256 => unsafe { vnni256::<$D $(, $G)* $(, $C)?>($d $(, $a)*) },
                #[cfg(target_arch = "x86_64")]
                Path::Vnni512 => unsafe { vnni512::<$D $(, $G)* $(, $C)?>($d $(, $a)*) },
                _ => body::<$D $(, $G)* $(, $C)?>($d $(, $a)*),
            }
        }
    };
}
pub(super) use dot_fn;

const LANES: usize = Portable::LANES;

impl Dot for Portable {
    type S = Portable;
    type Bytes = [u8; 4 * LANES];
    type Ints = [i32; LANES];

    const PATH: Path = Path::Portable;
    const MR: usize = 2;
    const WIDE_BIAS: i32 = 128;

    fn detect() -> Option<Self> {
        <Portable as Simd>::detect()
    }
    fn supported(_: &Caps) -> Result<(), Unsupported> {
        Ok(())
    }
    #[inline(always)]
    fn simd(self) -> Portable {
        self
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> [u8; 4 * LANES] {
        // SAFETY: the caller vouches for the bytes, which need no alignment.
        unsafe { at.cast::<[u8; 4 * LANES]>().read_unaligned() }
    }
    #[inline(always)]
    fn low(self, x: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        x.map(|x| x & 15)
    }
    #[inline(always)]
    fn high(self, x: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        x.map(|x| x >> 4)
    }
    #[inline(always)]
    fn six(self, low: [u8; 4 * LANES], more: [u8; 4 * LANES], field: usize) -> [u8; 4 * LANES] {
        std::array::from_fn(|i| low[i] | (more[i] >> (2 * field) & 3) << 4)
    }
    #[inline(always)]
    fn wide(self, x: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        x
    }
    #[inline(always)]
    fn splat(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    fn four(self, x: [i8; 4]) -> [u8; 4 * LANES] {
        std::array::from_fn(|i| x[i % 4] as u8)
    }
    #[inline(always)]
    fn dot(self, acc: [i32; LANES], w: [u8; 4 * LANES], x: [u8; 4 * LANES]) -> [i32; LANES] {
        let product = |i: usize| i32::from(w[i]) * i32::from(x[i] as i8);
        std::array::from_fn(|i| acc[i] + (4 * i..4 * i + 4).map(product).sum::<i32>())
    }
    #[inline(always)]
    fn dot_wide(self, acc: [i32; LANES], w: [u8; 4 * LANES], x: [u8; 4 * LANES]) -> [i32; LANES] {
        self.dot(acc, w, x)
    }
    #[inline(always)]
    fn to_floats(self, x: [i32; LANES]) -> [f32; LANES] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn store(self, x: [f32; LANES], to: &mut [i8]) {
        for (to, x) in to[..LANES].iter_mut().zip(x) {
            *to = x as i8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method against arithmetic on single bytes.
    fn agrees<D: Dot>() {
        let Some(d) = D::detect() else { return };
        let (s, lanes) = (d.simd(), D::S::LANES);
        let stored: Vec<u8> = (0..64).map(|i| (i * 37 + 11) as u8).collect();
        let x = [-127i8, 127, -3, 90];
        let floats = |ints: D::Ints| {
            let mut out = vec![0f32; lanes];
            s.store(d.to_floats(ints), &mut out);
            out
        };
        let want = |w: &dyn Fn(usize) -> i32| -> Vec<f32> {
            (0..lanes).map(|i| (0..4).fold(-7, |sum, t| sum + w(4 * i + t) * i32::from(x[t])) as f32).collect()
        };
        // SAFETY: the array is as long as the longest vector.
        let w = unsafe { d.load(stored.as_ptr()) };
        let dot = |w| floats(d.dot(d.splat(-7), w, d.four(x)));
        assert_eq!(dot(d.low(w)), want(&|i| i32::from(stored[i] & 15)));
        assert_eq!(dot(d.high(w)), want(&|i| i32::from(stored[i] >> 4)));
        for field in 0..4 {
            let six = |i: usize| stored[i] & 15 | (stored[i] >> (2 * field) & 3) << 4;
            assert_eq!(dot(d.six(d.low(w), w, field)), want(&|i| i32::from(six(i))), "field {field}");
        }
        // The largest bytes too: pairs of products would not fit 16 bits with a sign.
        for stored in [stored, vec![255; 64], vec![0; 64]] {
            // SAFETY: as above.
            let w = unsafe { d.load(stored.as_ptr()) };
            let wide = floats(d.dot_wide(d.splat(-7), d.wide(w), d.four(x)));
            assert_eq!(wide, want(&|i| i32::from(stored[i]) - 128 + D::WIDE_BIAS));
        }
        let whole: Vec<f32> = (0..lanes).map(|i| [-127.0, 0.0, 126.0, 127.0][i % 4]).collect();
        let mut bytes = vec![0i8; lanes];
        d.store(s.load(&whole), &mut bytes);
        assert!(bytes.iter().zip(&whole).all(|(&b, &x)| f32::from(b) == x));
    }

    #[test]
    fn every_path_agrees_with_single_bytes() {
        agrees::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::x86::{Vnni256, Vnni512};
            agrees::<crate::backend::cpu::simd::Avx2>();
            agrees::<Vnni256>();
            agrees::<Vnni512>();
        }
    }
}
