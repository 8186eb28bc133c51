//! A device: a driver, the functions that were loaded, the report of faults.

use super::driver::{Caps, Config, Driver, Event, Function, Graph};
use super::launch::Module;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// A shared handle.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    driver: Box<dyn Driver>,
    loaded: Mutex<Loaded>,
    faults: Faults,
    /// While launches are recorded.
    recorder: Mutex<Option<Recorder>>,
}

/// Who records, and memory that was freed since, which the recording goes on using.
struct Recorder {
    thread: ThreadId,
    kept: Vec<Memory>,
}

/// An address and its bytes.
type Memory = (u64, usize);

/// By the names of modules and functions.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, u64>,
    functions: HashMap<&'static str, Function>,
}

/// The report of an index out of range; `kernels/common/base.cuh` has the struct.
struct Faults {
    address: u64,
    /// Whether a kernel ran that may have reported one.
    watched: AtomicBool,
    /// The ops that reports are for, by their codes.
    ops: Mutex<Vec<&'static str>>,
}

/// Words of a report: count, value, place, limit, op.
const FAULT_WORDS: usize = 5;

/// Memory of a [`Device`].
pub struct Buffer {
    device: Device,
    address: u64,
    bytes: usize,
}

/// Launches that were recorded, to be run again: on the same memory, with the same parameters.
pub struct Recording {
    device: Device,
    graph: Graph,
    /// What was freed while it was recorded.
    memory: Vec<Memory>,
}

/// A moment in a [`Device`]'s stream.
pub struct Stamp {
    device: Device,
    event: Event,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// `cuda`, `cuda:1`, `cuda:` and a part of a device's name; or `emulator`.
    ///
    /// # Errors
    /// No such device, the driver is missing or fails, or it was not built in.
    pub fn open(name: &str) -> Result<Device> {
        match name.split_once(':').map_or((name, None), |(kind, which)| (kind, Some(which))) {
            ("emulator", None) => open_emulator(name),
            ("cuda", which) => open_cuda(name, which),
            _ => {
                Err(Error::Device { device: name.into(), why: "the emulator has one device, without an index".into() })
            }
        }
    }

    /// The system's devices, each in a line, at the place that `cuda:N` names it by; or why there are none.
    pub fn devices() -> std::result::Result<Vec<String>, String> {
        #[cfg(feature = "cuda")]
        return super::cudarc::devices();
        #[cfg(not(feature = "cuda"))]
        Err("this build lacks the feature `cuda`".into())
    }

    #[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code))] // no driver is built in
    fn with(driver: Box<dyn Driver>) -> Result<Device> {
        let address = driver.alloc(4 * FAULT_WORDS)?;
        driver.clear(address, 4 * FAULT_WORDS)?;
        let faults = Faults { address, watched: AtomicBool::new(false), ops: Mutex::default() };
        Ok(Device(Arc::new(Inner { driver, loaded: Mutex::default(), faults, recorder: Mutex::default() })))
    }

    /// What it is, in one line.
    pub fn describe(&self) -> String {
        self.0.driver.describe()
    }

    pub fn pooled_bytes(&self) -> usize {
        self.0.driver.pooled_bytes()
    }

    /// What the kernels that ran since the last call did; `None` where the driver does not count.
    pub fn meter(&self) -> Option<String> {
        self.0.driver.meter()
    }

