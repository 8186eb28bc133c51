//! How memory is had and work is submitted. Nothing here is named after an op.

pub mod cpu;
pub mod cuda;
mod rate;
pub mod wgpu;

use crate::cost::Cost;
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::{Layout, Takes};

/// The most operands of an op.
pub const MAX_IN: usize = 12;
/// The most results of an op.
pub const MAX_OUT: usize = 4;

/// A place where kernels run: its memory, what it can do, and its clock.
pub trait Backend: Sized + 'static {
    /// As the command line has it: `cpu`, `wgpu`, `cuda`.
    const NAME: &'static str;
    /// A handle to one device; clones share it.
    type Device: Clone + Send + Sync + 'static;
    /// Memory on the device, given back when dropped.
    type Buffer: Send + Sync + 'static;
    /// What kernels are chosen by.
    type Caps: 'static;
    /// A moment in the device's queue.
    type Stamp: Send + 'static;

    fn caps(device: &Self::Device) -> &Self::Caps;
    /// Memory for `bytes` bytes, holding no secrets of the system (zeros, or values of tensors freed before).
    fn alloc(device: &Self::Device, bytes: usize) -> Result<Self::Buffer>;
    /// Copies `from` to byte `at` of `to`; returns when `from` may be reused.
    fn upload(device: &Self::Device, to: &Self::Buffer, at: usize, from: &[u8]) -> Result<()>;
    /// Writes zeros from byte `at` on. The default uploads them in pieces, which needs no memory of their size.
    fn clear(device: &Self::Device, buffer: &Self::Buffer, at: usize, bytes: usize) -> Result<()> {
        let zeros = [0u8; 4096];
        (at..at + bytes).step_by(zeros.len()).try_for_each(|from| {
            let size = zeros.len().min(at + bytes - from);
            Self::upload(device, buffer, from, &zeros[..size])
        })
    }
    /// Copies from byte `at` of `from`, after all work submitted before.
    fn download(device: &Self::Device, from: &Self::Buffer, at: usize, to: &mut [u8]) -> Result<()>;
    /// Waits until everything submitted has run.
    fn synchronise(device: &Self::Device) -> Result<()>;
    /// Marks this place in the queue.
    fn stamp(device: &Self::Device) -> Result<Self::Stamp>;
    /// The seconds between two marks.
    fn seconds(device: &Self::Device, from: &Self::Stamp, to: &Self::Stamp) -> Result<f64>;
}

/// The kernels that a backend has for an op, in order of preference. An empty table says: none yet.
pub trait Kernels<B: Backend>: Sized + 'static {
    const KERNELS: &'static [Kernel<B, Self>];
}

/// The launch function of a row.
pub type LaunchFn<B, O> = fn(&Kernel<B, O>, &O, &mut Launch<'_, B>) -> Result<()>;

/// What a kernel's `supports` says that takes every problem.
pub fn always<O, C>(_: &O, _: &C) -> Result<(), Unsupported> {
    Ok(())
}

/// One kernel: a row of an op's table. Pure data.
pub struct Kernel<B: Backend, O: 'static> {
    /// `{op}_{dtype}[_{spec}]__{isa|arch}[_{tunables}]`: GPU symbol, pipeline label and catalog name.
    pub name: &'static str,
    /// Tile sizes and the like, by name.
    pub tunables: &'static [(&'static str, u32)],
    /// The layouts accepted, per operand; those not listed must be contiguous.
    pub takes: &'static [Takes],
    /// CAN it: `check` and `tune` run every row that can.
    pub supports: fn(&O, &B::Caps) -> Result<(), Unsupported>,
    /// SHOULD it: selection takes the first row that can and suits, else the first that can.
    pub suits: fn(&O, &B::Caps) -> bool,
    /// Bytes of scratch memory.
    pub workspace: fn(&O, &B::Caps) -> usize,
    /// Submits the work.
    pub launch: LaunchFn<B, O>,
}

impl<B: Backend, O: 'static> Kernel<B, O> {
    /// A row that takes contiguous operands, always suits and needs no workspace.
    pub const fn new(
        name: &'static str,
        supports: fn(&O, &B::Caps) -> Result<(), Unsupported>,
        launch: LaunchFn<B, O>,
    ) -> Self {
        Kernel { name, tunables: &[], takes: &[], supports, suits: |_, _| true, workspace: |_, _| 0, launch }
    }

    pub const fn takes(self, takes: &'static [Takes]) -> Self {
        Kernel { takes, ..self }
    }

    pub const fn tunables(self, tunables: &'static [(&'static str, u32)]) -> Self {
        Kernel { tunables, ..self }
    }

    pub const fn suits(self, suits: fn(&O, &B::Caps) -> bool) -> Self {
        Kernel { suits, ..self }
    }

    pub const fn workspace(self, workspace: fn(&O, &B::Caps) -> usize) -> Self {
        Kernel { workspace, ..self }
    }

    /// Whether operand `i` may lie as `layout` says.
    pub fn takes_layout(&self, i: usize, layout: &Layout) -> Result<(), Unsupported> {
        self.takes.get(i).copied().unwrap_or_default().check(layout)
    }
}

/// One operand or result of a launch.
pub struct Arg<'a, B: Backend> {
    pub buffer: &'a B::Buffer,
    pub layout: Layout,
    pub dtype: DType,
    /// Elements from `layout.offset` on that may be touched: the layout's span, or all of a packed format.
    pub elements: usize,
}

impl<B: Backend> Clone for Arg<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Backend> Copy for Arg<'_, B> {}

/// What a kernel is launched with: checked operands and results, in the op's order.
pub struct Launch<'a, B: Backend> {
    pub device: &'a B::Device,
    /// What the problem costs at least.
    pub cost: Cost,
    pub inputs: [Option<Arg<'a, B>>; MAX_IN],
    pub outputs: [Option<Arg<'a, B>>; MAX_OUT],
    pub workspace: Option<Arg<'a, B>>,
}

impl<B: Backend> Launch<'_, B> {
    /// The layout of an operand that is present.
    pub fn layout(&self, i: usize) -> &Layout {
        &self.inputs[i].as_ref().expect("run() has checked that the operand is there").layout
    }

    /// The distance of the rows of operand `i` [rows, cols]; 0 if it is absent.
    pub fn row_stride(&self, i: usize) -> usize {
        self.inputs[i].as_ref().map_or(0, |arg| arg.layout.strides[0])
    }
}
