//! The NVIDIA driver's library, as far as `backend/cuda/cudarc.rs` calls it, on the emulator: so that what talks to a driver
//! is tested where there is none. `tests/cuda.rs` puts it into the place of `libcuda.so.1`.
//!
//! Where the variable `LIBCUDA_FAILS` names a function, that function fails.
#![allow(non_snake_case, clippy::missing_safety_doc)]
#![allow(unused_unsafe)] // one block of the macro serves bodies with and without need of it

use lapidary::backend::cuda::driver::{Config, Driver, Event, Function, Graph};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex};

type Code = u32;
const SUCCESS: Code = 0;
const INVALID_VALUE: Code = 1;
const OUT_OF_MEMORY: Code = 2;
const INVALID_CONTEXT: Code = 201;
const INVALID_PTX: Code = 218;
const NOT_FOUND: Code = 500;
const LAUNCH_FAILED: Code = 719;

struct Emulated {
    driver: Box<dyn Driver>,
    functions: Mutex<Vec<Function>>,
    /// Events are made first and recorded later.
    events: Mutex<HashMap<u64, Event>>,
}

static EMULATED: LazyLock<Emulated> = LazyLock::new(|| Emulated {
    driver: lapidary::backend::cuda::emulator::open().expect("the emulator opens"),
    functions: Mutex::default(),
    events: Mutex::default(),
});

thread_local! {
    static CURRENT: Cell<bool> = const { Cell::new(false) };
}

/// What all functions begin with: one that is told to fail does, and those that need a context have one.
fn enter(name: &str, needs_context: bool) -> Result<(), Code> {
    match std::env::var("LIBCUDA_FAILS") {
        Ok(fails) if fails == name => Err(LAUNCH_FAILED),
        _ if needs_context && !CURRENT.get() => Err(INVALID_CONTEXT),
        _ => Ok(()),
    }
}

fn code(done: Result<(), Code>) -> Code {
    done.err().unwrap_or(SUCCESS)
}

fn told<T>(done: lapidary::Result<T>, failure: Code) -> Result<T, Code> {
    done.map_err(|e| {
        eprintln!("{e}");
        failure
    })
}

macro_rules! function {
    ($name:ident($($arg:ident: $type:ty),*) $context:literal $body:expr) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> Code {
            // SAFETY: callers hand over what the driver's own header asks for.
            code(enter(stringify!($name), $context).and_then(|()| unsafe { $body }))
        }
    };
}

unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller's memory for a result.
    unsafe { to.write(value) };
    Ok(())
}

function!(cuInit(_flags: c_uint) false Ok(()));
function!(cuDeviceGetCount(count: *mut c_int) false put(count, 1));
function!(cuDeviceGet(device: *mut c_int, ordinal: c_int) false
    if ordinal == 0 { put(device, 0) } else { Err(INVALID_VALUE) });
function!(cuDeviceGetName(name: *mut c_char, len: c_int, _device: c_int) false {
    let text = b"Emulated GPU\0";
    if (len as usize) < text.len() { return Err(INVALID_VALUE); }
    std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len());
    Ok(())
});
function!(cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) false
    put(bytes, EMULATED.driver.caps().memory_bytes as usize));
function!(cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) false {
    let caps = EMULATED.driver.caps();
    put(value, match attribute {
        16 => caps.multiprocessors as c_int,
        38 => caps.l2_bytes as c_int,
        75 => (caps.arch / 10) as c_int,
        76 => (caps.arch % 10) as c_int,
        81 => caps.smem_bytes as c_int,
        97 => caps.block_smem_bytes as c_int,
        _ => return Err(INVALID_VALUE),
    })
});
function!(cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) false put(context, 1));
function!(cuDevicePrimaryCtxRelease_v2(_device: c_int) false Ok(()));
function!(cuCtxSetCurrent(context: usize) false {
    CURRENT.set(context == 1);
    Ok(())
});
function!(cuStreamCreate(stream: *mut usize, _flags: c_uint) true put(stream, 1));
function!(cuStreamDestroy_v2(_stream: usize) false Ok(()));
function!(cuStreamSynchronize(_stream: usize) true told(EMULATED.driver.synchronise(), LAUNCH_FAILED));

function!(cuMemAlloc_v2(address: *mut u64, bytes: usize) true
    told(EMULATED.driver.alloc(bytes), OUT_OF_MEMORY).and_then(|made| put(address, made)));
function!(cuMemFree_v2(address: u64) true {
    EMULATED.driver.free(address, 0);
    Ok(())
});
function!(cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: usize) true
    told(EMULATED.driver.upload(to, std::slice::from_raw_parts(from, bytes)), INVALID_VALUE));
function!(cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: usize) true
    told(EMULATED.driver.download(from, std::slice::from_raw_parts_mut(to, bytes)), INVALID_VALUE));
function!(cuMemsetD8Async(at: u64, value: u8, bytes: usize, _stream: usize) true
    if value == 0 { told(EMULATED.driver.clear(at, bytes), INVALID_VALUE) } else { Err(INVALID_VALUE) });

