//! What a device can do at most, measured by its own clock: `kernels/probe.cu`.

use super::launch::ptx;
use super::{Call, Cuda, Device};
use crate::backend::rate::best;
use crate::error::Result;

/// Threads of a block of the probes.
const BLOCK: usize = 256;

/// f32 multiply-adds, floating-point operations per second.
///
/// # Errors
/// The device fails.
pub fn fma_flops(device: &Device) -> Result<f64> {
    // Sixteen rounds of eight chains.
    flops(device, "probe_fma", BLOCK * 16 * 8 * 2)
}

/// Products of bf16 matrices into f32, by `mma.sync`, floating-point operations per second.
///
/// # Errors
/// The device fails.
pub fn bf16_flops(device: &Device) -> Result<f64> {
    flops(device, "probe_mma_bf16", MATRIX_FLOPS)
}

/// The same of f16.
///
/// # Errors
/// The device fails.
pub fn f16_flops(device: &Device) -> Result<f64> {
    flops(device, "probe_mma_f16", MATRIX_FLOPS)
}

/// Of a block and step: four rounds of eight products of 16 x 8 x 16 in each warp.
const MATRIX_FLOPS: usize = BLOCK / 32 * 4 * 8 * 2 * 16 * 8 * 16;

/// Bytes per second of reading a buffer of `bytes` over and over.
///
/// # Errors
/// The device fails.
pub fn read_bytes_per_second(device: &Device, bytes: usize) -> Result<f64> {
    let vectors = bytes / 16;
    let (from, out) = (device.alloc(vectors * 16)?, device.alloc(blocks(device) * BLOCK * 4)?);
    best::<Cuda>(device, |steps| {
        let call = Call::new(device, "probe_read", ptx!("probe")).pointer(from.address()).pointer(out.address());
        call.params(&[steps, vectors]).block(BLOCK).launch(blocks(device))?;
        Ok((steps * vectors * 16) as f64)
    })
}

/// Blocks that fill a device, and of the emulator a few.
fn blocks(device: &Device) -> usize {
    if device.caps().emulated { 2 } else { 8 * device.caps().multiprocessors as usize }
}

fn flops(device: &Device, symbol: &'static str, of_block_and_step: usize) -> Result<f64> {
    let out = device.alloc(blocks(device) * BLOCK * 4)?;
    best::<Cuda>(device, |steps| {
        let call = Call::new(device, symbol, ptx!("probe")).pointer(out.address());
        call.param(steps).block(BLOCK).launch(blocks(device))?;
        Ok((steps * blocks(device) * of_block_and_step) as f64)
    })
}