    pub fn caps(&self) -> &Caps {
        self.0.driver.caps()
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer { device: self.clone(), address: self.0.driver.alloc(bytes.max(1))?, bytes })
    }

    pub(super) fn upload(&self, to: &Buffer, at: usize, from: &[u8]) -> Result<()> {
        self.not_recording("an upload")?;
        match from {
            [] => Ok(()),
            _ => self.0.driver.upload(to.place(at, from.len())?, from),
        }
    }

    pub(super) fn clear(&self, buffer: &Buffer, at: usize, bytes: usize) -> Result<()> {
        self.may_launch()?;
        match bytes {
            0 => Ok(()),
            _ => self.0.driver.clear(buffer.place(at, bytes)?, bytes),
        }
    }

    pub(super) fn download(&self, from: &Buffer, at: usize, to: &mut [u8]) -> Result<()> {
        self.not_recording("a download")?;
        self.check_faults()?;
        match to {
            [] => Ok(()),
            _ => self.0.driver.download(from.place(at, to.len())?, to),
        }
    }

    pub(super) fn synchronise(&self) -> Result<()> {
        self.not_recording("a wait")?;
        self.0.driver.synchronise()?;
        self.check_faults()
    }

    pub(super) fn stamp(&self) -> Result<Stamp> {
        self.not_recording("a look at the clock")?;
        Ok(Stamp { device: self.clone(), event: self.0.driver.event()? })
    }

    pub(super) fn seconds(&self, from: &Stamp, to: &Stamp) -> Result<f64> {
        self.0.driver.seconds(from.event, to.event)
    }

    /// Records the launches of `work` instead of running them. Memory that `work` gives back stays with the recording; what its
    /// results and operands hold must live as long as it is replayed.
    ///
    /// # Errors
    /// Those of `work`; something is being recorded already; or `work` uploads, downloads or waits.
    pub fn record<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(Recording, R)> {
        {
            let mut recorder = locked(&self.0.recorder);
            if recorder.is_some() {
                return Err(self.failed("launches are being recorded already"));
            }
            self.0.driver.begin_capture()?;
            *recorder = Some(Recorder { thread: std::thread::current().id(), kept: Vec::new() });
        }
        let ending = Ending(self);
        let done = work();
        let recording = ending.end();
        // What went wrong first is the reason.
        let done = done?;
        Ok((recording?, done))
    }

    /// Ends a recording.
    fn end_recording(&self) -> Result<Recording> {
        let graph = self.0.driver.end_capture();
        let kept = locked(&self.0.recorder).take().map(|r| r.kept).unwrap_or_default();
        match graph {
            Ok(graph) => Ok(Recording { device: self.clone(), graph, memory: kept }),
            Err(why) => {
                kept.iter().for_each(|&(address, bytes)| self.0.driver.free(address, bytes));
                Err(why)
            }
        }
    }

    pub(super) fn failed(&self, why: &str) -> Error {
        Error::Device { device: self.describe(), why: why.into() }
    }

    /// What is no launch cannot be recorded.
    fn not_recording(&self, what: &str) -> Result<()> {
        match locked(&self.0.recorder).is_some() {
            false => Ok(()),
            true => Err(self.failed(&format!("{what} while launches are being recorded; do it before"))),
        }
    }

    /// A launch of another thread would end up in the recording.
    fn may_launch(&self) -> Result<()> {
        match &*locked(&self.0.recorder) {
            Some(recorder) if recorder.thread != std::thread::current().id() => {
                Err(self.failed("another thread is recording launches; use a device for each thread"))
            }
            _ => Ok(()),
        }
    }

    /// Launches a function of a module, which is loaded with its first launch.
    pub(super) fn run(
        &self,
        module: &'static Module,
        symbol: &'static str,
        config: &Config,
        params: &[u8],
    ) -> Result<()> {
        self.may_launch()?;
        let function = self.function(module, symbol)?;
        let threads: u32 = config.block.iter().product();
        let smem = config.smem_bytes + function.static_smem_bytes;
        let fail = |why: String| Err(self.failed(&format!("{symbol}: {why}")));
        let most = self.caps().block_smem_bytes;
        if threads > function.max_threads {
            return fail(format!("{threads} threads are beyond its launch bounds of {}", function.max_threads));
        }
        if smem > most {
            return fail(format!("{smem} bytes of shared memory are beyond the device's {most}"));
        }
        self.0.driver.launch(&function, config, params)
    }

    fn function(&self, module: &'static Module, symbol: &'static str) -> Result<Function> {
        let mut loaded = locked(&self.0.loaded);
        if let Some(function) = loaded.functions.get(symbol) {
            return Ok(*function);
        }
        let handle = match loaded.modules.get(module.name) {
            Some(&handle) => handle,
            None => self.0.driver.load(module.name, &module.source()?)?,
        };
        loaded.modules.insert(module.name, handle);
        let function = self.0.driver.function(handle, symbol)?;
        loaded.functions.insert(symbol, function);
        Ok(function)
    }

    /// Where kernels report an index out of range, and the code of the op that it is reported for.
    pub(super) fn fault_report(&self, op: &'static str) -> (u64, u32) {
        let faults = &self.0.faults;
        faults.watched.store(true, Ordering::Relaxed);
        let mut ops = locked(&faults.ops);
        let code = ops.iter().position(|&o| o == op).unwrap_or_else(|| {
            ops.push(op);
            ops.len() - 1
        });
        (faults.address, code as u32)
    }

    /// The error that a kernel has reported since the last call.
    fn check_faults(&self) -> Result<()> {
        let faults = &self.0.faults;
        if !faults.watched.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut words = [0u32; FAULT_WORDS];
        self.0.driver.download(faults.address, bytemuck::bytes_of_mut(&mut words))?;
        let [count, value, place, limit, op] = words;
        if count == 0 {
            return Ok(());
        }
        self.0.driver.clear(faults.address, 4 * FAULT_WORDS)?;
        let op = locked(&faults.ops).get(op as usize).copied().unwrap_or("a kernel");
        Err(Error::Index { op, value: u64::from(value), index: place as usize, limit: u64::from(limit) })
    }
}

