//! The emulator: a PTX interpreter, so that the shipped PTX runs, and is checked, where there is no GPU.
//!
//! | file | what |
//! |---|---|
//! | `parse`, `ir` | PTX text, and what it is once it is parsed |
//! | `flow`, `allocate` | basic blocks, where lanes meet again after a branch; places for registers |
//! | `exec` | an instruction as a closure over the lanes of a warp, made once |
//! | `program` | a kernel and the functions that it calls, linked into one piece of code |
//! | `registers`, `simd` | the registers of a warp; loops over lanes on the vectors that the CPU has |
//! | `block` | a block of threads: warps that take turns, paths of lanes, barriers |
//! | `memory` | global memory: allocations of exact sizes |
//! | `shared`, `order` | shared memory with a state for each byte; which accesses are ordered |
//! | `float`, `matrix` | arithmetic as PTX rounds it; matrix products and their fragments |
//! | `fault`, `meter` | what a kernel did wrong, and what it did |
//!
//! Found, each with kernel, line, block and thread: accesses that are out of bounds or misaligned in any memory; reads of
//! shared memory that nobody wrote in this block, or that a `cp.async` is still copying to; accesses to shared memory of
//! two warps that no barrier orders, and two lanes of one store that disagree; barriers that not all lanes of a warp, or not
//! all warps, come to; exchanges between lanes that are not there; blocks, shared memory and parameters that do not fit a
//! kernel; `trap`; kernels that never end. What the emulator does not know is an error when the kernel is looked up.
//!
//! Not found: races in global memory, and between blocks of any kind; reads of registers and of local or global memory that
//! nobody wrote; lanes of one warp that talk through shared memory without `__syncwarp`, as they run in lock step. Memory is
//! seen by everyone at once: a fence that is missing, between proxies or for another block, makes no difference here.

mod allocate;
mod block;
mod exec;
pub mod fault;
pub mod float;
mod flow;
mod ir;
pub mod matrix;
pub mod memory;
pub mod meter;
mod order;
mod parse;
#[cfg(test)]
mod planted;
mod program;
mod registers;
pub mod shared;
mod simd;
#[cfg(test)]
mod tests;

use super::driver::{Caps, Config, Driver, Event, Function, Graph};
use crate::error::{Error, Result};
use block::{Block, Failure};
use ir::Space;
use memory::Global;
use meter::{Counts, Meter};
use program::Program;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A device of compute capability 8.0 in software.
pub struct Emulator {
    caps: Caps,
    memory: Global,
    threads: usize,
    state: Mutex<State>,
    meter: Mutex<Meter>,
}

#[derive(Default)]
struct State {
    modules: Vec<Arc<Module>>,
    functions: Vec<Kernel>,
    events: HashMap<u64, Instant>,
    graphs: HashMap<u64, Arc<Vec<Recorded>>>,
    /// Launches since `begin_capture`.
    capture: Option<Vec<Recorded>>,
    /// The next event or graph.
    next: u64,
}

/// A module that was loaded.
struct Module {
    name: String,
    text: String,
    outline: parse::Outline,
    /// The addresses of its variables.
    globals: Vec<u64>,
    /// Its kernels that were asked for.
    programs: Mutex<HashMap<String, Arc<Program>>>,
}

impl Module {
    /// A kernel, compiled when it is asked for the first time.
    fn program(&self, symbol: &str) -> Result<Arc<Program>> {
        let mut programs = locked(&self.programs);
        if let Some(program) = programs.get(symbol) {
            return Ok(program.clone());
        }
        let index = self.outline.module.functions.iter().position(|f| f.is_entry && f.name == symbol);
        let index = index.ok_or_else(|| error(format!("module {}: no kernel `{symbol}`", self.name)))?;
        let wrong = |line: u32, why: String| wrong_text(&self.name, &self.text, line, &why);
        let parsed = parse::functions(&self.text, &self.outline, index).map_err(|e| wrong(e.line, e.why))?;
        let program = program::link(&parsed, 0, &self.globals).map_err(|e| wrong(e.line, e.why))?;
        let program = Arc::new(program);
        programs.insert(symbol.into(), program.clone());
        Ok(program)
    }
}

#[derive(Clone)]
struct Kernel {
    module: Arc<Module>,
    program: Arc<Program>,
}

/// What is to be run later.
enum Recorded {
    Launch { kernel: Kernel, config: Config, params: Vec<u8> },
    Clear { at: u64, bytes: usize },
}

