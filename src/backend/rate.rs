//! Rates of a device by its own clock: what probes of GPUs share.

use super::Backend;
use crate::error::Result;

/// A measurement lasts at least this long.
const SECONDS: f64 = 5e-3;

/// The best rate of several runs, each of as many steps as make it long enough to be measured. `run` submits work of a number
/// of steps and tells its amount; the rate is in that unit per second.
///
/// # Errors
/// Those of `run`, and those of the device.
pub fn best<B: Backend>(device: &B::Device, mut run: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
    let mut timed = |steps: usize| -> Result<(f64, f64)> {
        let began = B::stamp(device)?;
        let work = run(steps)?;
        Ok((B::seconds(device, &began, &B::stamp(device)?)?, work))
    };
    let mut steps = 1;
    timed(steps)?;
    while steps < 1 << 20 && timed(steps)?.0 < SECONDS {
        steps *= 2;
    }
    (0..5).try_fold(0.0, |best: f64, _| {
        let (seconds, work) = timed(steps)?;
        Ok(best.max(work / seconds.max(1e-9)))
    })
}