fn open_emulator(name: &str) -> Result<Device> {
    #[cfg(feature = "emulator")]
    {
        let _ = name;
        Device::with(super::emulator::open()?)
    }
    #[cfg(not(feature = "emulator"))]
    Err(Error::Device { device: name.into(), why: "this build lacks the feature `emulator`".into() })
}

fn open_cuda(name: &str, which: Option<&str>) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return super::cudarc::open(name, which).and_then(Device::with);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = which;
        Err(Error::Device { device: name.into(), why: "this build lacks the feature `cuda`".into() })
    }
}

impl Buffer {
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// The address of byte `at`, from which `bytes` are there.
    fn place(&self, at: usize, bytes: usize) -> Result<u64> {
        if at.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            let why = format!("bytes {at} to {at} + {bytes} are not in a buffer of {}", self.bytes);
            return Err(self.device.failed(&why));
        }
        Ok(self.address + at as u64)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = (self.address, self.bytes.max(1));
        match &mut *locked(&self.device.0.recorder) {
            Some(recorder) => recorder.kept.push(memory),
            None => self.device.0.driver.free(memory.0, memory.1),
        }
    }
}

/// Ends a recording, also where the work that is recorded panics.
struct Ending<'a>(&'a Device);

impl Ending<'_> {
    fn end(self) -> Result<Recording> {
        let recording = self.0.end_recording();
        std::mem::forget(self);
        recording
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // Nobody is there to use it or to be told.
        let _ = self.0.end_recording();
    }
}

impl Recording {
    /// Runs the launches again.
    ///
    /// # Errors
    /// The device was lost.
    pub fn replay(&self) -> Result<()> {
        self.device.not_recording("a replay")?;
        self.device.0.faults.watched.store(true, Ordering::Relaxed);
        self.device.0.driver.replay(self.graph)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let driver = &self.device.0.driver;
        driver.drop_graph(self.graph);
        self.memory.iter().for_each(|&(address, bytes)| driver.free(address, bytes));
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        self.device.0.driver.drop_event(self.event);
    }
}

impl Module {
    /// Its text. Where the variable `LAPIDARY_PTX` names a folder, the file is read from it instead of the binary: for work
    /// on kernels without compiling anything else.
    fn source(&self) -> Result<std::borrow::Cow<'static, str>> {
        let Some(folder) = std::env::var_os("LAPIDARY_PTX") else { return Ok(self.text.into()) };
        let path = std::path::Path::new(&folder).join("sm_80").join(self.name).with_extension("ptx");
        std::fs::read_to_string(&path).map(Into::into).map_err(|e| Error::io(&path, e))
    }
}
