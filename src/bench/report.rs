//! Benches as lines of text: a table for people, JSON for programs. `lapidary bench` and `cargo bench` print these.

use super::operands::Call;
use super::peaks::Peaks;
use super::suite::{Measured, Options, bench};
use super::table::{Table, seconds};
use crate::device::Device;
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A table.
    Table,
    /// One object a line.
    Json,
}

/// A line of a report.
#[derive(Clone, Debug)]
pub enum Line {
    /// About the device; beside the results.
    Note(String),
    /// The limits, or the head of the table.
    Head(String),
    /// A measurement: one call is done.
    Row(String),
}

/// Checks and times calls on devices, and hands on each line once it is known. Returns what was wrong: those kernels
/// were not timed.
///
/// # Errors
/// A call cannot run at all, or those of `out`.
pub fn report(
    calls: &[Call],
    devices: &[Device],
    options: Options<'_>,
    style: Style,
    out: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<Vec<Error>> {
    let mut peaks = Vec::new();
    for device in devices {
        out(Line::Note(device.describe()))?;
        let measured = Peaks::measure(device)?;
        match style {
            Style::Table => out(Line::Head(measured.table()))?,
            Style::Json => measured.lines().into_iter().try_for_each(|l| out(Line::Head(l.to_string())))?,
        }
        peaks.push(measured);
    }
    let table = table(calls, devices, options)?;
    if style == Style::Table {
        out(Line::Head(String::new()))?;
        out(Line::Head(table.head()))?;
    }
    let mut wrong = Vec::new();
    for (device, peaks) in devices.iter().zip(&peaks) {
        for call in calls {
            let row = match (bench(call, device, peaks, options), style) {
                (Ok(m), Style::Table) => table.line(&cells(&m, peaks.threads)),
                (Ok(m), Style::Json) => m.json(peaks.threads).to_string(),
                (Err(e @ Error::Wrong { .. }), style) => {
                    let row = match style {
                        Style::Table => format!("not timed: {e}"),
                        Style::Json => failed(call, peaks.threads, &e).to_string(),
                    };
                    wrong.push(e);
                    row
                }
                (Err(e), _) => return Err(e),
            };
            out(Line::Row(row))?;
        }
    }
    Ok(wrong)
}

/// The columns. Names are known before anything is measured, so that lines can be printed as they come.
fn table(calls: &[Call], devices: &[Device], options: Options<'_>) -> Result<Table> {
    let titles = [
        "kernel",
        "problem",
        "dtype",
        ">threads",
        ">median",
        ">±%",
        ">GFLOP/s",
        ">GB/s",
        ">% of peak",
        "bound",
        ">error",
    ];
    let mut table = Table::new(&titles);
    for call in calls {
        let problem = if call.case.is_empty() { call.text()? } else { call.case.into() };
        for device in devices {
            let kernel = call.kernel(device, options.row)?;
            table.fit(&[kernel, &problem, "", "", "000.00 us", "00.0", "0000.0", "000.0", "", "bf16 dot", "0.0e-00"]);
        }
    }
    Ok(table)
}

fn cells(m: &Measured, threads: usize) -> Vec<String> {
    let t = &m.timing;
    vec![
        m.kernel.into(),
        if m.case.is_empty() { m.problem.clone() } else { m.case.into() },
        m.dtype.into(),
        threads.to_string(),
        seconds(t.median),
        format!("{:.1}", 50.0 * (t.p90 - t.p10) / t.median),
        format!("{:.1}", m.flops_per_second() / 1e9),
        format!("{:.1}", m.bytes_per_second() / 1e9),
        format!("{:.0}", 100.0 * m.of_peak()),
        m.bound.by.into(),
        if m.verdict.allowed == 0.0 { "exact".into() } else { format!("{:.1e}", m.verdict.error) },
    ]
}

/// The line of a measurement that did not happen, as benches of other libraries print it.
fn failed(call: &Call, threads: usize, why: &Error) -> Value {
    json!({
        "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"),
        "case": if call.case.is_empty() { call.problem.text() } else { call.case.into() }, "threads": threads,
        "dtype": call.dtype(), "median_s": null, "min_s": null, "runs": 0, "gflops": null, "gbs": null,
        "problem": call.problem.text(), "passed": false, "error": why.to_string(),
    })
}
