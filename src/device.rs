//! A device: one backend's device, with the profiler and the memory counters that go with it.
//!
//! This file and `ops/mod.rs` are the only two that list the backends.

use crate::backend::cpu::{self, Cpu};
use crate::backend::cuda::{self, Cuda};
use crate::backend::wgpu::{self, Wgpu};
use crate::backend::{Backend, cpu::MappedBytes};
use crate::error::{Error, Result};
use crate::profile::{Profiler, Span, What};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A shared handle: clones are the same device, two opened separately are not.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    kind: Kind,
    profiler: Profiler,
    memory: Counters,
}

pub(crate) enum Kind {
    Cpu(cpu::Device),
    Wgpu(wgpu::Device),
    Cuda(cuda::Device),
}

/// Memory of one of the backends.
pub(crate) enum Buffer {
    Cpu(cpu::Buffer),
    Wgpu(wgpu::Buffer),
    Cuda(cuda::Buffer),
}

/// A backend that a [`Device`] can be of.
pub(crate) trait Member: Backend {
    fn wrap(buffer: Self::Buffer) -> Buffer;
    /// The backend's own buffer; `None` for one of another backend.
    fn peel(buffer: &Buffer) -> Option<&Self::Buffer>;
}

macro_rules! members {
    ($($B:ident),*) => {$(
        impl Member for $B {
            fn wrap(buffer: <$B as Backend>::Buffer) -> Buffer {
                Buffer::$B(buffer)
            }
            fn peel(buffer: &Buffer) -> Option<&<$B as Backend>::Buffer> {
                match buffer {
                    Buffer::$B(b) => Some(b),
                    _ => None,
                }
            }
        }
    )*};
}
members!(Cpu, Wgpu, Cuda);

/// Runs an expression with `$B` bound to the device's backend and `$d` to the backend's device.
macro_rules! with_device {
    ($device:expr, |$B:ident, $d:ident| $e:expr) => {
        match $device.kind() {
            $crate::device::Kind::Cpu($d) => {
                type $B = $crate::backend::cpu::Cpu;
                $e
            }
            $crate::device::Kind::Wgpu($d) => {
                type $B = $crate::backend::wgpu::Wgpu;
                $e
            }
            $crate::device::Kind::Cuda($d) => {
                type $B = $crate::backend::cuda::Cuda;
                $e
            }
        }
    };
}
pub(crate) use with_device;

#[derive(Default)]
struct Counters {
    current: AtomicUsize,
    peak: AtomicUsize,
}

/// Bytes of tensors on a device; mapped files are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    pub current_bytes: usize,
    pub peak_bytes: usize,
    /// Held beyond that for the next tensors, by backends that keep what was freed.
    pub pooled_bytes: usize,
}

impl Device {
    /// The CPU, with as many threads as the machine has processors (or the variable `LAPIDARY_THREADS` says).
    ///
    /// # Errors
    /// `LAPIDARY_THREADS` is not a number from 1 to 1024.
    pub fn cpu() -> Result<Device> {
        let threads = match std::env::var("LAPIDARY_THREADS") {
            Ok(text) => {
                text.parse().map_err(|_| Error::parse("LAPIDARY_THREADS", text, "expected a number of threads"))?
            }
            Err(_) => std::thread::available_parallelism().map_or(1, |n| n.get()).min(1024),
        };
        Device::cpu_with_threads(threads)
    }

    /// The CPU, with this many threads. Results do not depend on the number.
    ///
    /// # Errors
    /// The number is not from 1 to 1024.
    pub fn cpu_with_threads(threads: usize) -> Result<Device> {
        Ok(Device::of(Kind::Cpu(cpu::Device::new(threads)?)))
    }

    /// A device by name: `cpu`, `wgpu`, `cuda`, `emulator`, for the GPUs with an index or a name after a colon.
    ///
    /// # Errors
    /// No such device, or it cannot be opened.
    pub fn open(name: &str) -> Result<Device> {
        let fail = |why: &str| Err(Error::Device { device: name.into(), why: why.into() });
        match name.split(':').next().unwrap_or_default() {
            "cpu" if name == "cpu" => Device::cpu(),
            "cpu" => fail("the cpu has no index; choose threads with --threads or LAPIDARY_THREADS"),
            "wgpu" => Ok(Device::of(Kind::Wgpu(wgpu::Device::open(name)?))),
            "cuda" | "emulator" => Ok(Device::of(Kind::Cuda(cuda::Device::open(name)?))),
            _ => fail("unknown; devices are cpu, wgpu, cuda and emulator"),
        }
    }

