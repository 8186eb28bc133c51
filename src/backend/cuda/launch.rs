//! What a kernel says to be run: the function with its parameters, grid, block and shared memory.
//!
//! The PTX under `kernels/ptx/` is embedded, one module per kernel stem. Conventions of kernels are in
//! `kernels/common/base.cuh`; parameters are given in the order of the kernel's own.

use super::driver::Config;
use super::{Cuda, Device};
use crate::backend::{Arg, Launch};
use crate::dtype::{DType, Quant};
use crate::error::Result;

/// A module of PTX: the stem of `kernels/<stem>.cu`, and its text.
#[derive(Debug)]
pub struct Module {
    pub name: &'static str,
    pub text: &'static str,
}

/// `ptx!("softmax")`: the module compiled from `kernels/softmax.cu`.
macro_rules! ptx {
    ($name:literal) => {{
        static MODULE: $crate::backend::cuda::Module = $crate::backend::cuda::Module {
            name: $name,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/ptx/sm_80/", $name, ".ptx")),
            #[cfg(not(any(feature = "cuda", feature = "emulator")))]
            text: "",
        };
        &MODULE
    }};
}
pub(crate) use ptx;

/// A launch in the making.
pub struct Call<'a> {
    device: &'a Device,
    module: &'static Module,
    symbol: &'static str,
    params: Vec<u8>,
    block: [u32; 3],
    smem_bytes: usize,
    /// A size that no parameter of 32 bits can tell.
    beyond: Option<usize>,
}

impl<'a> Call<'a> {
    pub(super) fn new(device: &'a Device, symbol: &'static str, module: &'static Module) -> Call<'a> {
        let params = Vec::with_capacity(256);
        Call { device, module, symbol, params, block: [256, 1, 1], smem_bytes: 0, beyond: None }
    }

    /// A function of the module other than the one that the kernel is named after.
    pub fn entry(self, symbol: &'static str) -> Call<'a> {
        Call { symbol, ..self }
    }

    /// Appends a parameter at a multiple of its size.
    fn push(mut self, bytes: &[u8]) -> Call<'a> {
        let at = self.params.len().next_multiple_of(bytes.len());
        self.params.resize(at, 0);
        self.params.extend_from_slice(bytes);
        self
    }

    /// The next parameter: a size, of 32 bits.
    pub fn param(mut self, value: usize) -> Call<'a> {
        let word = u32::try_from(value).unwrap_or_else(|_| {
            self.beyond = Some(value);
            u32::MAX
        });
        self.push(&word.to_ne_bytes())
    }

    /// Several, also those of a struct or an array of `u32`.
    pub fn params(self, values: &[usize]) -> Call<'a> {
        values.iter().fold(self, |call, &v| call.param(v))
    }

    /// The next three: a number that indices are divided by (`Divisor` of `kernels/common/divide.cuh`), 1 to 2^31. The quotient
    /// of n is `n · factor / 2^shift` with `factor = ⌈2^shift / by⌉` and `shift = 31 + ⌈log2 by⌉`, exactly for n below 2^31.
    pub fn divisor(self, by: usize) -> Call<'a> {
        let shift = 31 + by.max(1).next_power_of_two().ilog2();
        self.params(&[by, (1usize << shift).div_ceil(by.max(1)), shift as usize])
    }

    /// The next parameter: a number with a sign, of 32 bits.
    pub fn param_i32(self, value: isize) -> Call<'a> {
        match i32::try_from(value) {
            Ok(value) => self.push(&value.to_ne_bytes()),
            Err(_) => self.param(usize::MAX),
        }
    }

    /// The next parameter: an offset or a stride that may be beyond 32 bits.
    pub fn param_u64(self, value: usize) -> Call<'a> {
        self.push(&(value as u64).to_ne_bytes())
    }

    /// The next parameter: a float.
    pub fn param_f32(self, value: f32) -> Call<'a> {
        self.push(&value.to_ne_bytes())
    }

    /// The next parameter: the code of a dtype.
    pub fn dtype(self, dtype: DType) -> Call<'a> {
        self.param(dtype.code() as usize)
    }

    /// The next parameter: a pointer, 0 for none.
    pub fn pointer(self, address: u64) -> Call<'a> {
        self.push(&address.to_ne_bytes())
    }

    /// The last two parameters: where indexes out of range are reported (`Faults *`) and, as a `u32`, for which op. The
    /// error comes with the next read or synchronise.
    pub fn faults(self, op: &'static str) -> Call<'a> {
        let (address, code) = self.device.fault_report(op);
        self.pointer(address).param(code as usize)
    }

    /// Threads of a block.
    pub fn block(self, threads: usize) -> Call<'a> {
        self.block_2d([threads, 1])
    }

    /// Threads of a block along x and y.
    pub fn block_2d(self, [x, y]: [usize; 2]) -> Call<'a> {
        Call { block: [x as u32, y as u32, 1], ..self }
    }

    /// Bytes of dynamic shared memory.
    pub fn smem(self, bytes: usize) -> Call<'a> {
        Call { smem_bytes: bytes, ..self }
    }

    /// Launches so many blocks along x; nothing where the number is 0.
    ///
    /// # Errors
    /// As [`launch_grid`](Call::launch_grid).
    pub fn launch(self, blocks: usize) -> Result<()> {
        self.launch_grid([blocks, 1, 1])
    }

    /// Launches a grid; nothing where one of the numbers is 0.
    ///
    /// # Errors
    /// The module does not compile, the launch is beyond what the device or the function takes, or the device was lost.
    pub fn launch_grid(self, grid: [usize; 3]) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let most = [i32::MAX as usize, 65535, 65535];
        let over = grid.iter().zip(most).find(|&(n, most)| *n > most).map(|(&n, most)| (n, most));
        if let Some((n, most)) = self.beyond.map(|n| (n, u32::MAX as usize)).or(over) {
            let why = format!("{}: a size of {n} is beyond {most}; use a smaller problem", self.symbol);
            return Err(self.device.failed(&why));
        }
        let config = Config { grid: grid.map(|n| n as u32), block: self.block, smem_bytes: self.smem_bytes as u32 };
        self.device.run(self.module, self.symbol, &config, &self.params)
    }
}

