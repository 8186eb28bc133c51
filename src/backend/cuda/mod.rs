//! CUDA: embedded PTX through the driver, or through the emulator where there is no GPU.
//!
//! One stream per device: work runs in the order in which it was handed over, and memory is given to the next tensor as soon
//! as one is dropped.
//!
//! | file | what |
//! |---|---|
//! | `driver` | what a driver can do |
//! | `cudarc` | the system's driver, looked for when a device is opened (feature `cuda`) |
//! | `emulator` | an interpreter of PTX that checks and counts what kernels do (feature `emulator`) |
//! | `launch` | what a kernel says to be run: parameters, grid, block, shared memory |
//! | `rows` | how rows are given to teams of threads |
//! | `probe` | what a device can do at most |
//! | `device` | a driver with the functions that were loaded, and the report of bad indexes |

mod device;
pub mod driver;
mod launch;
pub mod probe;
mod rows;

#[cfg(feature = "cuda")]
mod cudarc;
#[cfg(feature = "emulator")]
pub mod emulator;

pub use device::{Buffer, Device, Recording, Stamp};
pub use driver::Caps;
pub(crate) use launch::ptx;
pub use launch::{Call, Module};
pub(crate) use rows::float_rows;
pub use rows::{Columns, Team, segment};

use super::Backend;
use crate::error::Result;

/// The backend.
pub enum Cuda {}

impl Backend for Cuda {
    const NAME: &'static str = "cuda";
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
