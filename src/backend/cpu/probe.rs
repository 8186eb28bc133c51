//! What the processor can do at most: dependent-free chains of multiply-adds, and streams of reads.

use super::Device;
#[cfg(target_arch = "x86_64")]
use super::simd::amx::{Amx, Registers, Unit};
use super::simd::{Isa, Simd, fetch_beyond};
use crate::simd_fn;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// An expression with `$S` and `$s` standing for the best instruction set that the processor has.
macro_rules! with_best {
    ($device:expr, $S:ident, $s:ident => $e:expr) => {
        match $device.0.caps.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => with_best!(Avx512, $S, $s, $e),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => with_best!(Avx2, $S, $s, $e),
            _ => with_best!(Portable, $S, $s, $e),
        }
    };
    ($Isa:ident, $S:ident, $s:ident, $e:expr) => {{
        type $S = super::simd::$Isa;
        let $s = $S::detect().expect("the capabilities say that it is there");
        $e
    }};
}

/// Independent chains. With a latency of 4 cycles on 2 ports, 8 fill the pipes; more than 12 get spilled.
const CHAINS: usize = 12;

simd_fn! {
    /// `steps` rounds of one multiply-add in each chain.
    fn fma_chains[S](s, steps: usize) -> f32 {
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut acc = [s.splat(black_box(1.0)); CHAINS];
        for _ in 0..steps {
            for a in &mut acc {
                *a = s.fma(*a, x, y);
            }
        }
        acc.iter().map(|&a| s.sum(a)).sum()
    }
}

/// Steps of a tile whose operands stay in L1.
const TILE_STEPS: usize = 128;

// Registers are named by number in loops over a range known to be there: otherwise some are kept in memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn tile<S: Simd, const ROWS: usize>(s: S, acc: &mut [[S::V; 2]; ROWS], lhs: &[f32], rhs: &[f32]) {
    for (a, b) in lhs.chunks_exact(ROWS).zip(rhs.chunks_exact(2 * S::LANES)) {
        let b = [s.load(b), s.load(&b[S::LANES..])];
        for r in 0..ROWS {
            let a = s.splat(a[r]);
            acc[r] = [s.fma(a, b[0], acc[r][0]), s.fma(a, b[1], acc[r][1])];
        }
    }
}