    /// As [`open`](Device::open) for a name that begins with `wgpu`, with at most so many bytes in reach of one binding of a
    /// shader: to see what a smaller adapter would do.
    ///
    /// # Errors
    /// As [`open`](Device::open).
    pub fn open_wgpu_within(name: &str, binding_bytes: u64) -> Result<Device> {
        Ok(Device::of(Kind::Wgpu(wgpu::Device::open_within(name, binding_bytes)?)))
    }

    /// The adapters that `wgpu` can open, each in a line, at the place that `wgpu:N` names it by.
    pub fn wgpu_adapters() -> Vec<String> {
        wgpu::Device::adapters()
    }

    fn of(kind: Kind) -> Device {
        Device(Arc::new(Inner { kind, profiler: Profiler::default(), memory: Counters::default() }))
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// The backend's name: `cpu`, `wgpu` or `cuda`.
    pub fn backend(&self) -> &'static str {
        with_device!(self, |B, _d| B::NAME)
    }

    /// What the device is, in one line.
    pub fn describe(&self) -> String {
        match self.kind() {
            Kind::Cpu(d) => d.describe(),
            Kind::Wgpu(d) => d.describe(),
            Kind::Cuda(d) => d.describe(),
        }
    }

    /// The CPU device behind the handle, if it is one: for probes that need its threads.
    pub(crate) fn as_cpu(&self) -> Option<&cpu::Device> {
        match self.kind() {
            Kind::Cpu(d) => Some(d),
            _ => None,
        }
    }

    /// The WebGPU device behind the handle, if it is one: for probes.
    pub(crate) fn as_wgpu(&self) -> Option<&wgpu::Device> {
        match self.kind() {
            Kind::Wgpu(d) => Some(d),
            _ => None,
        }
    }

    /// The CUDA device behind the handle, if it is one: for probes.
    pub(crate) fn as_cuda(&self) -> Option<&cuda::Device> {
        match self.kind() {
            Kind::Cuda(d) => Some(d),
            _ => None,
        }
    }

    /// The GPUs that `cuda` can open, each in a line, at the place that `cuda:N` names it by; or why there are none.
    ///
    /// # Errors
    /// The driver is missing or has no device; the message says where it was looked for.
    pub fn cuda_devices() -> std::result::Result<Vec<String>, String> {
        cuda::Device::devices()
    }

    /// The shaders that were compiled so far, for tools that look at them; none on a backend without shaders.
    pub fn compiled_shaders(&self) -> Vec<wgpu::shader::Compiled> {
        self.as_wgpu().map_or_else(Vec::new, wgpu::Device::compiled)
    }

    /// How often recorded work was handed to the driver; 0 on a backend that runs work as it comes.
    pub fn submissions(&self) -> u64 {
        self.as_wgpu().map_or(0, wgpu::Device::submissions)
    }

    /// What the kernels that ran since the last call did, one line for each with a line of names first; `None` where none
    /// ran, and on a device that does not count (all but the emulator).
    pub fn meter(&self) -> Option<String> {
        self.as_cuda().and_then(cuda::Device::meter)
    }

    /// The seconds that work takes on the device, by its own clock where it has one.
    ///
    /// # Errors
    /// Those of `work`, and those of the device.
    pub fn seconds_of(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        with_device!(self, |B, d| {
            let began = B::stamp(d)?;
            work()?;
            B::seconds(d, &began, &B::stamp(d)?)
        })
    }

    /// Whether launches can be recorded and run again, which takes the host less time: on a CUDA device, unless it is being
    /// profiled.
    pub fn can_record(&self) -> bool {
        self.as_cuda().is_some() && !self.0.profiler.enabled()
    }

    /// Records the launches of `work` instead of running them. Tensors that `work` reads or returns have the values of the
    /// last [replay](Recording::replay), and must live as long as the recording is used; what it frees stays with the
    /// recording.
    ///
    /// # Errors
    /// Those of `work`; the device [cannot](Device::can_record); or `work` does what is no launch, such as an upload.
    pub fn record<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(Recording, R)> {
        match self.as_cuda().filter(|_| self.can_record()) {
            Some(cuda) => cuda.record(work).map(|(recording, done)| (Recording(recording), done)),
            None => Err(Error::NotSupported(format!("recording the launches of {}", self.describe()))),
        }
    }

    /// The profiler.
    pub fn profiler(&self) -> &Profiler {
        &self.0.profiler
    }

