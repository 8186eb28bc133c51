//! Timing with a stopping rule.

use crate::device::Device;
use crate::dtype::{DType, Format};
use crate::error::Result;
use crate::layout::Shape;
use crate::tensor::Tensor;
use std::time::{Duration, Instant};

/// When a measurement ends: once the median is known well enough, or the time is spent.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// At least this many runs.
    pub min_runs: usize,
    /// Ends when half the distance from the 10th to the 90th percentile, divided by the median and by the root of the
    /// number of runs, is below this.
    pub relative_deviation: f64,
    /// Ends after this much time all the same.
    pub budget: Duration,
    /// Before each run other memory is written, so that operands come out of no cache.
    pub cold: bool,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { min_runs: 5, relative_deviation: 0.005, budget: Duration::from_secs(1), cold: false }
    }
}

/// Seconds of one run, over many.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub median: f64,
    pub p10: f64,
    pub p90: f64,
    pub min: f64,
    pub runs: usize,
    /// The least processor time of a run, all threads together, of a device that is the processor, where the system tells
    /// it.
    pub cpu: Option<f64>,
}

/// Runs shorter than this are repeated inside one sample, so that the clock's own cost vanishes.
const SAMPLE_SECONDS: f64 = 2e-4;

/// What is written before a cold run: more than any cache holds.
const FLUSH_BYTES: usize = 256 << 20;

/// Times `work` by the device's clock, after two calls to warm up. The work only has to be submitted.
///
/// # Errors
/// Those of `work`, and those of the device.
pub fn time(device: &Device, stop: Stop, mut work: impl FnMut() -> Result<()>) -> Result<Timing> {
    work()?;
    let once = device.seconds_of(&mut work)?;
    let flush =
        stop.cold.then(|| Tensor::empty(device, DType::U8, Format::Plain, Shape::of(&[FLUSH_BYTES]))).transpose()?;
    let inner = if stop.cold { 1 } else { ((SAMPLE_SECONDS / once.max(1e-9)) as usize).clamp(1, 10_000) };
    let began = Instant::now();
    let mut samples: Vec<f64> = Vec::new();
    let mut cpu = f64::INFINITY;
    let counts_cpu = device.as_cpu().is_some();
    loop {
        if let Some(flush) = &flush {
            flush.storage().clear(0, FLUSH_BYTES)?;
        }
        let before = cpu_seconds();
        let seconds = device.seconds_of(|| (0..inner).try_for_each(|_| work()))?;
        samples.push(seconds / inner as f64);
        if let (true, Some(before), Some(after)) = (counts_cpu, before, cpu_seconds()) {
            cpu = cpu.min((after - before) / inner as f64);
        }
        let spent = began.elapsed();
        if samples.len() >= stop.min_runs && (spent >= stop.budget || deviation(&samples) <= stop.relative_deviation) {
            break;
        }
        if spent >= 4 * stop.budget {
            break;
        }
    }
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| samples[((samples.len() - 1) as f64 * q).round() as usize];
    let cpu = cpu.is_finite().then_some(cpu);
    Ok(Timing { median: at(0.5), p10: at(0.1), p90: at(0.9), min: samples[0], runs: samples.len() * inner, cpu })
}

fn deviation(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
    (at(0.9) - at(0.1)) / 2.0 / at(0.5) / (samples.len() as f64).sqrt()
}

/// The most memory of the process that was resident at a time, pages of mapped files included, since it began or the last
/// [`reset_peak_rss`]; from Linux, `None` elsewhere.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Makes what is resident now the most, so that the next peak is that of what follows. Whether the system could.
pub fn reset_peak_rss() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Processor time of all threads of the process so far; `None` where the system has no clock for it.
fn cpu_seconds() -> Option<f64> {
    #[cfg(all(unix, feature = "cli"))]
    {
        use rustix::time::{ClockId, clock_gettime};
        let now = clock_gettime(ClockId::ProcessCPUTime);
        Some(now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(all(unix, feature = "cli")))]
    None
}
