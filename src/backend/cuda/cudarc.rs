//! The system's driver: libcuda, loaded when a device is opened.
//!
//! Only the raw functions of the crate are used: its safe types open a context of their own and give no log of the compiler.

use super::driver::{Caps, Config, Driver, Event, Function, Graph};
use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUresult};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The oldest compute capability that the embedded PTX is for.
const OLDEST_ARCH: u32 = 80;

/// A device's primary context, a stream, and memory.
pub struct Cudarc {
    name: String,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    caps: Caps,
    pool: Mutex<Pool>,
}

// SAFETY: the handles are the driver's, which may be used from any thread once the context is current on it; every method
// makes it so.
unsafe impl Send for Cudarc {}
// SAFETY: the driver's functions are safe to call at the same time; the pool has a lock.
unsafe impl Sync for Cudarc {}

/// Memory that was given back, by size, and what is given out.
#[derive(Default)]
struct Pool {
    free: BTreeMap<usize, Vec<u64>>,
    free_bytes: usize,
    /// The size that each address was allocated with.
    sizes: HashMap<u64, usize>,
    /// Whether launches are being recorded: then nothing may wait for the stream.
    recording: bool,
}

/// A tensor takes a free block that is larger by at most a quarter.
fn most_for(bytes: usize) -> usize {
    bytes + bytes / 4
}

/// The size of a block: multiples of 512 bytes, of large ones of 2 MiB, which is the driver's page.
fn block_bytes(bytes: usize) -> usize {
    bytes.next_multiple_of(if bytes >= 1 << 20 { 2 << 20 } else { 512 })
}

impl Pool {
    fn take(&mut self, bytes: usize) -> Option<u64> {
        let size = *self.free.range(bytes..=most_for(bytes)).next()?.0;
        let list = self.free.get_mut(&size)?;
        let address = list.pop();
        if list.is_empty() {
            self.free.remove(&size);
        }
        self.free_bytes -= size;
        address
    }

    fn put(&mut self, address: u64) {
        if let Some(&size) = self.sizes.get(&address) {
            self.free.entry(size).or_default().push(address);
            self.free_bytes += size;
        }
    }
}

fn text_of(code: CUresult, get: unsafe fn(CUresult, *mut *const c_char) -> CUresult) -> String {
    let mut text: *const c_char = std::ptr::null();
    // SAFETY: the driver points `text` at a constant of its own, or leaves it alone.
    unsafe {
        get(code, &mut text);
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// What the driver says of a failure.
fn told(code: CUresult) -> String {
    format!("{} ({})", text_of(code, sys::cuGetErrorString), text_of(code, sys::cuGetErrorName))
}

fn check(code: CUresult) -> std::result::Result<(), String> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(told(code)) }
}

/// Begins the use of the driver, and counts its devices.
fn count() -> std::result::Result<c_int, String> {
    // SAFETY: looks whether the library can be loaded; other functions panic where it cannot.
    if !unsafe { sys::is_culib_present() } {
        let mut names = cudarc::get_lib_name_candidates("cuda");
        names.dedup();
        return Err(format!(
            "the NVIDIA driver's library was not found; looked for {} in the system's library folders and \
             LD_LIBRARY_PATH; install the driver, or use the device `emulator`",
            names.join(", ")
        ));
    }
    let mut n = 0;
    // SAFETY: the library is there; `n` outlives the call.
    unsafe {
        check(sys::cuInit(0)).map_err(|why| format!("the NVIDIA driver does not start: {why}"))?;
        check(sys::cuDeviceGetCount(&mut n))?;
    }
    if n == 0 { Err("the NVIDIA driver has no device".into()) } else { Ok(n) }
}

fn attribute(device: sys::CUdevice, which: sys::CUdevice_attribute) -> u32 {
    let mut value = 0;
    // SAFETY: a device of `cuDeviceGet`; `value` outlives the call and stays 0 where the driver does not know the attribute.
    unsafe { sys::cuDeviceGetAttribute(&mut value, which, device) };
    value.max(0) as u32
}

