//! The CPU: aligned host memory, a thread pool and three vector instruction sets.

mod aligned;
mod buffer;
mod pool;
pub mod probe;
mod share;
pub mod simd;

pub use aligned::{Aligned, Scratch};
pub use buffer::{ALIGNMENT, Buffer, MappedBytes};
pub use pool::Pool;
pub use share::{Slots, deal, parts_of, rows_of_part};

use super::{Arg, Backend, Launch};
use crate::cost::Cost;
use crate::dtype::Elem;
use crate::error::{Error, Result, Unsupported};
use simd::{Isa, Simd};
use std::sync::Arc;
use std::time::Instant;

/// The backend.
pub enum Cpu {}

/// A pool of threads and the memory that they share.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    pool: Pool,
    /// For work that is too little to be shared.
    alone: Pool,
    memory: Arc<buffer::Recycler>,
    caps: Caps,
}

/// What kernels are chosen by.
#[derive(Clone, Debug)]
pub struct Caps {
    /// The best instruction set of this processor.
    pub isa: Isa,
    /// Whether it has bf16 dot products (AVX512_BF16).
    pub bf16_dot: bool,
    /// Whether they are faster than widening to f32: Intel's cores issue one every four cycles, half the rate of f32
    /// products; AMD's one or two a cycle.
    pub bf16_dot_is_fast: bool,
    /// Whether it has products of bf16 matrices (AMX), and the system lets this process use them.
    pub amx: bool,
    /// Whether it has dot products of bytes: AVX512_VNNI.
    pub avx512_vnni: bool,
    /// The same for 256-bit vectors without AVX-512: AVX-VNNI.
    pub avx_vnni: bool,
    /// Threads of the pool. Only selection may look at it: how work is divided must not depend on it.
    pub threads: usize,
    /// Data cache sizes of one core (L1, L2) and of the socket (L3), in bytes.
    pub cache_bytes: [usize; 3],
}

impl Caps {
    /// Whether a result of so many bytes is written past the caches ([`Simd::stream`]): most of it would be gone from L2
    /// before somebody reads it, and each line would be read before it is written. Rows of 64 MB took 5.9 ms the usual way
    /// and 3.0 so, of 5 MB 187 us and 176; but what is smaller may still be met in L2 by the next op.
    pub fn streams(&self, bytes: usize) -> bool {
        bytes >= 8 * self.cache_bytes[1]
    }

    /// Whether the processor has an instruction set.
    pub fn has(&self, isa: Isa) -> Result<(), Unsupported> {
        Unsupported::require(
            match isa {
                Isa::Portable => "nothing",
                Isa::Avx2 => "a processor with AVX2, FMA and F16C",
                Isa::Avx512 => "a processor with AVX-512 F, BW, DQ and VL",
            },
            self.isa >= isa,
        )
    }
}

impl Device {
    /// A device with this many threads, the calling one included.
    ///
    /// # Errors
    /// No threads, or more than 1024.
    pub fn new(threads: usize) -> Result<Device> {
        if !(1..=1024).contains(&threads) {
            return Err(Error::Device { device: "cpu".into(), why: format!("{threads} threads: takes 1 to 1024") });
        }
        let caps = Caps {
            isa: best_isa(),
            bf16_dot: has_bf16_dot(),
            bf16_dot_is_fast: has_bf16_dot() && !is_intel(),
            amx: has_amx(),
            avx512_vnni: has_vnni()[0],
            avx_vnni: has_vnni()[1],
            threads,
            cache_bytes: cache_bytes(),
        };
        let (pool, alone) = (Pool::new(threads), Pool::new(1));
        Ok(Device(Arc::new(Inner { pool, alone, memory: Arc::default(), caps })))
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Bytes of memory that was freed and is kept for the next tensors.
    pub fn pooled_bytes(&self) -> usize {
        self.0.memory.kept_bytes()
    }

    /// The processor's name and features.
    pub fn describe(&self) -> String {
        let caps = &self.0.caps;
        let [l1, l2, l3] = caps.cache_bytes.map(|b| b >> 10);
        let bf16 = if caps.bf16_dot { " + bf16 dot" } else { "" };
        let amx = if caps.amx { " + amx" } else { "" };
        let vnni = if caps.avx512_vnni || caps.avx_vnni { " + vnni" } else { "" };
        let isa = caps.isa.name();
        format!(
            "{}; {isa}{bf16}{amx}{vnni}; {} threads; L1 {l1} KiB, L2 {l2} KiB, L3 {l3} KiB",
            processor(),
            caps.threads
        )
    }
}

impl Backend for Cpu {
    const NAME: &'static str = "cpu";
    type Device = Device;
    type Buffer = Buffer;
    type Caps = Caps;
    type Stamp = Instant;

