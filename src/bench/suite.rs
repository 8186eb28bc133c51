//! Timing a problem whose output was checked.

use super::check::{Expected, Verdict, check};
use super::operands::{Arrangement, Call, Operands};
use super::peaks::{Bound, Peaks, Products};
use super::timing::{Stop, Timing, time};
use crate::autograd;
use crate::cost::Cost;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{AnyOp, Results};
use crate::tensor::Tensor;
use serde_json::{Value, json};

/// How to bench.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    pub stop: Stop,
    /// A kernel by name instead of the one that selection picks.
    pub row: Option<&'a str>,
}

/// One timed problem.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The name shared with other libraries' benches, or nothing.
    pub case: &'static str,
    /// The call as text.
    pub problem: String,
    /// The kernel that ran.
    pub kernel: &'static str,
    /// What the call [goes by](Call::dtype).
    pub dtype: &'static str,
    pub cost: Cost,
    pub timing: Timing,
    pub bound: Bound,
    pub verdict: Verdict,
    /// Whether operands came out of no cache.
    pub cold: bool,
}

impl Measured {
    /// Floating-point operations per second at the median.
    pub fn flops_per_second(&self) -> f64 {
        self.cost.flops as f64 / self.timing.median
    }

    /// Bytes per second at the median.
    pub fn bytes_per_second(&self) -> f64 {
        self.cost.bytes() as f64 / self.timing.median
    }

    /// The share of the measured limit that was reached. Above 1 is a finding about the limit, and shown as it is.
    pub fn of_peak(&self) -> f64 {
        self.bound.seconds / self.timing.median
    }

    /// The line that benches of other libraries print too, with more keys.
    pub fn json(&self, threads: usize) -> Value {
        let t = &self.timing;
        let case = if self.case.is_empty() { self.problem.as_str() } else { self.case };
        json!({
            "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"), "case": case, "threads": threads,
            "dtype": self.dtype, "median_s": t.median, "min_s": t.min, "p10_s": t.p10, "p90_s": t.p90,
            "runs": t.runs, "cpu_s": t.cpu, "gflops": self.cost.flops as f64 / t.min / 1e9,
            "gbs": self.cost.bytes() as f64 / t.min / 1e9, "problem": self.problem, "kernel": self.kernel,
            "percent_of_peak": 100.0 * self.of_peak(), "bound": self.bound.by, "error": self.verdict.error,
            "allowed": self.verdict.allowed, "passed": self.verdict.passed(), "cache": if self.cold { "cold" } else { "warm" },
        })
    }
}

/// Checks a call's output, then times it.
///
/// # Errors
/// No kernel takes it, memory is short, or the output is wrong ([`Error::Wrong`]): a wrong kernel is not timed.
pub fn bench(call: &Call, device: &Device, peaks: &Peaks, options: Options<'_>) -> Result<Measured> {
    let _pause = autograd::no_grad();
    let kernel = call.kernel(device, options.row)?;
    let problem = &*call.problem;
    let operands = Operands::random(problem, device, 1, &call.arrangement)?;
    // Of two problems the second runs with the kernel that is named.
    let row = options.row.filter(|_| call.then.is_none());
    let mut verdict = check(problem, device, row, &operands, &Expected::new(problem, &operands.values))?;
    let then = call.then.as_deref().map(|then| Then::new(then, device)).transpose()?;
    if let (None, Some(then)) = (&verdict.failure, &then) {
        verdict = then.check(device, options.row)?;
    }
    let text = call.text()?;
    if let Some(why) = verdict.failure {
        return Err(Error::Wrong { problem: text, kernel: kernel.into(), why });
    }
    let inputs = operands.refs();
    // Results in place are updated over and over.
    let mut targets = operands.targets(problem, device)?;
    let timing = time(device, options.stop, || match (&mut targets, &then) {
        (Some(targets), _) => operands.run_into(problem, device, row, targets),
        (None, Some(then)) => then.run(problem.run(device, row, &inputs)?, device, options.row),
        (None, None) => problem.run(device, row, &inputs).map(drop),
    })?;
    let cost = then.as_ref().map_or(problem.cost(), |then| then.cost_after(problem.cost()));
    Ok(Measured {
        case: call.case,
        problem: text,
        kernel,
        dtype: call.dtype(),
        cost,
        timing,
        bound: peaks.bound(cost, Products::of(call.then.as_deref().unwrap_or(problem))),
        verdict,
        cold: options.stop.cold,
    })
}

/// The second of two problems.
struct Then<'a> {
    problem: &'a dyn AnyOp,
    /// The first is what it is checked on; in the timed call the first problem's result takes its place.
    operands: Operands,
}

impl<'a> Then<'a> {
    fn new(problem: &'a dyn AnyOp, device: &Device) -> Result<Then<'a>> {
        Ok(Then { problem, operands: Operands::random(problem, device, 2, &Arrangement::Contiguous)? })
    }

    fn check(&self, device: &Device, row: Option<&str>) -> Result<Verdict> {
        check(self.problem, device, row, &self.operands, &Expected::new(self.problem, &self.operands.values))
    }

    fn run(&self, [first, ..]: Results, device: &Device, row: Option<&str>) -> Result<()> {
        let mut inputs = self.operands.refs();
        let shape = inputs[0].map_or(&[] as &[usize], Tensor::shape);
        let first = first.map(|first| first.reshape(shape)).transpose()?;
        inputs[0] = first.as_ref();
        self.problem.run(device, row, &inputs).map(drop)
    }

    /// Of both: what the first hands to the second need not be written or read.
    fn cost_after(&self, first: Cost) -> Cost {
        let own = self.problem.cost();
        let between = self.problem.inputs()[0].map_or(0, |o| o.bytes());
        Cost {
            flops: first.flops + own.flops,
            bytes_read: first.bytes_read + own.bytes_read - between,
            bytes_written: own.bytes_written,
        }
    }
}