function!(cuModuleLoadDataEx(
    module: *mut u64,
    image: *const c_char,
    count: c_uint,
    options: *const c_int,
    values: *const *mut c_void
) true {
    match EMULATED.driver.load("module", &CStr::from_ptr(image).to_string_lossy()) {
        // A handle is a pointer elsewhere, so never 0.
        Ok(handle) => put(module, handle + 1),
        Err(e) => {
            let option = |wanted: c_int| {
                let place = (0..count as usize).find(|&i| *options.add(i) == wanted)?;
                Some(*values.add(place))
            };
            // The log of errors, and its size.
            if let (Some(log), Some(size)) = (option(5), option(6)) {
                let text = e.to_string();
                let bytes = text.len().min((size as usize).saturating_sub(1));
                std::ptr::copy_nonoverlapping(text.as_ptr(), log.cast(), bytes);
                log.cast::<u8>().add(bytes).write(0);
            }
            Err(INVALID_PTX)
        }
    }
});
function!(cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) true {
    let found = told(EMULATED.driver.function(module - 1, &CStr::from_ptr(name).to_string_lossy()), NOT_FOUND);
    found.and_then(|found| {
        let mut functions = EMULATED.functions.lock().unwrap();
        functions.push(found);
        put(function, functions.len() as u64)
    })
});
function!(cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: u64) true {
    let function = EMULATED.functions.lock().unwrap()[function as usize - 1];
    put(value, match attribute {
        0 => function.max_threads as c_int,
        1 => function.static_smem_bytes as c_int,
        3 => function.local_bytes as c_int,
        4 => function.registers as c_int,
        _ => return Err(INVALID_VALUE),
    })
});
function!(cuFuncSetAttribute(function: u64, attribute: c_int, value: c_int) true {
    // The largest dynamic shared memory.
    let function = EMULATED.functions.lock().unwrap()[function as usize - 1];
    let most = EMULATED.driver.caps().block_smem_bytes - function.static_smem_bytes;
    if attribute == 8 && value as u32 <= most { Ok(()) } else { Err(INVALID_VALUE) }
});
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // as the driver has them
pub unsafe extern "C" fn cuLaunchKernel(
    function: u64,
    gx: c_uint,
    gy: c_uint,
    gz: c_uint,
    bx: c_uint,
    by: c_uint,
    bz: c_uint,
    smem_bytes: c_uint,
    _stream: usize,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Code {
    code(enter("cuLaunchKernel", true).and_then(|()| {
        if !params.is_null() || extra.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the list ends in 0 and has the buffer's pointer behind 1 and its size behind 2.
        let params = unsafe {
            let list = std::slice::from_raw_parts(extra.cast::<usize>(), 5);
            match *list {
                [1, buffer, 2, size, 0] => std::slice::from_raw_parts(buffer as *const u8, *(size as *const usize)),
                _ => return Err(INVALID_VALUE),
            }
        };
        let function = EMULATED.functions.lock().unwrap()[function as usize - 1];
        let config = Config { grid: [gx, gy, gz], block: [bx, by, bz], smem_bytes };
        told(EMULATED.driver.launch(&function, &config, params), LAUNCH_FAILED)
    }))
}

function!(cuEventCreate(event: *mut u64, _flags: c_uint) true {
    let mut events = EMULATED.events.lock().unwrap();
    let made = told(EMULATED.driver.event(), INVALID_VALUE);
    made.and_then(|made| {
        events.insert(made.0, made);
        put(event, made.0)
    })
});
function!(cuEventRecord(event: u64, _stream: usize) true {
    let now = told(EMULATED.driver.event(), INVALID_VALUE)?;
    EMULATED.events.lock().unwrap().insert(event, now);
    Ok(())
});
function!(cuEventSynchronize(_event: u64) true Ok(()));
function!(cuEventElapsedTime(milliseconds: *mut f32, from: u64, to: u64) true {
    let events = EMULATED.events.lock().unwrap();
    let seconds = told(EMULATED.driver.seconds(events[&from], events[&to]), INVALID_VALUE);
    seconds.and_then(|seconds| put(milliseconds, (seconds * 1e3) as f32))
});
function!(cuEventDestroy_v2(event: u64) true {
    let known = EMULATED.events.lock().unwrap().remove(&event);
    known.map(|event| EMULATED.driver.drop_event(event)).ok_or(INVALID_VALUE)
});

function!(cuStreamBeginCapture_v2(_stream: usize, _mode: c_int) true told(EMULATED.driver.begin_capture(), INVALID_VALUE));
function!(cuStreamEndCapture(_stream: usize, graph: *mut u64) true
    told(EMULATED.driver.end_capture(), INVALID_VALUE).and_then(|made| put(graph, made.0)));
function!(cuGraphInstantiateWithFlags(runnable: *mut u64, graph: u64, _flags: u64) true put(runnable, graph));
// What can be run is the graph itself here, so that destroying the one must leave the other.
function!(cuGraphDestroy(_graph: u64) true Ok(()));
function!(cuGraphLaunch(runnable: u64, _stream: usize) true told(EMULATED.driver.replay(Graph(runnable)), LAUNCH_FAILED));
function!(cuGraphExecDestroy(runnable: u64) true {
    EMULATED.driver.drop_graph(Graph(runnable));
    Ok(())
});

function!(cuGetErrorName(code: Code, text: *mut *const c_char) false {
    let name: &CStr = match code {
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => c"CUDA_ERROR_UNKNOWN",
    };
    put(text, name.as_ptr())
});
function!(cuGetErrorString(_code: Code, text: *mut *const c_char) false put(text, c"emulated failure".as_ptr()));