/// A device's handle and name.
fn device(index: c_int) -> std::result::Result<(sys::CUdevice, String), String> {
    let (mut device, mut name) = (0, [0u8; 128]);
    // SAFETY: both outlive the calls; the name's length is told.
    unsafe {
        check(sys::cuDeviceGet(&mut device, index))?;
        check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device))?;
    }
    let name = CStr::from_bytes_until_nul(&name).map_or_else(|_| String::new(), |n| n.to_string_lossy().into_owned());
    Ok((device, name))
}

fn caps(device: sys::CUdevice) -> Caps {
    use sys::CUdevice_attribute::*;
    let mut memory_bytes = 0;
    // SAFETY: a device of `cuDeviceGet`; the number outlives the call.
    unsafe { sys::cuDeviceTotalMem_v2(&mut memory_bytes, device) };
    let [major, minor] = [CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR]
        .map(|which| attribute(device, which));
    Caps {
        arch: 10 * major + minor,
        multiprocessors: attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).max(1),
        block_smem_bytes: attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        smem_bytes: attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
        l2_bytes: u64::from(attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)),
        memory_bytes: memory_bytes as u64,
        emulated: false,
    }
}

/// The devices, each in a line; or why there are none.
pub fn devices() -> std::result::Result<Vec<String>, String> {
    (0..count()?)
        .map(|i| {
            let (device, name) = device(i)?;
            Ok(line(&name, &caps(device)))
        })
        .collect()
}

fn line(name: &str, caps: &Caps) -> String {
    format!(
        "{name}, compute capability {}.{}, {} multiprocessors, {:.1} GiB",
        caps.arch / 10,
        caps.arch % 10,
        caps.multiprocessors,
        caps.memory_bytes as f64 / (1u64 << 30) as f64
    )
}

/// The device that `cuda:which` names: by its place, by a part of its name, or the first.
pub fn open(name: &str, which: Option<&str>) -> Result<Box<dyn Driver>> {
    let fail = |why: String| Error::Device { device: name.into(), why };
    let devices: Vec<_> =
        count().and_then(|n| (0..n).map(device).collect::<std::result::Result<_, _>>()).map_err(fail)?;
    let found = match which.map(|w| (w, w.parse::<usize>())) {
        None => devices.first(),
        Some((_, Ok(index))) => devices.get(index),
        Some((part, Err(_))) => devices.iter().find(|(_, n)| n.to_lowercase().contains(&part.to_lowercase())),
    };
    let Some((device, model)) = found else {
        let known: Vec<&str> = devices.iter().map(|(_, n)| n.as_str()).collect();
        return Err(fail(format!("no such device; the driver has {}", known.join(", "))));
    };
    Cudarc::new(*device, model).map(|d| Box::new(d) as Box<dyn Driver>).map_err(fail)
}

impl Cudarc {
    fn new(device: sys::CUdevice, name: &str) -> std::result::Result<Cudarc, String> {
        let caps = caps(device);
        if caps.arch < OLDEST_ARCH {
            return Err(format!("{}: the kernels need compute capability 8.0 or newer; use wgpu", line(name, &caps)));
        }
        let (mut context, mut stream) = (null_mut(), null_mut());
        // SAFETY: a device of the driver; both handles outlive the calls. The context is given back by `drop`.
        unsafe {
            check(sys::cuDevicePrimaryCtxRetain(&mut context, device))?;
            let made = check(sys::cuCtxSetCurrent(context)).and_then(|()| {
                check(sys::cuStreamCreate(&mut stream, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))
            });
            if let Err(why) = made {
                sys::cuDevicePrimaryCtxRelease_v2(device);
                return Err(why);
            }
        }
        Ok(Cudarc { name: name.into(), device, context, stream, caps, pool: Mutex::default() })
    }

    /// Makes the context current, and does what needs it.
    fn with(&self, what: &str, work: impl FnOnce() -> CUresult) -> Result<()> {
        // SAFETY: the context lives as long as this.
        let current = unsafe { sys::cuCtxSetCurrent(self.context) };
        let done = check(current).and_then(|()| check(work()));
        done.map_err(|why| self.failed(format!("{what}: {why}")))
    }

