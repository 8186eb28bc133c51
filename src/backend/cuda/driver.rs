//! What a driver of CUDA devices can do. Two members: the system's, through cudarc, and the emulator.
//!
//! There is one stream: work runs in the order in which it was handed over. Addresses are those of the device's memory.

use crate::error::Result;

/// What kernels are chosen by.
#[derive(Clone, Debug)]
pub struct Caps {
    /// The compute capability: 80 for 8.0, 90 for 9.0.
    pub arch: u32,
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may have when its kernel asks for them.
    pub block_smem_bytes: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub smem_bytes: u32,
    pub l2_bytes: u64,
    /// Bytes of the device's memory.
    pub memory_bytes: u64,
    /// A device that runs kernels on the CPU.
    pub emulated: bool,
}

/// A function of a loaded module.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// The driver's own handle.
    pub handle: u64,
    /// Threads of a block at most: its launch bounds.
    pub max_threads: u32,
    /// Registers of a thread; 0 where the driver does not know.
    pub registers: u32,
    /// Bytes of local memory of a thread: spills and arrays that are indexed.
    pub local_bytes: u32,
    /// Bytes of shared memory that are there without being asked for.
    pub static_smem_bytes: u32,
}

/// How a function is launched.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub smem_bytes: u32,
}

/// A recorded run of launches: the driver's own handle.
#[derive(Clone, Copy, Debug)]
pub struct Graph(pub u64);

/// A moment in the stream: the driver's own handle.
#[derive(Clone, Copy, Debug)]
pub struct Event(pub u64);

/// A driver. Every method may be called from any thread.
pub trait Driver: Send + Sync {
    fn caps(&self) -> &Caps;
    /// What it is, in one line.
    fn describe(&self) -> String;

    /// Memory that begins at a multiple of 256 bytes; never of 0 bytes.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// Takes memory of `alloc` back, once what was handed over before has run.
    fn free(&self, address: u64, bytes: usize);
    /// Bytes that wait to be given out again.
    fn pooled_bytes(&self) -> usize {
        0
    }
    /// Returns when `from` may be reused.
    fn upload(&self, to: u64, from: &[u8]) -> Result<()>;
    fn clear(&self, at: u64, bytes: usize) -> Result<()>;
    fn download(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// Compiles a module of PTX; `name` is for messages. The result is the driver's own handle.
    fn load(&self, name: &str, ptx: &str) -> Result<u64>;
    /// A function of a module, able to have as much dynamic shared memory as the device has.
    fn function(&self, module: u64, symbol: &str) -> Result<Function>;
    /// `params` are the bytes of the parameters, each at a multiple of its own size.
    fn launch(&self, function: &Function, config: &Config, params: &[u8]) -> Result<()>;

    /// Waits until everything has run.
    fn synchronise(&self) -> Result<()>;
    fn event(&self) -> Result<Event>;
    /// Waits for the later one.
    fn seconds(&self, from: Event, to: Event) -> Result<f64>;
    fn drop_event(&self, event: Event);

    /// From here to `end_capture`, launches and clearings are recorded and not run.
    fn begin_capture(&self) -> Result<()>;
    fn end_capture(&self) -> Result<Graph>;
    /// Runs what was recorded, with the same parameters.
    fn replay(&self, graph: Graph) -> Result<()>;
    fn drop_graph(&self, graph: Graph);

    /// What the kernels that ran since the last call did, if any ran and the driver counts it: one line per kernel, with a
    /// line of names first.
    fn meter(&self) -> Option<String> {
        None
    }
}