/// A device of its own.
pub fn open() -> Result<Box<dyn Driver>> {
    Ok(Box::new(Emulator::new()))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is made in one piece, so that what a panicking thread leaves is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(why: impl Into<String>) -> Error {
    Error::Device { device: "emulator".into(), why: why.into() }
}

impl Default for Emulator {
    fn default() -> Emulator {
        Emulator::new()
    }
}

impl Emulator {
    /// A device with the sizes of an A100. Blocks run on as many threads as `LAPIDARY_THREADS` says, else on all cores.
    pub fn new() -> Emulator {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let wanted = std::env::var("LAPIDARY_THREADS").ok().and_then(|t| t.parse().ok()).filter(|&t| t > 0);
        let memory_bytes = 80_000_000_000;
        let caps = Caps {
            arch: 80,
            multiprocessors: 108,
            block_smem_bytes: 163 << 10,
            smem_bytes: 164 << 10,
            l2_bytes: 40 << 20,
            memory_bytes,
            emulated: true,
        };
        Emulator {
            caps,
            memory: Global::new(memory_bytes),
            threads: wanted.unwrap_or(cores),
            state: Mutex::default(),
            meter: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Memory for the variables of a module, with their initial values.
    fn place(&self, module: &ir::Module) -> Result<Vec<u64>> {
        let mut addresses = Vec::new();
        for variable in &module.variables {
            let address = match variable.space {
                Space::Global | Space::Const => self.memory.alloc(variable.bytes)?,
                _ => 0,
            };
            addresses.push(address);
        }
        for (variable, &address) in module.variables.iter().zip(&addresses).filter(|(_, address)| **address != 0) {
            let mut init = variable.init.clone();
            for &(at, target, offset) in &variable.pointers {
                let pointer = addresses[target].wrapping_add_signed(offset).to_le_bytes();
                init[at..at + 8].copy_from_slice(&pointer);
            }
            self.memory.upload(address, &init)?;
        }
        Ok(addresses)
    }

    /// Runs a kernel to its end.
    fn execute(&self, kernel: &Kernel, config: &Config, params: &[u8]) -> Result<()> {
        let program = &*kernel.program;
        let refuse = |why: String| Err(error(format!("launch of `{}`: {why}", program.name)));
        let threads = config.block.iter().try_fold(1u32, |n, &size| n.checked_mul(size)).unwrap_or(u32::MAX);
        let blocks: u64 = config.grid.iter().map(|&n| u64::from(n)).product();
        if threads > program.max_threads {
            return refuse(format!("a block of {threads} threads; its launch bounds are {}", program.max_threads));
        }
        if threads == 0 || blocks == 0 {
            return refuse("a grid or block of no threads".into());
        }
        if config.grid[1] > 65535 || config.grid[2] > 65535 {
            return refuse(format!("a grid of {:?} blocks; y and z go up to 65535", config.grid));
        }
        if config.smem_bytes as usize + program.dynamic_smem_start > self.caps.block_smem_bytes as usize {
            let has = self.caps.block_smem_bytes;
            return refuse(format!("{} bytes of dynamic shared memory; a block may have {has}", config.smem_bytes));
        }
        if params.len() != program.params_bytes {
            return refuse(format!("{} bytes of parameters; it takes {}", params.len(), program.params_bytes));
        }
        let mut launch = Counts::default();
        launch.launches = 1;
        locked(&self.meter).add(&program.name, &launch);
        let next = AtomicU64::new(0);
        let failure: Mutex<Option<(u64, Box<Failure>)>> = Mutex::new(None);
        let work = || {
            let mut block = Block::new(program, config, params, self.memory.view());
            let mut warps = block::warps(program, config);
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= blocks {
                    break;
                }
                let [x, y, _] = config.grid.map(u64::from);
                let index = [at % x, at / x % y, at / x / y].map(|i| i as u32);
                if let Err(found) = block.run(&mut warps, index) {
                    // No block behind this one is begun; those before it may find something earlier.
                    next.store(blocks, Ordering::Relaxed);
                    let mut first = locked(&failure);
                    if first.as_ref().is_none_or(|f| at < f.0) {
                        *first = Some((at, found));
                    }
                    break;
                }
            }
            locked(&self.meter).add(&program.name, &block.counts);
        };
        let workers = (self.threads as u64).min(blocks);
        if workers <= 1 {
            work();
        } else {
            std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        }
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((_, failure)) => Err(error(describe(&kernel.module, &program.name, &failure))),
        }
    }
}

/// A line of a text, counted from 1.
fn line_of(text: &str, line: u32) -> &str {
    text.lines().nth((line as usize).saturating_sub(1)).unwrap_or("").trim()
}

/// What is wrong with a module.
fn wrong_text(module: &str, text: &str, line: u32, why: &str) -> Error {
    error(format!("module {module}: line {line} `{}`: {why}", line_of(text, line)))
}

/// A failure in words.
fn describe(module: &Module, kernel: &str, failure: &Failure) -> String {
    let line = line_of(&module.text, failure.line);
    let thread = failure.thread.map_or(String::new(), |t| format!(", thread {t:?}"));
    let (block, fault) = (failure.block, &failure.fault);
    format!("kernel `{kernel}` of {}: line {} `{line}`: block {block:?}{thread}: {fault}", module.name, failure.line)
}

impl Driver for Emulator {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn describe(&self) -> String {
        format!("emulator of compute capability 8.0 (PTX on {} CPU threads)", self.threads)
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let address = self.memory.alloc(bytes)?;
        // No number in any dtype, so that what is read before it was written is seen in the results.
        self.memory.fill(address, 0xff, bytes)?;
        Ok(address)
    }

    fn free(&self, address: u64, _: usize) {
        self.memory.free(address);
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        self.memory.upload(to, from)
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        if let Some(capture) = &mut self.state().capture {
            capture.push(Recorded::Clear { at, bytes });
            return Ok(());
        }
        self.memory.fill(at, 0, bytes)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.memory.download(from, to)
    }

    fn load(&self, name: &str, ptx: &str) -> Result<u64> {
        let outline = parse::outline(ptx).map_err(|e| wrong_text(name, ptx, e.line, &e.why))?;
        let globals = self.place(&outline.module)?;
        let module = Module { name: name.into(), text: ptx.into(), outline, globals, programs: Mutex::default() };
        let mut state = self.state();
        state.modules.push(Arc::new(module));
        Ok(state.modules.len() as u64 - 1)
    }

    fn function(&self, module: u64, symbol: &str) -> Result<Function> {
        let module = self.state().modules.get(module as usize).cloned().ok_or_else(|| error("no such module"))?;
        let program = module.program(symbol)?;
        let mut state = self.state();
        let function = Function {
            handle: state.functions.len() as u64,
            max_threads: program.max_threads,
            registers: 0,
            local_bytes: program.local_bytes as u32,
            static_smem_bytes: program.static_smem_bytes as u32,
        };
        state.functions.push(Kernel { module, program });
        Ok(function)
    }

    fn launch(&self, function: &Function, config: &Config, params: &[u8]) -> Result<()> {
        let kernel = {
            let mut state = self.state();
            let kernel =
                state.functions.get(function.handle as usize).ok_or_else(|| error("no such function"))?.clone();
            if let Some(capture) = &mut state.capture {
                capture.push(Recorded::Launch { kernel, config: *config, params: params.into() });
                return Ok(());
            }
            kernel
        };
        self.execute(&kernel, config, params)
    }

    fn synchronise(&self) -> Result<()> {
        // Launches return when they are done.
        Ok(())
    }

    fn event(&self) -> Result<Event> {
        let mut state = self.state();
        state.next += 1;
        let handle = state.next;
        state.events.insert(handle, Instant::now());
        Ok(Event(handle))
    }

    fn seconds(&self, from: Event, to: Event) -> Result<f64> {
        let state = self.state();
        match (state.events.get(&from.0), state.events.get(&to.0)) {
            (Some(from), Some(to)) => Ok(to.saturating_duration_since(*from).as_secs_f64()),
            _ => Err(error("no such event")),
        }
    }

    fn drop_event(&self, event: Event) {
        self.state().events.remove(&event.0);
    }

    fn begin_capture(&self) -> Result<()> {
        let mut state = self.state();
        if state.capture.is_some() {
            return Err(error("launches are being recorded already"));
        }
        state.capture = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph> {
        let mut state = self.state();
        let recorded = state.capture.take().ok_or_else(|| error("no launches are being recorded"))?;
        state.next += 1;
        let handle = state.next;
        state.graphs.insert(handle, Arc::new(recorded));
        Ok(Graph(handle))
    }

    fn replay(&self, graph: Graph) -> Result<()> {
        let recorded = self.state().graphs.get(&graph.0).cloned().ok_or_else(|| error("no such graph"))?;
        recorded.iter().try_for_each(|recorded| match recorded {
            Recorded::Launch { kernel, config, params } => self.execute(kernel, config, params),
            Recorded::Clear { at, bytes } => self.memory.fill(*at, 0, *bytes),
        })
    }

    fn drop_graph(&self, graph: Graph) {
        self.state().graphs.remove(&graph.0);
    }

    fn meter(&self) -> Option<String> {
        std::mem::take(&mut *locked(&self.meter)).table()
    }
}