    fn caps(device: &Device) -> &Caps {
        &device.0.caps
    }
    fn alloc(device: &Device, bytes: usize) -> Result<Buffer> {
        device.0.memory.alloc(bytes)
    }
    fn upload(_: &Device, to: &Buffer, at: usize, from: &[u8]) -> Result<()> {
        assert!(!to.is_mapped() && at.checked_add(from.len()).is_some_and(|end| end <= to.len()));
        // SAFETY: the range was just checked to lie inside memory that the buffer owns; whoever uploads holds the only
        // handle (tensors are filled before they are shared, `TensorMut` proves uniqueness).
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.ptr().add(at), from.len()) }
        Ok(())
    }
    fn download(_: &Device, from: &Buffer, at: usize, to: &mut [u8]) -> Result<()> {
        assert!(at.checked_add(to.len()).is_some_and(|end| end <= from.len()));
        // SAFETY: the range was just checked; nobody writes while a shared handle exists.
        unsafe { std::ptr::copy_nonoverlapping(from.ptr().add(at), to.as_mut_ptr(), to.len()) }
        Ok(())
    }
    fn synchronise(_: &Device) -> Result<()> {
        Ok(())
    }
    fn stamp(_: &Device) -> Result<Instant> {
        Ok(Instant::now())
    }
    fn seconds(_: &Device, from: &Instant, to: &Instant) -> Result<f64> {
        Ok((*to - *from).as_secs_f64())
    }
}

/// Seconds of work that stay on one thread. Starting two takes 0.6 us where both are awake (`pool` beside the peaks), and a fast
/// start is only half of it: measured on two cores, the second thread gains nothing below 4 us of work (a product of [256, 128]:
/// 3.5 us on one, 3.3 on two), 30 % at 6.5 us ([512, 128]), and where its core was busy elsewhere it cost 60 us and more.
const SHARED_FROM: f64 = 4e-6;

/// Whether work is worth waking other threads for, by what one thread does of small problems, which lie in its caches: 16
/// GFLOP/s, 32 GB/s. How many threads there are is not asked, and results depend on the answer as little as on their number.
fn is_worth_sharing(cost: Cost) -> bool {
    (cost.flops as f64 / 16e9).max(cost.bytes() as f64 / 32e9) >= SHARED_FROM
}

impl<'a> Launch<'a, Cpu> {
    /// The threads for this launch: all, or the calling one alone where the problem is too small.
    pub fn pool(&self) -> &'a Pool {
        if is_worth_sharing(self.cost) { &self.device.0.pool } else { &self.device.0.alone }
    }

    /// The elements of an operand, from its first on; for a strided one, everything up to its last.
    pub fn input<T: Elem>(&self, i: usize) -> &'a [T] {
        self.optional(i).expect("run() has checked that the operand is there")
    }

    /// As [`input`](Launch::input), for an operand that the problem may lack.
    pub fn optional<T: Elem>(&self, i: usize) -> Option<&'a [T]> {
        self.inputs[i].as_ref().map(|arg| {
            let (ptr, len) = elements::<T>(arg);
            // SAFETY: `elements` has checked type and bounds, and nobody writes to an operand during a launch.
            unsafe { std::slice::from_raw_parts(ptr, len) }
        })
    }

    /// The elements of a result, to be written. `None` if the problem lacks it or it was taken before.
    pub fn output<T: Elem>(&mut self, i: usize) -> Option<&'a mut [T]> {
        self.outputs[i].take().map(|arg| {
            assert!(!arg.buffer.is_mapped());
            let (ptr, len) = elements::<T>(&arg);
            // SAFETY: `elements` has checked type and bounds; a result's buffer is fresh or was proven unique by its
            // `TensorMut`, and taking it makes this the only slice.
            unsafe { std::slice::from_raw_parts_mut(ptr, len) }
        })
    }

    /// The workspace, holding arbitrary values. Empty if the row asked for none, or it was taken before.
    pub fn scratch<T: Elem>(&mut self) -> &'a mut [T] {
        let arg = self.workspace.take();
        // Nothing lies at an aligned address too, so that it can be cast like something.
        let nothing = std::ptr::without_provenance_mut::<u8>(ALIGNMENT);
        let (ptr, bytes) = arg.map_or((nothing, 0), |arg| (arg.buffer.ptr(), arg.elements));
        // SAFETY: the workspace is a fresh buffer of `bytes` bytes aligned for any element, used by nobody else; a slice of
        // nothing needs no memory.
        unsafe { std::slice::from_raw_parts_mut(ptr.cast(), bytes / size_of::<T>()) }
    }
}

