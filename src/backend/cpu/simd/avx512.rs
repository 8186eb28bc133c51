//! AVX-512 F, BW, DQ and VL: sixteen lanes.
//!
//! Every `unsafe` block here relies on the same two facts: an `Avx512` exists only where `detect` found the features,
//! and pointers come from slices whose length was checked on the line above (masked accesses touch set lanes only).
#![allow(clippy::undocumented_unsafe_blocks)]

use super::{Isa, Simd};
use crate::backend::cpu::cpuinfo;
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Sixteen f32 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Avx512 {
    /// Whether the processor has AVX512_BF16, whose instruction rounds to bf16.
    rounds: bool,
    /// Whether a division is faster than an estimate and a step of Newton's.
    divides: bool,
}

const N: usize = 16;

/// Zen 5 (family 26) divides sixteen numbers in 2.5 cycles, in units of their own; silu of 577 x 1024 takes 70 us with it, 80 without.
/// Zen 4 has not been measured.
fn divides() -> bool {
    static DIVIDES: OnceLock<bool> = OnceLock::new();
    *DIVIDES.get_or_init(|| {
        let family = cpuinfo("cpu family").and_then(|f| f.parse::<u32>().ok());
        cpuinfo("vendor_id").is_some_and(|v| v == "AuthenticAMD") && family.is_some_and(|f| f >= 26)
    })
}

#[cfg(test)]
impl Avx512 {
    /// As on a processor that divides fast, or does not.
    pub fn with_division(self, divides: bool) -> Self {
        Avx512 { divides, ..self }
    }
}

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    assert!(n <= N);
    ((1u32 << n) - 1) as __mmask16
}

/// Round down, of `vreduceps`.
const FLOOR: i32 = 1;

/// ⌊a·2^BITS⌋ in the lowest bits: those of the sum with a number whose last place is 2^-BITS.
#[inline(always)]
fn place<const BITS: u32>(a: __m512) -> __m512i {
    let large = 1.5 * ((1 << (23 - BITS)) as f32);
    unsafe {
        let sum = _mm512_add_round_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a, _mm512_set1_ps(large));
        _mm512_castps_si512(sum)
    }
}

/// For each lane the value of a table at a place, modulo its length.
#[inline(always)]
fn value_at(table: &[f32; 2 * N], place: __m512i) -> __m512 {
    let (low, high) = table.split_at(N);
    unsafe { _mm512_permutex2var_ps(_mm512_loadu_ps(low.as_ptr()), place, _mm512_loadu_ps(high.as_ptr())) }
}