    /// Opens a span for a layer; see [`Profiler::span`].
    #[inline]
    pub fn span(&self, name: impl FnOnce() -> String) -> Span<'_> {
        self.0.profiler.span(name)
    }

    /// Waits until everything submitted has run.
    ///
    /// # Errors
    /// The device was lost.
    pub fn synchronise(&self) -> Result<()> {
        with_device!(self, |B, d| B::synchronise(d))
    }

    /// Bytes held by tensors.
    pub fn memory(&self) -> MemoryUse {
        let m = &self.0.memory;
        MemoryUse {
            current_bytes: m.current.load(Ordering::Relaxed),
            peak_bytes: m.peak.load(Ordering::Relaxed),
            pooled_bytes: match self.kind() {
                Kind::Wgpu(d) => d.pooled_bytes(),
                Kind::Cuda(d) => d.pooled_bytes(),
                Kind::Cpu(d) => d.pooled_bytes(),
            },
        }
    }

    /// Makes the present use the peak, so that the next peak is that of what follows.
    pub fn reset_peak_memory(&self) {
        let m = &self.0.memory;
        m.peak.store(m.current.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Storage of `bytes` bytes. Holds zeros or values of earlier tensors.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Storage> {
        let buffer = with_device!(self, |B, d| B::wrap(B::alloc(d, bytes)?));
        let m = &self.0.memory;
        let current = m.current.fetch_add(bytes, Ordering::Relaxed) + bytes;
        m.peak.fetch_max(current, Ordering::Relaxed);
        Ok(Storage { buffer, device: self.clone(), counted_bytes: bytes })
    }

    /// Storage over a mapped file. `None` where the device cannot read it in place.
    pub(crate) fn map(&self, bytes: MappedBytes) -> Option<Storage> {
        match self.kind() {
            Kind::Cpu(_) => {
                let buffer = Buffer::Cpu(cpu::Buffer::mapped(bytes));
                Some(Storage { buffer, device: self.clone(), counted_bytes: 0 })
            }
            _ => None,
        }
    }
}

/// Launches that were recorded by [`Device::record`].
pub struct Recording(cuda::Recording);

impl Recording {
    /// Runs them again, on the same memory.
    ///
    /// # Errors
    /// The device was lost.
    pub fn replay(&self) -> Result<()> {
        self.0.replay()
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for Device {}
impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend())
    }
}

/// Memory on a device, counted while it lives.
pub(crate) struct Storage {
    pub buffer: Buffer,
    pub device: Device,
    counted_bytes: usize,
}

impl Storage {
    /// Whether it is a mapped file, which cannot be written.
    pub fn is_mapped(&self) -> bool {
        matches!(&self.buffer, Buffer::Cpu(b) if b.is_mapped())
    }

    /// Lets the pages of a mapped file go.
    pub fn release_pages(&self) {
        if let Buffer::Cpu(b) = &self.buffer {
            b.release_pages();
        }
    }

    pub fn upload(&self, at: usize, from: &[u8]) -> Result<()> {
        self.transfer("upload", from.len(), || {
            with_device!(self.device, |B, d| B::upload(d, self.peel::<B>(), at, from))
        })
    }

    /// Zeros from byte `at` on.
    pub fn clear(&self, at: usize, bytes: usize) -> Result<()> {
        with_device!(self.device, |B, d| B::clear(d, self.peel::<B>(), at, bytes))
    }

    pub fn download(&self, at: usize, to: &mut [u8]) -> Result<()> {
        self.transfer("download", to.len(), || {
            with_device!(self.device, |B, d| B::download(d, self.peel::<B>(), at, to))
        })
    }

    /// The backend's buffer.
    pub fn peel<B: Member>(&self) -> &B::Buffer {
        B::peel(&self.buffer).expect("a storage's buffer is of its device's backend")
    }

    fn transfer(&self, name: &str, bytes: usize, copy: impl FnOnce() -> Result<()>) -> Result<()> {
        // A view without elements may begin anywhere, also beyond the end.
        if bytes == 0 {
            return Ok(());
        }
        let profiler = self.device.profiler();
        if !profiler.enabled() {
            return copy();
        }
        let began = std::time::Instant::now();
        copy()?;
        profiler.record(name.into(), What::Transfer { bytes: bytes as u64 }, began.elapsed().as_secs_f64());
        Ok(())
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.device.0.memory.current.fetch_sub(self.counted_bytes, Ordering::Relaxed);
    }
}
