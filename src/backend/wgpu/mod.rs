//! WebGPU through the `wgpu` crate (Vulkan, Metal, DirectX 12).
//!
//! Work is recorded into one command encoder and submitted when somebody reads, when much was recorded, or at a
//! synchronise. Everything that touches memory goes through that encoder, uploads too, so that memory can be given to the
//! next tensor as soon as one is dropped: the queue's order keeps them apart.
//!
//! | file | what |
//! |---|---|
//! | `shader` | the sources under `shaders/`, embedded, and what every shader may include |
//! | `launch` | what a kernel says to be run: constants, bindings, parameters, workgroups |
//! | `probe` | what an adapter can do at most |
//! | `device` | adapters, pipelines, errors |
//! | `queue` | the encoder, uploads, readback, the clock |
//! | `memory` | buffers and the pool that they return to |
//! | `none` | in place of the three above without feature `wgpu`: a device that cannot exist |

mod launch;
pub mod probe;
pub mod shader;

#[cfg(feature = "wgpu")]
mod device;
#[cfg(feature = "wgpu")]
mod memory;
#[cfg(feature = "wgpu")]
mod queue;
#[cfg(feature = "wgpu")]
pub use {device::Device, memory::Buffer, queue::Stamp};

#[cfg(not(feature = "wgpu"))]
mod none;
#[cfg(not(feature = "wgpu"))]
pub use none::{Buffer, Device, Stamp};

pub use launch::{Bind, Call, Columns};

use super::Backend;
use crate::error::{Result, Unsupported};

/// The backend.
pub enum Wgpu {}

/// What kernels are chosen by: the adapter's limits and the features that were switched on.
#[derive(Clone, Debug)]
pub struct Caps {
    /// `shader-f16`: arithmetic and storage of f16.
    pub f16: bool,
    /// Operations over the invocations of a subgroup.
    pub subgroups: bool,
    /// The least and the largest number of invocations in a subgroup; equal on most adapters.
    pub subgroup_size: [u32; 2],
    /// Cooperative matrices of 16x16x16 f16, accumulated in f32.
    pub matrix_f16: bool,
    /// Whether kernels are timed by the adapter's own clock.
    pub timestamps: bool,
    /// A driver that runs shaders on the CPU.
    pub software: bool,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Bytes of a workgroup's own memory.
    pub workgroup_bytes: u32,
    /// Workgroups along a dimension of a dispatch.
    pub workgroups: u32,
    /// Storage buffers that a shader can see.
    pub bindings: u32,
    /// Bytes that one binding can reach; kernels that take larger weights go over them in ranges.
    pub binding_bytes: u64,
    /// Bytes of a buffer.
    pub buffer_bytes: u64,
    /// What a binding's first byte must be a multiple of.
    pub binding_alignment: u32,
}

impl Caps {
    /// `Ok` where shaders may use subgroup operations.
    pub fn needs_subgroups(&self) -> Result<(), Unsupported> {
        Unsupported::require("subgroup operations", self.subgroups)
    }
}

/// Invocations for a row of `cols` elements in kernels with `common/rows.wgsl`: a power of two from 32 to 256.
pub fn row_lanes(cols: usize) -> u32 {
    (cols as u32).clamp(32, 256).next_power_of_two()
}

/// The length of the segments that each of `rows` runs of `len` elements is cut into, so that there are workgroups for a
/// whole adapter: a multiple of four, and at least `least`, which is one.
pub fn segment(len: usize, least: usize, rows: usize) -> usize {
    const WORKGROUPS: usize = 1024;
    len.div_ceil((WORKGROUPS / rows.max(1)).max(1)).next_multiple_of(4).max(least)
}

/// As [`segment`], of at least 4096 elements: the length and the number of the segments of a run.
pub fn segments(len: usize, rows: usize) -> (usize, usize) {
    let segment = segment(len, 4096, rows);
    (segment, len.div_ceil(segment))
}

impl Backend for Wgpu {
    const NAME: &'static str = "wgpu";
    type Device = Device;
    type Buffer = Buffer;
    type Caps = Caps;
    type Stamp = Stamp;

    fn caps(device: &Device) -> &Caps {
        device.caps()
    }
    fn alloc(device: &Device, bytes: usize) -> Result<Buffer> {
        device.alloc(bytes)
    }
    fn upload(device: &Device, to: &Buffer, at: usize, from: &[u8]) -> Result<()> {
        device.upload(to, at, from)
    }
    fn clear(device: &Device, buffer: &Buffer, at: usize, bytes: usize) -> Result<()> {
        device.clear(buffer, at, bytes)
    }
    fn download(device: &Device, from: &Buffer, at: usize, to: &mut [u8]) -> Result<()> {
        device.download(from, at, to)
    }
    fn synchronise(device: &Device) -> Result<()> {
        device.synchronise()
    }
    fn stamp(device: &Device) -> Result<Stamp> {
        device.stamp()
    }
    fn seconds(device: &Device, from: &Stamp, to: &Stamp) -> Result<f64> {
        device.seconds(from, to)
    }
}