/// Bits whose upper halves are the nearest bf16, ties to even: 0x7fff is added, and one more where the lowest kept bit is
/// set; a NaN is made quiet instead.
#[inline(always)]
fn nearest_bf16(v: __m512) -> __m512i {
    unsafe {
        let x = _mm512_castps_si512(v);
        let odd = _mm512_test_epi32_mask(x, _mm512_set1_epi32(0x1_0000));
        let rounded = _mm512_add_epi32(x, _mm512_set1_epi32(0x7fff));
        let rounded = _mm512_mask_add_epi32(rounded, odd, x, _mm512_set1_epi32(0x8000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_mask_or_epi32(rounded, nan, x, _mm512_set1_epi32(0x0040_0000))
    }
}

/// Both rounded. The instruction takes 1.4 cycles a vector, stores included, the other way 3.5; what is subnormal becomes 0.
#[inline(always)]
fn two_bf16(s: Avx512, v: [__m512; 2]) -> __m512i {
    if s.rounds {
        return unsafe { cvtne2ps2bf16(v) };
    }
    unsafe {
        // Their upper halves, brought together by one permutation.
        let odd = _mm512_loadu_si512(ODD.as_ptr().cast());
        _mm512_permutex2var_epi16(nearest_bf16(v[0]), odd, nearest_bf16(v[1]))
    }
}

/// `vcvtne2ps2bf16` as a piece of assembly: the intrinsic would only be inlined where everything is compiled for AVX512_BF16.
#[target_feature(enable = "avx512f")]
#[inline]
fn cvtne2ps2bf16([low, high]: [__m512; 2]) -> __m512i {
    let both;
    unsafe {
        std::arch::asm!(
            "vcvtne2ps2bf16 {both}, {high}, {low}",
            both = lateout(zmm_reg) both,
            high = in(zmm_reg) high,
            low = in(zmm_reg) low,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    both
}

/// Products of pairs of bf16 (AVX512_BF16), a pair being a lane of 32 bits with the first value in its lower half. A value is the
/// proof that the processor has them. They are pieces of assembly for the reason given at [`cvtne2ps2bf16`].
#[derive(Clone, Copy, Debug)]
pub struct Bf16Dot(());

impl Bf16Dot {
    #[inline]
    pub fn detect() -> Option<Self> {
        (Avx512::detect()?.rounds).then_some(Bf16Dot(()))
    }

    /// `c + a₀·b₀ + a₁·b₁` in each lane; subnormal values count as 0.
    #[inline(always)]
    pub fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { dpbf16ps(a, b, c) }
    }

    /// Pairs of the first sixteen values of two rows. Panics if there are fewer.
    #[inline(always)]
    pub fn interleave(self, rows: [&[bf16]; 2]) -> __m512 {
        let rows = [&rows[0][..N], &rows[1][..N]];
        unsafe {
            let [first, second] = [
                _mm512_cvtepu16_epi32(_mm256_loadu_si256(rows[0].as_ptr().cast())),
                _mm512_cvtepu16_epi32(_mm256_loadu_si256(rows[1].as_ptr().cast())),
            ];
            _mm512_castsi512_ps(_mm512_or_si512(first, _mm512_slli_epi32::<16>(second)))
        }
    }

    /// Pairs of the lanes of two vectors, rounded; what is subnormal becomes 0.
    #[inline(always)]
    pub fn round_and_interleave(self, v: [__m512; 2]) -> __m512 {
        unsafe {
            let turns = _mm512_loadu_si512(TURNS.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(turns, cvtne2ps2bf16(v)))
        }
    }

    /// The lanes of a vector, rounded likewise, as the first sixteen values of `to`. Panics if there are fewer.
    #[inline(always)]
    pub fn round(self, v: __m512, to: &mut [bf16]) {
        let to = &mut to[..N];
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_castsi512_si256(cvtne2ps2bf16([v, v]))) }
    }
}

/// A row as such pairs; an odd last value is one with 0.
#[inline(always)]
pub fn pack_pairs(row: &[bf16], out: &mut [u32]) {
    let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
    out[..row.len()].copy_from_slice(row);
    if row.len() % 2 == 1 {
        out[row.len()] = bf16::ZERO;
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn dpbf16ps(a: __m512, b: __m512, mut c: __m512) -> __m512 {
    unsafe {
        std::arch::asm!(
            "vdpbf16ps {c}, {a}, {b}",
            c = inout(zmm_reg) c,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    c
}

/// The halves of 32 in turn: 0, 16, 1, 17, …
static TURNS: [u16; 32] = {
    let mut turns = [0; 32];
    let mut i = 0;
    while i < 32 {
        turns[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    turns
};

/// Where the odd ones of 64 halves lie.
static ODD: [u16; 32] = {
    let mut odd = [0; 32];
    let mut i = 0;
    while i < 32 {
        odd[i] = 2 * i as u16 + 1;
        i += 1;
    }
    odd
};

/// Of the bytes of triples, for each of the three and each sixteen bytes: where to take them from; 0x80 takes none.
static TRIPLES: [[[u8; 16]; 3]; 3] = {
    let mut from = [[[0x80; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        from[at % 3][at / 16][at / 3] = at as u8 % 16;
        at += 1;
    }
    from
};

impl Simd for Avx512 {
    const ISA: Isa = Isa::Avx512;
    const LANES: usize = N;
    type V = __m512;

    #[inline]
    fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && super::Avx2::detect().is_some();
        let rounds = is_x86_feature_detected!("avx512bf16");
        all.then(|| Avx512 { rounds, divides: divides() })
    }
    #[inline(always)]
    fn exact(self) -> Self {
        Avx512 { rounds: false, ..self }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        let x = &x[..N];
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32]) {
        let to = &mut to[..N];
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn stream(self, v: __m512, to: &mut [f32]) {
        let to = &mut to[..N];
        match to.as_ptr() as usize % 64 {
            0 => unsafe { _mm512_stream_ps(to.as_mut_ptr(), v) },
            _ => unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) },
        }
    }
    #[inline(always)]
    fn store_part(self, v: __m512, to: &mut [f32]) {
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(to.len()), v) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> __m512 {
        let x = &x[..N];
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_f16(self, v: __m512, to: &mut [f16]) {
        let to = &mut to[..N];
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> __m512 {
        let x = &x[..N];
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn load_bf16_pairs(self, x: &[bf16]) -> [__m512; 2] {
        let x = &x[..2 * N];
        unsafe {
            let pairs = _mm512_loadu_si512(x.as_ptr().cast());
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(odd)]
        }
    }
    #[inline(always)]
    fn store_bf16(self, v: __m512, to: &mut [bf16]) {
        let to = &mut to[..N];
        unsafe {
            let half = _mm512_castsi512_si256(two_bf16(self, [v; 2]));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), half);
        }
    }
    #[inline(always)]
    fn store_two_bf16(self, v: [__m512; 2], to: &mut [bf16]) {
        let to = &mut to[..2 * N];
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), two_bf16(self, v)) }
    }
    #[inline(always)]
    fn stream_two_bf16(self, v: [__m512; 2], to: &mut [bf16]) {
        let to = &mut to[..2 * N];
        match to.as_ptr() as usize % 64 {
            0 => unsafe { _mm512_stream_si512(to.as_mut_ptr().cast(), two_bf16(self, v)) },
            _ => unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), two_bf16(self, v)) },
        }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> __m512 {
        let x = &x[..N];
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn load_u8_triples(self, x: &[u8]) -> [__m512; 3] {
        let x = &x[..3 * N];
        let mut parts = [self.zero(); 3];
        for (part, from) in parts.iter_mut().zip(&TRIPLES) {
            unsafe {
                let mut bytes = _mm_setzero_si128();
                for (i, from) in from.iter().enumerate() {
                    let third = _mm_loadu_si128(x.as_ptr().add(16 * i).cast());
                    bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(third, _mm_loadu_si128(from.as_ptr().cast())));
                }
                *part = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
            }
        }
        parts
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn ratio(self, a: __m512, b: __m512) -> __m512 {
        if self.divides {
            return self.div(a, b);
        }
        unsafe {
            // 14 bits and a step of Newton's: four instructions where a division takes the units for ten cycles.
            let r = _mm512_rcp14_ps(b);
            _mm512_mul_ps(a, _mm512_fmadd_ps(r, _mm512_fnmadd_ps(b, r, _mm512_set1_ps(1.0)), r))
        }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn min_abs(self, a: __m512, b: __m512) -> __m512 {
        // The smaller in absolute value, with its sign cleared.
        unsafe { _mm512_range_ps::<0b1010>(a, b) }
    }
    #[inline(always)]
    fn copysign(self, magnitude: __m512, sign: __m512) -> __m512 {
        unsafe {
            // Bit-wise select: sign bit from `sign`, the rest from `magnitude`.
            let bit = _mm512_set1_epi32(i32::MIN);
            let (m, s) = (_mm512_castps_si512(magnitude), _mm512_castps_si512(sign));
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xca>(bit, s, m))
        }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<0>(a) }
    }
    #[inline(always)]
    fn fraction(self, a: __m512) -> __m512 {
        unsafe { _mm512_reduce_ps::<FLOOR>(a) }
    }
    #[inline(always)]
    fn fraction32(self, a: __m512) -> __m512 {
        unsafe { _mm512_reduce_ps::<{ 5 << 4 | FLOOR }>(a) }
    }
    #[inline(always)]
    fn lookup<const K: usize>(self, tables: [&[f32; 32]; K], a: __m512) -> [__m512; K] {
        let place = place::<0>(a);
        let mut values = [self.zero(); K];
        for (value, table) in values.iter_mut().zip(tables) {
            *value = value_at(table, place);
        }
        values
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], a: __m512) -> __m512 {
        value_at(table, place::<5>(a))
    }
    #[inline(always)]
    fn scale2(self, p: __m512, n: __m512) -> __m512 {
        self.scale_floor(p, n)
    }
    #[inline(always)]
    fn scale_floor(self, p: __m512, a: __m512) -> __m512 {
        unsafe {
            // The instruction takes the floor. It needs 160 cycles where the result is subnormal: none of these is made.
            let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(a, _mm512_set1_ps(-126.0));
            _mm512_maskz_scalef_ps(normal, p, a)
        }
    }
    #[inline(always)]
    fn split2(self, a: __m512) -> (__m512, __m512) {
        unsafe {
            let bits = _mm512_castps_si512(a);
            let e = _mm512_srai_epi32::<23>(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f35_04f3)));
            let m = _mm512_sub_epi32(bits, _mm512_slli_epi32::<23>(e));
            (_mm512_castsi512_ps(m), _mm512_cvtepi32_ps(e))
        }
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn any_lt(self, a: __m512, b: __m512) -> bool {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) != 0 }
    }
    #[inline(always)]
    fn swap_pairs(self, a: __m512) -> __m512 {
        unsafe { _mm512_permute_ps::<0b10_11_00_01>(a) }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn sum_four(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        unsafe {
            // In each quarter first two sums of a and b, and of c and d; then one of each.
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let all = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(ab, cd), _mm512_shuffle_ps::<0xee>(ab, cd));
            let half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
            let sums = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            let mut to = [0.0; 4];
            _mm_storeu_ps(to.as_mut_ptr(), sums);
            to
        }
    }
    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
}