/// The address of an operand's first element.
fn address(arg: &Arg<'_, Cuda>) -> u64 {
    arg.buffer.address() + (arg.layout.offset * arg.dtype.bytes()) as u64
}

impl<'a> Launch<'a, Cuda> {
    /// Begins a launch of the kernel of this name, which is a function of that module.
    pub fn call(&self, name: &'static str, module: &'static Module) -> Call<'a> {
        Call::new(self.device, name, module)
    }

    /// The address of operand `i`'s first element, 0 if it is absent.
    pub fn input(&self, i: usize) -> u64 {
        self.inputs[i].as_ref().map_or(0, address)
    }

    /// The address of operand `i`, rows of quantised blocks, which kernels read in words of what a block's size is a multiple of.
    ///
    /// # Errors
    /// The operand is a part of other memory and begins elsewhere.
    pub fn blocks(&self, i: usize, quant: Quant) -> Result<u64> {
        let at = self.input(i);
        let word = 1u64 << quant.block_bytes().trailing_zeros().min(4);
        if at.is_multiple_of(word) {
            return Ok(at);
        }
        let why = format!("blocks of {} must begin at a multiple of {word} bytes; copy them first", quant.name());
        Err(self.device.failed(&why))
    }

    /// The address of result `i`'s first element, 0 if it is absent.
    pub fn output(&self, i: usize) -> u64 {
        self.outputs[i].as_ref().map_or(0, address)
    }

    /// The address of the workspace, 0 if there is none.
    pub fn scratch(&self) -> u64 {
        self.workspace.as_ref().map_or(0, address)
    }

    /// Whether operand `i` is absent, or each of its rows begins at a multiple of 16 bytes and its last dimension is dense.
    pub fn in_vectors(&self, i: usize) -> bool {
        self.inputs[i].as_ref().is_none_or(in_vectors)
    }

    /// The same of result `i`.
    pub fn out_in_vectors(&self, i: usize) -> bool {
        self.outputs[i].as_ref().is_none_or(in_vectors)
    }

    /// Writes words into the workspace, from byte `at` on: for tables that the host makes.
    ///
    /// # Errors
    /// The device was lost.
    pub fn upload_scratch(&self, at: usize, words: &[u32]) -> Result<()> {
        let Some(arg) = &self.workspace else { return Ok(()) };
        self.device.upload(arg.buffer, at, bytemuck::cast_slice(words))
    }
}

fn in_vectors(arg: &Arg<'_, Cuda>) -> bool {
    let (layout, bytes) = (&arg.layout, arg.dtype.bytes());
    let long = |d: &usize| layout.shape[*d] > 1;
    // Dimensions of one element, as those behind a reduced one, have any stride.
    let last = (0..layout.shape.len()).rev().find(long);
    let dense = last.is_none_or(|d| layout.strides[d] == 1);
    let mut rows = (0..last.unwrap_or(0)).filter(long);
    dense && (layout.offset * bytes).is_multiple_of(16) && rows.all(|d| (layout.strides[d] * bytes).is_multiple_of(16))
}
