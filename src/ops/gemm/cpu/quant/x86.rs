//! Products of bytes with AVX2, AVX-VNNI and AVX512_VNNI.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes exactly. AVX2's `vpmaddubsw` adds pairs of products in 16 bits and
//! saturates: weights of up to seven bits fit; of eight-bit weights the magnitude is multiplied by the other factor with the
//! weight's sign.
//!
//! Every `unsafe` block relies on the same facts: values of these types exist only where `detect` found the features, and
//! pointers are vouched for by the caller or come from slices whose length was checked on the line above.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use super::dot::{Dot, Path};
use crate::backend::cpu::Caps;
use crate::backend::cpu::simd::{Avx2, Avx512, Isa, Simd};
use crate::error::Unsupported;
use std::arch::x86_64::*;

/// AVX2 with AVX-VNNI.
#[derive(Clone, Copy)]
pub struct Vnni256(Avx2);

/// AVX-512 with AVX512_VNNI.
#[derive(Clone, Copy)]
pub struct Vnni512(Avx512);

/// What both paths of 256-bit vectors share.
macro_rules! ymm {
    () => {
        type S = Avx2;
        type Bytes = __m256i;
        type Ints = __m256i;

        const MR: usize = 2;

        #[inline(always)]
        unsafe fn load(self, at: *const u8) -> __m256i {
            unsafe { _mm256_loadu_si256(at.cast()) }
        }
        #[inline(always)]
        fn low(self, x: __m256i) -> __m256i {
            unsafe { _mm256_and_si256(x, _mm256_set1_epi8(15)) }
        }
        #[inline(always)]
        fn high(self, x: __m256i) -> __m256i {
            unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(x), _mm256_set1_epi8(15)) }
        }
        #[inline(always)]
        fn six(self, low: __m256i, more: __m256i, field: usize) -> __m256i {
            unsafe {
                let moved = match field {
                    0 => _mm256_slli_epi16::<4>(more),
                    1 => _mm256_slli_epi16::<2>(more),
                    2 => more,
                    _ => _mm256_srli_epi16::<2>(more),
                };
                _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(0x30)))
            }
        }
        #[inline(always)]
        fn splat(self, x: i32) -> __m256i {
            unsafe { _mm256_set1_epi32(x) }
        }
        #[inline(always)]
        fn four(self, x: [i8; 4]) -> __m256i {
            unsafe { _mm256_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8))) }
        }
        #[inline(always)]
        fn to_floats(self, x: __m256i) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(x) }
        }
        #[inline(always)]
        fn store(self, x: __m256, to: &mut [i8]) {
            let to = &mut to[..8];
            unsafe {
                let ints = _mm256_cvtps_epi32(x);
                let words = _mm_packs_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256::<1>(ints));
                _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi16(words, words));
            }
        }
    };
}

impl Dot for Avx2 {
    ymm!();

    const PATH: Path = Path::Avx2;
    const WIDE_BIAS: i32 = 0;

    fn detect() -> Option<Self> {
        <Avx2 as Simd>::detect()
    }
    fn supported(caps: &Caps) -> Result<(), Unsupported> {
        caps.has(Isa::Avx2)
    }
    #[inline(always)]
    fn simd(self) -> Avx2 {
        self
    }
    /// Signed again.
    #[inline(always)]
    fn wide(self, x: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(x, _mm256_set1_epi8(-128)) }
    }
    #[inline(always)]
    fn dot(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn dot_wide(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // |w|·(x·sign w): at most 128·127 twice, which 16 bits hold.
        unsafe { Dot::dot(self, acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) }
    }
}

impl Dot for Vnni256 {
    ymm!();

    const PATH: Path = Path::Vnni256;
    const WIDE_BIAS: i32 = 128;

    fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avxvnni") { <Avx2 as Simd>::detect().map(Vnni256) } else { None }
    }
    fn supported(caps: &Caps) -> Result<(), Unsupported> {
        caps.has(Isa::Avx2)?;
        Unsupported::require("a processor with AVX-VNNI", caps.avx_vnni)
    }
    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }
    #[inline(always)]
    fn wide(self, x: __m256i) -> __m256i {
        x
    }
    #[inline(always)]
    fn dot(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(acc, w, x) }
    }
    #[inline(always)]
    fn dot_wide(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        self.dot(acc, w, x)
    }
}

impl Dot for Vnni512 {
    type S = Avx512;
    type Bytes = __m512i;
    type Ints = __m512i;

    const PATH: Path = Path::Vnni512;
    const MR: usize = 4;
    const WIDE_BIAS: i32 = 128;

    fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avx512vnni") { <Avx512 as Simd>::detect().map(Vnni512) } else { None }
    }
    fn supported(caps: &Caps) -> Result<(), Unsupported> {
        caps.has(Isa::Avx512)?;
        Unsupported::require("a processor with AVX512_VNNI", caps.avx512_vnni)
    }
    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(at.cast()) }
    }
    #[inline(always)]
    fn low(self, x: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(x, _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    fn high(self, x: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(x), _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    fn six(self, low: __m512i, more: __m512i, field: usize) -> __m512i {
        unsafe {
            let moved = match field {
                0 => _mm512_slli_epi16::<4>(more),
                1 => _mm512_slli_epi16::<2>(more),
                2 => more,
                _ => _mm512_srli_epi16::<2>(more),
            };
            // low | moved & 0x30
            _mm512_ternarylogic_epi32::<0xf8>(low, moved, _mm512_set1_epi8(0x30))
        }
    }
    #[inline(always)]
    fn wide(self, x: __m512i) -> __m512i {
        x
    }
    #[inline(always)]
    fn splat(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn four(self, x: [i8; 4]) -> __m512i {
        unsafe { _mm512_set1_epi32(i32::from_le_bytes(x.map(|x| x as u8))) }
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, x) }
    }
    #[inline(always)]
    fn dot_wide(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        self.dot(acc, w, x)
    }
    #[inline(always)]
    fn to_floats(self, x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    fn store(self, x: __m512, to: &mut [i8]) {
        let to = &mut to[..16];
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))) }
    }
}