    fn failed(&self, why: String) -> Error {
        Error::Device { device: self.name.clone(), why }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alloc_block(&self, bytes: usize) -> Result<u64> {
        let mut address = 0;
        // SAFETY: `address` outlives the call.
        self.with("allocating", || unsafe { sys::cuMemAlloc_v2(&mut address, bytes) })?;
        Ok(address)
    }

    /// Gives what waits in the pool back to the driver.
    fn empty_pool(&self) -> Result<()> {
        // Nobody gets or gives memory meanwhile.
        let mut pool = self.pool();
        self.synchronise()?;
        pool.free_bytes = 0;
        for address in std::mem::take(&mut pool.free).into_values().flatten() {
            pool.sizes.remove(&address);
            // SAFETY: memory of `cuMemAlloc` that nobody has, and the stream has run.
            self.with("freeing", || unsafe { sys::cuMemFree_v2(address) })?;
        }
        Ok(())
    }

    fn function_attribute(&self, function: sys::CUfunction, which: sys::CUfunction_attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: a function of a loaded module; `value` outlives the call.
        self.with("asking for a function's needs", || unsafe { sys::cuFuncGetAttribute(&mut value, which, function) })?;
        Ok(value.max(0) as u32)
    }
}

impl Driver for Cudarc {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn describe(&self) -> String {
        line(&self.name, &self.caps)
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let size = block_bytes(bytes);
        if let Some(address) = self.pool().take(size) {
            return Ok(address);
        }
        let full = || Error::Memory { device: self.name.clone(), bytes };
        let address = self.alloc_block(size).or_else(|_| {
            if self.pool().recording {
                return Err(full());
            }
            self.empty_pool()?;
            self.alloc_block(size).map_err(|_| full())
        })?;
        self.pool().sizes.insert(address, size);
        Ok(address)
    }

    fn free(&self, address: u64, _: usize) {
        self.pool().put(address);
    }

