//! One small vector trait, three instruction sets.
//!
//! A kernel is written once, generic over [`Simd`], inside [`simd_fn!`](crate::simd_fn), which compiles its body once for
//! each instruction set with that set's features switched on. Everything generic is `#[inline(always)]`: a helper that
//! is not inlined would be compiled without the features, and every intrinsic in it would become a call.
//!
//! A value of an implementing type is the proof that the processor has the features: the only way to one is
//! [`Simd::detect`]. That is what makes the methods safe to call.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod math;
mod portable;
mod transpose;
mod wide;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::{Avx512, Bf16Dot, pack_pairs};
pub use portable::Portable;
pub use transpose::{transpose, transpose_rows};
pub use wide::Wide;

use crate::dtype::Elem;
use half::{bf16, f16};

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust that the compiler vectorises for the target's baseline.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// As kernel names have it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

/// A vector of f32 lanes and the operations that kernels need.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Which instruction set.
    const ISA: Isa;
    /// f32 lanes of a vector.
    const LANES: usize;
    /// A vector of `LANES` f32.
    type V: Copy;
    /// Whether there are registers for several vectors under way at a time ([`Wide`]) and for tables ([`Simd::lookup`]), and
    /// reason to read 16-bit operands where they lie. Elsewhere neither gains much, and each is another copy of every function to
    /// compile.
    const IS_ROOMY: bool = matches!(Self::ISA, Isa::Avx512);

    /// The proof that the processor has this instruction set.
    fn detect() -> Option<Self>;
    /// The same, which stores subnormal bf16 numbers as what they are: for ops that promise every bit.
    fn exact(self) -> Self {
        self
    }

    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` values. Panics if there are fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// Up to `LANES` values; the other lanes are zero.
    fn load_part(self, x: &[f32]) -> Self::V;
    /// To the first `LANES` places. Panics if there are fewer.
    fn store(self, v: Self::V, to: &mut [f32]);
    /// As `store`, past the caches where `to` is aligned: for results so large that they would only push other things
    /// out. [`stream_end`] must follow before another thread may read them.
    #[inline(always)]
    fn stream(self, v: Self::V, to: &mut [f32]) {
        self.store(v, to);
    }
    /// The first `to.len()` lanes, at most `LANES`.
    fn store_part(self, v: Self::V, to: &mut [f32]);

    fn load_f16(self, x: &[f16]) -> Self::V;
    fn store_f16(self, v: Self::V, to: &mut [f16]);
    fn load_bf16(self, x: &[bf16]) -> Self::V;
    /// The even and the odd ones of the first `2·LANES` values. Panics if there are fewer.
    fn load_bf16_pairs(self, x: &[bf16]) -> [Self::V; 2];
    /// Rounds to nearest even; unless [`exact`](Simd::exact), what is subnormal may become 0.
    fn store_bf16(self, v: Self::V, to: &mut [bf16]);
    /// The same for two vectors, to the first `2·LANES` places.
    #[inline(always)]
    fn store_two_bf16(self, v: [Self::V; 2], to: &mut [bf16]) {
        let (low, high) = to.split_at_mut(Self::LANES);
        self.store_bf16(v[0], low);
        self.store_bf16(v[1], high);
    }
    /// As `stream`, rounded.
    #[inline(always)]
    fn stream_bf16(self, v: Self::V, to: &mut [bf16]) {
        self.store_bf16(v, to);
    }
    /// The same for two vectors, to the first `2·LANES` places.
    #[inline(always)]
    fn stream_two_bf16(self, v: [Self::V; 2], to: &mut [bf16]) {
        self.store_two_bf16(v, to);
    }
    fn load_u8(self, x: &[u8]) -> Self::V;
    /// Of the first `LANES` triples the first values, the second and the third. Panics if there are fewer.
    #[inline(always)]
    fn load_u8_triples(self, x: &[u8]) -> [Self::V; 3] {
        let mut parts = [[0; MAX_LANES]; 3];
        for (i, triple) in x[..3 * Self::LANES].chunks_exact(3).enumerate() {
            for (part, &v) in parts.iter_mut().zip(triple) {
                part[i] = v;
            }
        }
        [self.load_u8(&parts[0]), self.load_u8(&parts[1]), self.load_u8(&parts[2])]
    }

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a/b within 1.5 epsilon, for |b| in [2^-126, 2^126].
    #[inline(always)]
    fn ratio(self, a: Self::V, b: Self::V) -> Self::V {
        self.div(a, b)
    }
    /// a·b + c, in one rounding except in portable code.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c − a·b.
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// The smaller of |a| and b, for b above 0; either where a is NaN.
    #[inline(always)]
    fn min_abs(self, a: Self::V, b: Self::V) -> Self::V {
        self.min(b, self.abs(a))
    }
    /// `magnitude` with the sign of `sign`.
    fn copysign(self, magnitude: Self::V, sign: Self::V) -> Self::V;
    /// The nearest integer, ties to even, for |a| < 2^22.
    fn round(self, a: Self::V) -> Self::V;
    /// p·2^n for integral n in [-127, 128] and p in [1/2, 2]; n = -127 gives zero, n = 128 infinity.
    fn scale2(self, p: Self::V, n: Self::V) -> Self::V;
    /// `a` less the integer below it: in [0, 1], 0 for infinities.
    #[inline(always)]
    fn fraction(self, a: Self::V) -> Self::V {
        let a = within_exponents(self, a);
        self.sub(a, floor(self, a))
    }
    /// The same of thirty-seconds: in [0, 1/32].
    #[inline(always)]
    fn fraction32(self, a: Self::V) -> Self::V {
        let a = within_exponents(self, a);
        let below = floor(self, self.mul(a, self.splat(32.0)));
        self.fnma(below, self.splat(1.0 / 32.0), a)
    }
    /// For each lane the value of a table whose place, modulo its length, is ⌊a⌋; any of them where |a| is 2^21 or more.
    #[inline(always)]
    fn lookup<const N: usize>(self, tables: [&[f32; 32]; N], a: Self::V) -> [Self::V; N] {
        let mut places = [0.0; MAX_LANES];
        self.store(floor(self, a), &mut places);
        tables.map(|table| {
            let values = places.map(|place| table[place as i32 as usize % 32]);
            self.load(&values)
        })
    }
    /// The same with place ⌊32·a⌋: by the first five bits of the fraction.
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], a: Self::V) -> Self::V {
        self.lookup([table], self.mul(a, self.splat(32.0)))[0]
    }
    /// p·2^⌊a⌋ for p in [1, 2]; 0 where a is below -126, infinity from 128 on.
    #[inline(always)]
    fn scale_floor(self, p: Self::V, a: Self::V) -> Self::V {
        self.scale2(p, floor(self, within_exponents(self, a)))
    }
    /// For a normal, positive a: (m, e) with a = m·2^e and m in [1/√2, √2).
    fn split2(self, a: Self::V) -> (Self::V, Self::V);
    /// `yes` in lanes where a < b, else `no`.
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// Whether a < b in some lane.
    #[inline(always)]
    fn any_lt(self, a: Self::V, b: Self::V) -> bool {
        self.max_lane(self.select_lt(a, b, self.splat(1.0), self.zero())) > 0.0
    }

    /// Neighbouring lanes exchanged: 1, 0, 3, 2, …
    fn swap_pairs(self, a: Self::V) -> Self::V;

    /// The sum of the lanes, in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// The sums of four vectors, each in an order of its own.
    #[inline(always)]
    fn sum_four(self, [a, b, c, d]: [Self::V; 4]) -> [f32; 4] {
        [self.sum(a), self.sum(b), self.sum(c), self.sum(d)]
    }
    /// The largest lane.
    fn max_lane(self, a: Self::V) -> f32;

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
}

/// Clamped to where `scale2` is defined.
#[inline(always)]
fn within_exponents<S: Simd>(s: S, a: S::V) -> S::V {
    s.max(s.splat(-127.0), s.min(s.splat(128.0), a))
}

/// The integer below, for |a| < 2^22.
#[inline(always)]
fn floor<S: Simd>(s: S, a: S::V) -> S::V {
    let n = s.round(a);
    s.select_lt(a, n, s.sub(n, s.splat(1.0)), n)
}

/// An element type that vectors load (as f32) and, where it is a float, store.
pub trait Lane: Elem {
    /// The first `LANES` values as f32. Panics if there are fewer.
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V;
    /// To the first `LANES` places, rounded. Panics if there are fewer.
    fn store<S: Simd>(s: S, v: S::V, to: &mut [Self]);
    /// As `store`, past the caches where that is possible: see [`Simd::stream`].
    #[inline(always)]
    fn stream<S: Simd>(s: S, v: S::V, to: &mut [Self]) {
        Self::store(s, v, to);
    }

    /// The even and the odd ones of the first `2·LANES` values. Panics if there are fewer.
    #[inline(always)]
    fn load_pairs<S: Simd>(s: S, x: &[Self]) -> [S::V; 2] {
        let mut halves = [[<Self as bytemuck::Zeroable>::zeroed(); MAX_LANES]; 2];
        for (i, &x) in x[..2 * S::LANES].iter().enumerate() {
            halves[i % 2][i / 2] = x;
        }
        halves.map(|half| Self::load(s, &half))
    }

    /// Whether [`load_two`](Lane::load_two) has the even values first and then the odd ones.
    const IN_PAIRS: bool = false;

    /// The first `2·LANES` values, in the order that costs least.
    #[inline(always)]
    fn load_two<S: Simd>(s: S, x: &[Self]) -> [S::V; 2] {
        match Self::IN_PAIRS {
            true => Self::load_pairs(s, x),
            false => [Self::load(s, x), Self::load(s, &x[S::LANES..])],
        }
    }

    /// Up to `LANES` values; the other lanes are zero.
    #[inline(always)]
    fn load_part<S: Simd>(s: S, x: &[Self]) -> S::V {
        let mut all = [<Self as bytemuck::Zeroable>::zeroed(); MAX_LANES];
        all[..x.len()].copy_from_slice(x);
        Self::load(s, &all)
    }

    /// The first `to.len()` lanes, at most `LANES`.
    #[inline(always)]
    fn store_part<S: Simd>(s: S, v: S::V, to: &mut [Self]) {
        let mut all = [<Self as bytemuck::Zeroable>::zeroed(); MAX_LANES];
        Self::store(s, v, &mut all);
        to.copy_from_slice(&all[..to.len()]);
    }
}

/// What is left of a row, less than a vector of `w`, whose other lanes are `pad`; it is left in `kept`, too.
#[inline(always)]
pub fn load_end<W: Simd, S: Simd, T: Lane>(w: W, s: S, x: &[T], pad: f32, kept: &mut [f32]) -> W::V {
    let kept = &mut kept[..W::LANES];
    kept.fill(pad);
    for (x, kept) in x.chunks(S::LANES).zip(kept.chunks_mut(S::LANES)) {
        s.store_part(T::load_part(s, x), &mut kept[..x.len()]);
    }
    w.load(kept)
}

/// Bytes that memory is asked for in.
pub const LINE: usize = 64;

/// From one row of so many values of four bytes to the next: whole lines, an odd number of them, so that rows spread over all sets of
/// a cache.
pub fn pitch(values: usize) -> usize {
    values.next_multiple_of(2 * LINE / 4) + LINE / 4
}

/// Asks for memory to be brought into L2.
#[inline(always)]
pub fn fetch<E>(data: &[E]) {
    for line in data.chunks(LINE / size_of::<E>()) {
        fetch_line(line.as_ptr().cast());
    }
}

/// Asks for a line of memory to be brought into L2. Any address will do.
#[inline(always)]
pub fn fetch_line(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The same into L1.
#[inline(always)]
pub fn fetch_near(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The same of what lies so many bytes beyond some neighbours, for loops that read memory in order faster than the processor looks
/// ahead by itself, or do so much with it that it sees too few lines.
#[inline(always)]
pub fn fetch_beyond<E>(data: &[E], bytes: usize) {
    for line in (0..size_of_val(data)).step_by(LINE) {
        fetch_near(data.as_ptr().cast::<u8>().wrapping_add(bytes + line));
    }
}

/// The same into L2, of a line that is about to be written.
#[inline(always)]
pub fn fetch_line_to_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    prefetch::<{ std::arch::x86_64::_MM_HINT_ET1 }>(line);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code)]
fn prefetch<const HINT: i32>(line: *const u8) {
    // SAFETY: a hint; it reads and changes nothing that the program can see, and fails for no address.
    unsafe { std::arch::x86_64::_mm_prefetch::<HINT>(line.cast()) }
}

/// Orders what was streamed before what follows, as other threads see it.
#[inline(always)]
#[allow(unsafe_code)]
pub fn stream_end() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a fence of stores, which every x86-64 processor has.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    }
}

crate::simd_fn! {
    /// `to = x`, in f32.
    pub fn widen[S, T: Lane](s, x: &[T], to: &mut [f32]) {
        let (x_body, x_tail) = x.split_at(x.len() - x.len() % S::LANES);
        let (body, tail) = to[..x.len()].split_at_mut(x_body.len());
        for (x, to) in x_body.chunks_exact(S::LANES).zip(body.chunks_exact_mut(S::LANES)) {
            s.store(T::load(s, x), to);
        }
        if !tail.is_empty() {
            s.store_part(T::load_part(s, x_tail), tail);
        }
    }
}

crate::simd_fn! {
    /// `to += x`, in f32.
    pub fn accumulate[S, T: Lane](s, x: &[T], to: &mut [f32]) {
        let (x_body, x_tail) = x.split_at(x.len() - x.len() % S::LANES);
        let (body, tail) = to[..x.len()].split_at_mut(x_body.len());
        for (x, to) in x_body.chunks_exact(S::LANES).zip(body.chunks_exact_mut(S::LANES)) {
            s.store(s.add(s.load(to), T::load(s, x)), to);
        }
        if !tail.is_empty() {
            s.store_part(s.add(s.load_part(tail), T::load_part(s, x_tail)), tail);
        }
    }
}

/// Lanes of the widest vector.
pub const MAX_LANES: usize = 16;

impl Lane for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32]) -> S::V {
        s.load(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::V, to: &mut [f32]) {
        s.store(v, to)
    }
    #[inline(always)]
    fn stream<S: Simd>(s: S, v: S::V, to: &mut [f32]) {
        s.stream(v, to)
    }
    #[inline(always)]
    fn load_part<S: Simd>(s: S, x: &[f32]) -> S::V {
        s.load_part(x)
    }
    #[inline(always)]
    fn store_part<S: Simd>(s: S, v: S::V, to: &mut [f32]) {
        s.store_part(v, to)
    }
}
impl Lane for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f16]) -> S::V {
        s.load_f16(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::V, to: &mut [f16]) {
        s.store_f16(v, to)
    }
}
impl Lane for bf16 {
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[bf16]) -> S::V {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn load_pairs<S: Simd>(s: S, x: &[bf16]) -> [S::V; 2] {
        s.load_bf16_pairs(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::V, to: &mut [bf16]) {
        s.store_bf16(v, to)
    }
    #[inline(always)]
    fn stream<S: Simd>(s: S, v: S::V, to: &mut [bf16]) {
        s.stream_bf16(v, to)
    }
}
impl Lane for u8 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u8]) -> S::V {
        s.load_u8(x)
    }
    /// Rounds to nearest even and clamps.
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::V, to: &mut [u8]) {
        let mut all = [0f32; MAX_LANES];
        s.store(s.round(s.max(s.splat(0.0), s.min(s.splat(255.0), v))), &mut all);
        for (t, x) in to[..S::LANES].iter_mut().zip(all) {
            *t = x as u8;
        }
    }
}

/// Compiles a function once for each instruction set and calls the one that its first argument proves to exist.
///
/// ```ignore
/// simd_fn! {
///     /// y = a·x + y
///     pub fn axpy[S, T: Lane](s, a: f32, x: &[T], y: &mut [f32]) { … S::LANES … s.fma(…) … }
/// }
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$S:ident $(, $G:ident : $B:path)* $(; $(const $C:ident : $CT:ty),+)?]
     ($s:ident $(, $a:ident : $t:ty)* $(,)?) $(-> $r:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
        #[inline]
        $vis fn $name<$S: $crate::backend::cpu::simd::Simd $(, $G: $B)* $($(, const $C: $CT)+)?>($s: $S $(, $a: $t)*) $(-> $r)? {
            #[inline(always)]
            fn body<$S: $crate::backend::cpu::simd::Simd $(, $G: $B)* $($(, const $C: $CT)+)?>($s: $S $(, $a: $t)*) $(-> $r)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
            fn avx2<$S: $crate::backend::cpu::simd::Simd $(, $G: $B)* $($(, const $C: $CT)+)?>($s: $S $(, $a: $t)*) $(-> $r)? {
                body::<$S $(, $G)* $($(, $C)+)?>($s $(, $a)*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
            fn avx512<$S: $crate::backend::cpu::simd::Simd $(, $G: $B)* $($(, const $C: $CT)+)?>($s: $S $(, $a: $t)*) $(-> $r)? {
                body::<$S $(, $G)* $($(, $C)+)?>($s $(, $a)*)
            }
            match $S::ISA {
                // SAFETY: a value of `S` exists only where the processor has been found to have these features.
                #[cfg(target_arch = "x86_64")]
                $crate::backend::cpu::simd::Isa::Avx2 => unsafe { avx2::<$S $(, $G)* $($(, $C)+)?>($s $(, $a)*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::backend::cpu::simd::Isa::Avx512 => unsafe { avx512::<$S $(, $G)* $($(, $C)+)?>($s $(, $a)*) },
                _ => body::<$S $(, $G)* $($(, $C)+)?>($s $(, $a)*),
            }
        }
    };
}

/// Evaluates an expression with `$R` a constant for 1 to 14 rows of a register tile: a loop over rows whose bound is known only
/// at run time would keep the accumulators in memory.
#[macro_export]
macro_rules! with_rows {
    ($rows:expr, $R:ident => $e:expr) => {
        match $rows {
            1 => {
                const $R: usize = 1;
                $e
            }
            2 => {
                const $R: usize = 2;
                $e
            }
            3 => {
                const $R: usize = 3;
                $e
            }
            4 => {
                const $R: usize = 4;
                $e
            }
            5 => {
                const $R: usize = 5;
                $e
            }
            6 => {
                const $R: usize = 6;
                $e
            }
            7 => {
                const $R: usize = 7;
                $e
            }
            8 => {
                const $R: usize = 8;
                $e
            }
            9 => {
                const $R: usize = 9;
                $e
            }
            10 => {
                const $R: usize = 10;
                $e
            }
            11 => {
                const $R: usize = 11;
                $e
            }
            12 => {
                const $R: usize = 12;
                $e
            }
            13 => {
                const $R: usize = 13;
                $e
            }
            _ => {
                const $R: usize = 14;
                $e
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basics<S: Simd>() {
        let Some(s) = S::detect() else { return };
        let x: Vec<f32> = (0..S::LANES).map(|i| i as f32 * 0.75 - 3.0).collect();
        let y: Vec<f32> = (0..S::LANES).map(|i| 2.0 - i as f32).collect();
        let get = |v: S::V| {
            let mut out = vec![0.0; S::LANES];
            s.store(v, &mut out);
            out
        };
        let (a, b) = (s.load(&x), s.load(&y));
        for i in 0..S::LANES {
            let (p, q) = (x[i], y[i]);
            assert_eq!(get(s.add(a, b))[i], p + q);
            assert_eq!(get(s.fnma(a, b, a))[i], p - p * q);
            assert_eq!(get(s.max(a, b))[i], p.max(q));
            assert_eq!(get(s.copysign(a, b))[i], p.abs().copysign(q));
            let mut other = x.to_vec();
            other[i] += 0.5;
            assert!(s.any_lt(a, s.load(&other)) && !s.any_lt(s.load(&other), a));
            other[i] = f32::NAN;
            assert!(!s.any_lt(a, s.load(&other)) && !s.any_lt(s.load(&other), a));
            assert_eq!(get(s.swap_pairs(a))[i], x[i ^ 1]);
            assert_eq!(get(s.round(a))[i], p.round_ties_even());
            assert_eq!(get(s.select_lt(a, b, a, b))[i], if p < q { p } else { q });
            assert_eq!(get(s.scale2(s.splat(1.5), s.round(a)))[i], 1.5 * p.round_ties_even().exp2());
            let (m, e) = s.split2(s.add(s.abs(a), s.splat(0.01)));
            assert_eq!(get(m)[i] * get(e)[i].exp2(), p.abs() + 0.01);
            assert!((0.707..1.4143).contains(&get(m)[i]));
        }
        for i in 0..S::LANES {
            let (p, q) = (x[i], y[i]);
            assert_eq!(get(s.fraction(a))[i], p - p.floor());
            assert_eq!(get(s.scale_floor(s.splat(1.5), a))[i], 1.5 * p.floor().exp2());
            if q != 0.0 {
                assert!((get(s.ratio(a, b))[i] * q - p).abs() <= 2.0 * f32::EPSILON * p.abs());
            }
        }
        let tables: [[f32; 32]; 2] = [0, 100].map(|first| std::array::from_fn(|i| (first + i) as f32));
        let z: Vec<f32> = x.iter().map(|x| 1.37 * x).collect();
        let c = s.load(&z);
        let [low, high] = s.lookup(tables.each_ref(), c).map(get);
        let (parts, fractions) = (get(s.lookup32(&tables[0], c)), get(s.fraction32(c)));
        for (i, p) in z.iter().enumerate() {
            let place = (p.floor() as i32).rem_euclid(32) as f32;
            assert_eq!((low[i], high[i]), (place, 100.0 + place), "{p}");
            assert_eq!(parts[i], ((32.0 * p).floor() as i32).rem_euclid(32) as f32, "{p}");
            assert_eq!(fractions[i], p - (32.0 * p).floor() / 32.0, "{p}");
        }
        for (x, fraction, scaled) in [
            (f32::INFINITY, 0.0, f32::INFINITY),
            (f32::NEG_INFINITY, 0.0, 0.0),
            (-126.0, 0.0, f32::MIN_POSITIVE),
            (-126.5, 0.5, 0.0),
            (128.0, 0.0, f32::INFINITY),
        ] {
            assert_eq!(get(s.fraction(s.splat(x)))[0], fraction, "{x}");
            assert_eq!(get(s.scale_floor(s.splat(1.0), s.splat(x)))[0], scaled, "{x}");
        }
        assert!(
            get(s.fraction(s.splat(f32::NAN)))[0].is_nan() && get(s.ratio(s.splat(1.0), s.splat(f32::NAN)))[0].is_nan()
        );
        assert_eq!(s.sum(a), x.iter().sum::<f32>());
        let both: f32 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
        assert_eq!(s.sum_four([b, a, s.mul(a, b), s.zero()]), [y.iter().sum(), x.iter().sum(), both, 0.0]);
        assert_eq!(s.max_lane(a), x[S::LANES - 1]);
        assert!(get(s.max(a, s.splat(f32::NAN))).iter().all(|x| x.is_nan()));
        for n in 0..=S::LANES {
            let v = get(s.load_part(&x[..n]));
            assert!(v[..n] == x[..n] && v[n..].iter().all(|&z| z == 0.0));
            let mut out = vec![9.0; n];
            s.store_part(a, &mut out);
            assert_eq!(out, x[..n]);
        }
        let bytes: Vec<u8> = (0..16).map(|i| i * 17).collect();
        let mut back = [0u8; 16];
        u8::store(s, u8::load(s, &bytes), &mut back);
        assert_eq!(back[..S::LANES], bytes[..S::LANES]);
        let bytes: Vec<u8> = (0..3 * 16).map(|i| i * 5).collect();
        let triples = s.load_u8_triples(&bytes).map(get);
        assert!((0..3 * S::LANES).all(|i| triples[i % 3][i / 3] == f32::from(bytes[i])));
        let values = [1.0, -2.5, 65504.0, 1e-7, 0.1, 3.0e38, f32::INFINITY, -0.0, 1.0039062, 1.0117188, 7.0, 8.0];
        for pair in values.chunks(S::LANES.min(4)) {
            let v = s.load_part(pair);
            let (mut h, mut b) = ([f16::ZERO; MAX_LANES], [bf16::ZERO; MAX_LANES]);
            f16::store(s, v, &mut h);
            bf16::store(s, v, &mut b);
            for (i, &x) in pair.iter().enumerate() {
                assert_eq!((h[i], b[i]), (f16::from_f32(x), bf16::from_f32(x)), "{x}");
                assert_eq!(get(f16::load(s, &h))[i], h[i].to_f32());
                assert_eq!(get(bf16::load(s, &b))[i], b[i].to_f32());
            }
        }
        let mut two = [bf16::ZERO; 2 * MAX_LANES];
        s.store_two_bf16([a, b], &mut two[..2 * S::LANES]);
        assert!((0..S::LANES).all(|i| two[i] == bf16::from_f32(x[i]) && two[S::LANES + i] == bf16::from_f32(y[i])));
        let row: Vec<f32> = (0..2 * S::LANES).map(|i| i as f32 - 3.5).collect();
        let (b, h): (Vec<bf16>, Vec<f16>) = row.iter().map(|&x| (bf16::from_f32(x), f16::from_f32(x))).unzip();
        for pairs in [bf16::load_pairs(s, &b), f16::load_pairs(s, &h)] {
            let [even, odd] = pairs.map(get);
            assert!((0..S::LANES).all(|i| even[i] == row[2 * i] && odd[i] == row[2 * i + 1]));
        }
        let mut nan = [bf16::ZERO; MAX_LANES];
        bf16::store(s, s.splat(f32::NAN), &mut nan);
        assert!(nan[0].is_nan());
        let (tiny, mut kept) = (3.0e-39, [bf16::ZERO; MAX_LANES]);
        bf16::store(s.exact(), s.splat(tiny), &mut kept);
        assert_eq!(kept[0], bf16::from_f32(tiny));
    }

    #[test]
    fn every_instruction_set_agrees_with_scalar_arithmetic() {
        basics::<Portable>();
        basics::<Wide<Portable, 2>>();
        #[cfg(target_arch = "x86_64")]
        {
            basics::<Avx2>();
            basics::<Wide<Avx2, 2>>();
            basics::<Avx512>();
        }
    }
}