simd_fn! {
    /// `rounds` of `TILE_STEPS` steps of a product's tile of ROWS by two vectors.
    fn tiles[S; const ROWS: usize](s, lhs: &[f32], rhs: &[f32], rounds: usize) -> f32 {
        let mut acc = [[s.zero(); 2]; ROWS];
        for _ in 0..rounds {
            tile(s, &mut acc, lhs, rhs);
        }
        acc.iter().map(|&[a, b]| s.sum(s.add(a, b))).sum()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_chains(steps: usize) -> f32 {
    use std::arch::x86_64::*;
    // SAFETY: both are 512 bits of plain data. 0x2e80 is a small bf16, so that sums stay finite.
    let x: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi16(black_box(0x2e80))) };
    let mut acc = [_mm512_set1_ps(black_box(1.0)); CHAINS];
    for _ in 0..steps {
        for a in &mut acc {
            *a = _mm512_dpbf16_ps(*a, x, x);
        }
    }
    acc.iter().map(|&a| _mm512_reduce_add_ps(a)).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn byte_chains(steps: usize) -> f32 {
    use std::arch::x86_64::*;
    let x = _mm512_set1_epi8(black_box(1));
    let mut acc = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..steps {
        for a in &mut acc {
            *a = _mm512_dpbusd_epi32(*a, x, x);
        }
    }
    acc.iter().map(|&a| _mm512_reduce_add_epi32(a)).sum::<i32>() as f32
}

simd_fn! {
    /// Sums a buffer with eight accumulators, asking for memory 8 KiB ahead: as fast as the memory that it lies in.
    fn sum[S](s, x: &[f32]) -> f32 {
        let mut acc = [s.zero(); 8];
        for block in x.chunks_exact(8 * S::LANES) {
            fetch_beyond(block, 8 << 10);
            for (a, v) in acc.iter_mut().zip(block.chunks_exact(S::LANES)) {
                *a = s.add(*a, s.load(v));
            }
        }
        acc.iter().map(|&a| s.sum(a)).sum()
    }
}

/// Seconds of a few runs in which each of the pool's threads calls `work` once, the fastest first.
fn timed(device: &Device, runs: usize, work: impl Fn(usize) -> f32 + Sync) -> Vec<f64> {
    let threads = device.pool().threads();
    let run = |_| {
        let began = Instant::now();
        device.pool().run(threads, |i| {
            black_box(work(i));
        });
        began.elapsed().as_secs_f64()
    };
    let mut seconds: Vec<f64> = (0..runs).map(run).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// Seconds of the fastest.
fn fastest(device: &Device, runs: usize, work: impl Fn(usize) -> f32 + Sync) -> f64 {
    timed(device, runs, work)[0]
}

/// f32 multiply-adds: floating-point operations per second of all threads, with the best instruction set.
pub fn fma_flops(device: &Device) -> f64 {
    let steps = 400_000;
    with_best!(device, S, s => {
        let flops = (steps * CHAINS * S::LANES * 2 * device.pool().threads()) as f64;
        flops / fastest(device, 15, |_| fma_chains(s, steps))
    })
}

/// f32 multiply-adds whose operands come from L1, as in the tile of a product that waits for nothing: floating-point operations
/// per second of all threads, at the median of 60 ms. Loads take power as well, and a processor that has no more of it lowers its
/// clock: what is missing to [`fma_flops`] then no kernel that has operands can have.
pub fn fma_flops_from_l1(device: &Device) -> f64 {
    fn with<S: Simd, const ROWS: usize>(s: S, device: &Device) -> f64 {
        // Between -1 and 1, in no order.
        let values = |n: usize| -> Vec<f32> { (0..n).map(|i| (i as f32 * 2.4).sin()).collect() };
        let (lhs, rhs) = (values(TILE_STEPS * ROWS), values(TILE_STEPS * 2 * S::LANES));
        let (rounds, runs) = (7_500, 15);
        let flops = (rounds * TILE_STEPS * ROWS * 2 * S::LANES * 2 * device.pool().threads()) as f64;
        flops / timed(device, runs, |_| tiles::<S, ROWS>(s, &lhs, &rhs, rounds))[runs / 2]
    }
    with_best!(device, S, s => match S::ISA {
        Isa::Avx512 => with::<S, 14>(s, device),
        Isa::Avx2 => with::<S, 6>(s, device),
        Isa::Portable => with::<S, 4>(s, device),
    })
}

/// Products of bf16, floating-point operations per second of all threads, and what computes them: matrices (AMX) or dot
/// products; `None` if the processor has neither.
pub fn bf16_flops(device: &Device) -> Option<(&'static str, f64)> {
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = Amx::detect() {
        let rounds = 100_000;
        let flops = (rounds * Registers::ROUND_FLOPS * device.pool().threads()) as f64;
        let spin = |_| {
            amx.begin().spin(rounds);
            0.0
        };
        return Some(("bf16 matrix", flops / fastest(device, 15, spin)));
    }
    #[cfg(target_arch = "x86_64")]
    if device.0.caps.bf16_dot {
        let steps = 200_000;
        let flops = (steps * CHAINS * 64 * device.pool().threads()) as f64;
        // SAFETY: `bf16_dot` says that the processor has the features.
        return Some(("bf16 dot", flops / fastest(device, 15, |_| unsafe { bf16_chains(steps) })));
    }
    None
}

/// Dot products of bytes with 512-bit vectors: operations per second of all threads; `None` if the processor has none.
pub fn byte_flops(device: &Device) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if device.0.caps.avx512_vnni && device.0.caps.isa == Isa::Avx512 {
        let steps = 400_000;
        let flops = (steps * CHAINS * 128 * device.pool().threads()) as f64;
        // SAFETY: the capabilities say that the processor has the features.
        return Some(flops / fastest(device, 15, |_| unsafe { byte_chains(steps) }));
    }
    None
}

/// Bytes per second that all threads together read from buffers of this size each, again and again.
pub fn read_bytes_per_second(device: &Device, bytes_per_thread: usize) -> f64 {
    let threads = device.pool().threads();
    let len = bytes_per_thread / 4;
    // Pages are those of tensors; but nothing is kept for them.
    let memory: Arc<super::buffer::Recycler> = Arc::default();
    let buffer = memory.alloc(4 * len * threads).expect("memory for a probe");
    // SAFETY: the buffer has this many bytes, zeroed and aligned, and nobody else has it.
    let data = unsafe { std::slice::from_raw_parts_mut(buffer.ptr().cast::<f32>(), len * threads) };
    // Each thread writes its part first, so that its pages are near it.
    device.pool().chunks_mut(data, len.max(1), |_, part| part.fill(1.5));
    let passes = ((64 << 20) / bytes_per_thread.max(1)).max(1);
    let seconds = with_best!(device, S, s => fastest(device, 10, |i| {
        let part = &data[i * len..(i + 1) * len];
        (0..passes).map(|_| sum(s, black_box(part))).sum()
    }));
    (len * 4 * passes * threads) as f64 / seconds
}

/// Seconds that the pool takes to start a loop in which every thread does one part of nothing, and to see its end: one loop after
/// another, and when the workers have gone to sleep. A part waits for the others to have begun, so that none is left out;
/// where a loop has more to do than nothing, the caller does not wait for a worker to wake up. The fastest of a few hundred
/// loops, and the median of a few.
pub fn launch_seconds(device: &Device) -> [f64; 2] {
    let pool = device.pool();
    let threads = pool.threads();
    let launch = || {
        let begun = AtomicUsize::new(0);
        let began = Instant::now();
        pool.run(threads, |_| {
            begun.fetch_add(1, Ordering::AcqRel);
            let mut looks = 0;
            while begun.load(Ordering::Acquire) < threads {
                looks += 1;
                // More threads than processors only get their turn when others give way.
                if looks < 1 << 12 { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        });
        began.elapsed().as_secs_f64()
    };
    let until = Instant::now() + Duration::from_millis(20);
    let loops = (0..1000).take_while(|_| Instant::now() < until);
    let awake = loops.map(|_| launch()).fold(f64::INFINITY, f64::min);
    let mut asleep: Vec<f64> = (0..11)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            launch()
        })
        .collect();
    asleep.sort_by(f64::total_cmp);
    [awake, asleep[asleep.len() / 2]]
}