fn elements<T: Elem>(arg: &Arg<'_, Cpu>) -> (*mut T, usize) {
    assert_eq!(arg.dtype, T::DTYPE, "a kernel reads its operand with the wrong type");
    if arg.elements == 0 {
        return (std::ptr::NonNull::dangling().as_ptr(), 0);
    }
    let (first, len) = (arg.layout.offset, arg.elements);
    assert!((first + len) * size_of::<T>() <= arg.buffer.len(), "an operand reaches beyond its storage");
    let ptr = arg.buffer.ptr().cast::<T>();
    assert!(ptr.is_aligned(), "tensor.rs aligns storage");
    // SAFETY: just checked to lie inside the buffer.
    (unsafe { ptr.add(first) }, len)
}

fn best_isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        if simd::Avx512::detect().is_some() {
            return Isa::Avx512;
        }
        if simd::Avx2::detect().is_some() {
            return Isa::Avx2;
        }
    }
    simd::Portable::ISA
}

fn has_bf16_dot() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16") && simd::Avx512::detect().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn has_amx() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        simd::amx::Amx::detect().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// AVX512_VNNI and AVX-VNNI.
fn has_vnni() -> [bool; 2] {
    #[cfg(target_arch = "x86_64")]
    {
        [is_x86_feature_detected!("avx512vnni"), is_x86_feature_detected!("avxvnni")]
    }
    #[cfg(not(target_arch = "x86_64"))]
    [false; 2]
}

fn processor() -> String {
    cpuinfo("model name").unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

fn is_intel() -> bool {
    cpuinfo("vendor_id").is_some_and(|v| v == "GenuineIntel")
}

/// A field of the first processor, on Linux.
fn cpuinfo(field: &str) -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, value) = info.lines().find_map(|l| l.strip_prefix(field)?.split_once(':'))?;
    Some(value.trim().to_string())
}

/// Sizes that Linux tells, else those of a common core: kernels only block by them.
fn cache_bytes() -> [usize; 3] {
    let mut bytes = [32 << 10, 1 << 20, 8 << 20];
    for index in 0..6 {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}")).ok()
        };
        let (Some(kind), Some(level), Some(size)) = (read("type"), read("level"), read("size")) else { continue };
        let kib = size.trim().strip_suffix('K').and_then(|s| s.parse::<usize>().ok());
        if let (true, Some(level @ 1..=3), Some(kib)) = (kind.trim() != "Instruction", level.trim().parse().ok(), kib) {
            bytes[level - 1] = kib << 10;
        }
    }
    bytes
}

/// A table with a row for each instruction set of each kernel: `isa_rows![("op_f32", supports, launch).takes(…), …]`,
/// where `supports` and `launch` are generic over [`Simd`](simd::Simd). Between them may stand rows of a single instruction
/// set, `#[cfg(…)] Kernel::new(…)`. (`--cfg one_isa` leaves out all but the first on x86-64 and `--cfg no_isa` all, which compile
/// in a third and a tenth of the time; see the README. The library's own tests, which do not choose a row, do without AVX2.)
#[macro_export]
#[doc(hidden)]
macro_rules! isa_rows {
    ($(
        $(($stem:literal, $($supports:ident)::+, $($launch:ident)::+) $(.$method:ident($arg:expr))*)?
        $(#[$only:meta] $row:expr)?
    ),+) => {
        &[$($(
            #[cfg(all(target_arch = "x86_64", not(no_isa)))]
            $crate::backend::Kernel::new(
                concat!($stem, "__avx512"),
                $($supports)::+::<$crate::backend::cpu::simd::Avx512>,
                $($launch)::+::<$crate::backend::cpu::simd::Avx512>,
            )$(.$method($arg))*,
            #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
            $crate::backend::Kernel::new(
                concat!($stem, "__avx2"),
                $($supports)::+::<$crate::backend::cpu::simd::Avx2>,
                $($launch)::+::<$crate::backend::cpu::simd::Avx2>,
            )$(.$method($arg))*,
            #[cfg(not(any(all(target_arch = "x86_64", one_isa), no_isa)))]
            $crate::backend::Kernel::new(
                concat!($stem, "__portable"),
                $($supports)::+::<$crate::backend::cpu::simd::Portable>,
                $($launch)::+::<$crate::backend::cpu::simd::Portable>,
            )$(.$method($arg))*,
        )? $(
            #[$only]
            $row,
        )?)+]
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_work_stays_on_one_thread() {
        let cost = |flops, bytes| Cost { flops, bytes_read: bytes, bytes_written: 0 };
        assert!(!is_worth_sharing(cost(60_000, 120_000)));
        assert!(is_worth_sharing(cost(70_000, 0)) && is_worth_sharing(cost(0, 130_000)));
    }
}
