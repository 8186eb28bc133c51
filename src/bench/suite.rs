//! Choosing cases and timing them.

use super::check::{Expected, Verdict, check};
use super::operands::{Arrangement, Operands};
use super::peaks::{Bound, Peaks, is_narrow};
use super::timing::{Stop, Timing, time};
use crate::autograd;
use crate::cost::Cost;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{AnyCase, AnyOp, CATALOG, Class, Row};
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
    /// Of the first operand.
    pub dtype: DType,
    pub cost: Cost,
    pub timing: Timing,
    pub bound: Bound,
    pub verdict: Verdict,
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
        json!({
            "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"), "case": self.case, "threads": threads,
            "dtype": self.dtype.name(), "median_s": t.median, "min_s": t.min, "p10_s": t.p10, "p90_s": t.p90,
            "runs": t.runs, "cpu_s": t.cpu, "gflops": self.cost.flops as f64 / t.min / 1e9,
            "gbs": self.cost.bytes() as f64 / t.min / 1e9, "problem": self.problem, "kernel": self.kernel,
            "percent_of_peak": 100.0 * self.of_peak(), "bound": self.bound.by, "error": self.verdict.error,
            "allowed": self.verdict.allowed, "passed": self.verdict.passed(), "cache": "warm",
        })
    }
}

/// Checks a problem's output, then times it.
///
/// # Errors
/// No kernel takes it, memory is short, or the output is wrong: a wrong kernel is not timed.
pub fn bench(
    case: &'static str,
    problem: &dyn AnyOp,
    arrangement: &Arrangement,
    device: &Device,
    peaks: &Peaks,
    options: Options<'_>,
) -> Result<Measured> {
    let _pause = autograd::no_grad();
    let operands = Operands::random(problem, device, 1, arrangement)?;
    let verdict = check(problem, device, options.row, &operands, &Expected::new(problem, &operands.values))?;
    let text = problem.call_text(&operands.layouts());
    if let Some(failure) = &verdict.failure {
        return Err(Error::Config(format!("{text}: not timed, its output is wrong: {failure}")));
    }
    let rows = problem.explain(device, &operands.layouts());
    let ran = |r: &&Row| options.row.map_or(r.selected, |name| name == r.name);
    let kernel = rows.iter().find(ran).map_or("(after a copy)", |r| r.name);
    let inputs = operands.refs();
    let timing = time(options.stop, || {
        problem.run(device, options.row, &inputs)?;
        device.synchronise()
    })?;
    let cost = problem.cost();
    Ok(Measured {
        case,
        problem: text,
        kernel,
        dtype: problem.inputs()[0].map_or(DType::F32, |o| o.dtype),
        cost,
        timing,
        bound: peaks.bound(cost, is_narrow(problem)),
        verdict,
    })
}

/// Cases of the catalog whose op or shared name contains one of the comma-separated words (all if there are none).
pub fn matching(words: &str, class: Option<Class>) -> Vec<AnyCase> {
    let words: Vec<&str> = words.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    let wanted = |text: &str| words.is_empty() || words.iter().any(|w| text.contains(w));
    let all = CATALOG.iter().flat_map(|entry| (entry.cases)());
    all.filter(|c| class.is_none_or(|k| k == c.class) && (wanted(c.problem.name()) || wanted(c.name))).collect()
}