    fn pooled_bytes(&self) -> usize {
        self.pool().free_bytes
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        // SAFETY: the caller has checked that the bytes are there. Pageable memory is staged before the call returns.
        self.with("uploading", || unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), self.stream)
        })
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller has checked that the bytes are there.
        self.with("clearing", || unsafe { sys::cuMemsetD8Async(at, 0, bytes, self.stream) })
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: the caller has checked that the bytes are there; the copy has ended when this returns.
        self.with("downloading", || unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), self.stream)
        })?;
        self.synchronise()
    }

    fn load(&self, name: &str, ptx: &str) -> Result<u64> {
        use sys::CUjit_option::*;
        let text = CString::new(ptx).map_err(|e| self.failed(format!("{name}.ptx: {e}")))?;
        let mut log = vec![0u8; 16 << 10];
        let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut module = null_mut();
        // SAFETY: the text ends in a zero byte; two options, each with its value as the driver wants it; the log's size is
        // told, and it outlives the call.
        let loaded = self.with("compiling", || unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        });
        loaded.map_err(|why| {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            self.failed(format!("{name}.ptx: {why}; the driver's compiler says: {}", log.trim()))
        })?;
        Ok(module as u64)
    }

    fn function(&self, module: u64, symbol: &str) -> Result<Function> {
        use sys::CUfunction_attribute::*;
        let name = CString::new(symbol).map_err(|e| self.failed(format!("{symbol}: {e}")))?;
        let mut function = null_mut();
        // SAFETY: a module of `load`, which is never unloaded; the name ends in a zero byte.
        self.with(symbol, || unsafe {
            sys::cuModuleGetFunction(&mut function, module as sys::CUmodule, name.as_ptr())
        })?;
        let has = |which| self.function_attribute(function, which);
        let static_smem_bytes = has(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic = self.caps.block_smem_bytes.saturating_sub(static_smem_bytes);
        // SAFETY: as above.
        self.with(symbol, || unsafe {
            sys::cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic as c_int)
        })?;
        Ok(Function {
            handle: function as u64,
            max_threads: has(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            registers: has(CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: has(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            static_smem_bytes,
        })
    }

    fn launch(&self, function: &Function, config: &Config, params: &[u8]) -> Result<()> {
        let ([gx, gy, gz], [bx, by, bz]) = (config.grid, config.block);
        let mut bytes = params.len();
        let mut extra = [
            sys::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize as *mut c_void,
            params.as_ptr() as *mut c_void,
            sys::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize as *mut c_void,
            (&raw mut bytes).cast(),
            sys::CU_LAUNCH_PARAM_END_AS_INT as usize as *mut c_void,
        ];
        // SAFETY: a function of `function`; parameters are handed over as one run of bytes, which the driver copies. What the
        // kernel does with memory is what the kernel's tests are for.
        self.with("launching", || unsafe {
            sys::cuLaunchKernel(
                function.handle as sys::CUfunction,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                config.smem_bytes,
                self.stream,
                null_mut(),
                extra.as_mut_ptr(),
            )
        })
    }

    fn synchronise(&self) -> Result<()> {
        // SAFETY: the stream lives as long as this.
        self.with("waiting", || unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    fn event(&self) -> Result<Event> {
        let mut event = null_mut();
        // SAFETY: `event` outlives the call; the second uses what the first made.
        self.with("marking a moment", || unsafe {
            let made = sys::cuEventCreate(&mut event, sys::CUevent_flags::CU_EVENT_DEFAULT as u32);
            if made == CUresult::CUDA_SUCCESS { sys::cuEventRecord(event, self.stream) } else { made }
        })?;
        Ok(Event(event as u64))
    }

    fn seconds(&self, from: Event, to: Event) -> Result<f64> {
        let mut milliseconds = 0f32;
        // SAFETY: events of `event` that were not dropped.
        self.with("reading the clock", || unsafe {
            let waited = sys::cuEventSynchronize(to.0 as sys::CUevent);
            if waited != CUresult::CUDA_SUCCESS {
                return waited;
            }
            sys::cuEventElapsedTime(&mut milliseconds, from.0 as sys::CUevent, to.0 as sys::CUevent)
        })?;
        Ok(f64::from(milliseconds) * 1e-3)
    }

    fn drop_event(&self, event: Event) {
        // SAFETY: an event of `event`, dropped once. A failure here says what a later call says too.
        let _ = self.with("forgetting a moment", || unsafe { sys::cuEventDestroy_v2(event.0 as sys::CUevent) });
    }

    fn begin_capture(&self) -> Result<()> {
        // Memory may be allocated meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as this.
        self.with("recording", || unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) })?;
        self.pool().recording = true;
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph> {
        self.pool().recording = false;
        let (mut graph, mut runnable) = (null_mut(), null_mut());
        // SAFETY: the handles outlive the calls; the graph that the second reads is destroyed after it.
        self.with("ending a record", || unsafe {
            let ended = sys::cuStreamEndCapture(self.stream, &mut graph);
            if ended != CUresult::CUDA_SUCCESS {
                return ended;
            }
            let made = sys::cuGraphInstantiateWithFlags(&mut runnable, graph, 0);
            sys::cuGraphDestroy(graph);
            made
        })?;
        Ok(Graph(runnable as u64))
    }

    fn replay(&self, graph: Graph) -> Result<()> {
        // SAFETY: a graph of `end_capture` that was not dropped.
        self.with("replaying", || unsafe { sys::cuGraphLaunch(graph.0 as sys::CUgraphExec, self.stream) })
    }

    fn drop_graph(&self, graph: Graph) {
        // SAFETY: a graph of `end_capture`, dropped once; the driver keeps it until it has run.
        let _ = self.with("forgetting a record", || unsafe { sys::cuGraphExecDestroy(graph.0 as sys::CUgraphExec) });
    }
}

impl Drop for Cudarc {
    fn drop(&mut self) {
        // Errors have nobody to go to any more; the driver cleans up with the process.
        let _ = self.empty_pool();
        // SAFETY: nothing uses the stream or the context after this.
        unsafe {
            sys::cuStreamDestroy_v2(self.stream);
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
