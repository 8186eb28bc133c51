//! CUDA: embedded PTX through the driver, or through the emulator.
//!
//! A frame: the types exist, so that ops have their (empty) kernel tables and nothing else says `cfg`; no device can be
//! opened yet, which the uninhabited device type states.

use super::Backend;
use crate::error::Result;

/// The backend.
pub enum Cuda {}

/// No value of it exists yet.
#[derive(Clone)]
pub enum Device {}

/// Memory of a [`Device`].
pub enum Buffer {}

/// What kernels are chosen by.
pub enum Caps {}

impl Backend for Cuda {
    const NAME: &'static str = "cuda";
    type Device = Device;
    type Buffer = Buffer;
    type Caps = Caps;
    type Stamp = Device;

    fn caps(device: &Device) -> &Caps {
        match *device {}
    }
    fn alloc(device: &Device, _: usize) -> Result<Buffer> {
        match *device {}
    }
    fn upload(device: &Device, _: &Buffer, _: usize, _: &[u8]) -> Result<()> {
        match *device {}
    }
    fn download(device: &Device, _: &Buffer, _: usize, _: &mut [u8]) -> Result<()> {
        match *device {}
    }
    fn synchronise(device: &Device) -> Result<()> {
        match *device {}
    }
    fn stamp(device: &Device) -> Result<Device> {
        match *device {}
    }
    fn seconds(device: &Device, _: &Device, _: &Device) -> Result<f64> {
        match *device {}
    }
}
