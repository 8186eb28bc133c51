//! What an adapter can do at most, measured by its own clock: chains of multiply-adds, and streams of reads.

use super::shader::{Shader, shader};
use super::{Bind, Buffer, Call, Device, Wgpu};
use crate::backend::rate::best;
use crate::error::Result;

/// Invocations of a workgroup of `probe.wgsl`.
const WORKGROUP: usize = 256;
/// Workgroups: enough for every multiprocessor of a large adapter several times over.
const WORKGROUPS: usize = 2048;
/// Of a driver that runs shaders on the CPU.
const SOFTWARE_WORKGROUPS: usize = 16;

/// f32 multiply-adds, floating-point operations per second.
///
/// # Errors
/// The device fails.
pub fn fma_flops(device: &Device) -> Result<f64> {
    // Sixteen rounds of eight chains of vectors of four.
    rate(device, shader!("probe"), "fma_chains", |workgroups, steps| {
        (workgroups * WORKGROUP * steps * 16 * 8 * 4 * 2) as f64
    })
}

/// Multiply-adds of 16x16x16 matrices of f16 into f32, floating-point operations per second, if the adapter has them.
///
/// # Errors
/// The device fails.
pub fn matrix_f16_flops(device: &Device) -> Result<Option<f64>> {
    if !device.caps().matrix_f16 {
        return Ok(None);
    }
    let shader = shader!(enable "f16", enable "wgpu_cooperative_matrix", "probe_matrix");
    // A workgroup is one subgroup, with four chains.
    let rate = rate(device, shader, "main", |workgroups, steps| (workgroups * steps * 4 * 2 * 16 * 16 * 16) as f64)?;
    Ok(Some(rate))
}

/// Bytes per second of reading a buffer of `bytes` over and over.
///
/// # Errors
/// The device fails.
pub fn read_bytes_per_second(device: &Device, bytes: usize) -> Result<f64> {
    let vectors = bytes / 16;
    let buffer = device.alloc(vectors * 16)?;
    let out = device.alloc(workgroups(device) * WORKGROUP * 4)?;
    best::<Wgpu>(device, |steps| {
        let call =
            Call::new(device, "probe", shader!("probe")).entry("stream").bind(Bind::words(&buffer, vectors * 4, false));
        call.bind(Bind::words(&out, workgroups(device) * WORKGROUP, true)).params(&[steps, vectors]).dispatch([
            workgroups(device),
            1,
            1,
        ])?;
        Ok((steps * vectors * 16) as f64)
    })
}

fn workgroups(device: &Device) -> usize {
    if device.caps().software { SOFTWARE_WORKGROUPS } else { WORKGROUPS }
}

/// Operations per second of a function of a shader that takes a number of steps.
fn rate(
    device: &Device,
    shader: &'static Shader,
    entry: &'static str,
    work: impl Fn(usize, usize) -> f64,
) -> Result<f64> {
    let workgroups = workgroups(device);
    let elements = workgroups * WORKGROUP;
    let out: Buffer = device.alloc(elements * 4)?;
    best::<Wgpu>(device, |steps| {
        let call = Call::new(device, "probe", shader).entry(entry).bind(Bind::words(&out, elements, true));
        call.params(&[steps]).dispatch([workgroups, 1, 1])?;
        Ok(work(workgroups, steps))
    })
}
