//! Events as a table, as JSON and as a trace for Chrome or Perfetto.

use super::{Event, What};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// One line per kernel and problem, slowest first: calls, total and mean time, GFLOP/s, GB/s, share of the whole.
pub fn table(events: &[Event]) -> String {
    let rows = totals(events);
    let whole: f64 = rows.iter().map(|r| r.seconds).sum();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:>6} {:>10} {:>10} {:>9} {:>8} {:>6}  kernel: problem",
        "calls", "total ms", "mean us", "GFLOP/s", "GB/s", "%"
    );
    for r in &rows {
        let _ = writeln!(
            out,
            "{:>6} {:>10.3} {:>10.2} {:>9.1} {:>8.1} {:>6.1}  {}: {}",
            r.calls,
            r.seconds * 1e3,
            r.seconds * 1e6 / r.calls as f64,
            r.flops / r.seconds / 1e9,
            r.bytes / r.seconds / 1e9,
            100.0 * r.seconds / whole,
            r.row,
            r.problem
        );
    }
    let _ = writeln!(out, "{:>6} {:>10.3}  in kernels", "", whole * 1e3);
    out
}

/// Every event as an array of objects, times in seconds.
pub fn json(events: &[Event]) -> Value {
    events
        .iter()
        .map(|e| match &e.what {
            What::Kernel { row, cost } => json!({
                "kind": "kernel", "problem": e.name, "kernel": row, "start_s": e.start, "seconds": e.seconds,
                "flops": cost.flops, "bytes": cost.bytes(), "depth": e.depth,
            }),
            What::Layer => {
                json!({"kind": "layer", "name": e.name, "start_s": e.start, "seconds": e.seconds, "depth": e.depth})
            }
            What::Transfer { bytes } => {
                json!({"kind": "transfer", "name": e.name, "start_s": e.start, "seconds": e.seconds, "bytes": bytes})
            }
        })
        .collect()
}

/// Chrome's trace event format (complete events, microseconds), which Perfetto reads too.
pub fn chrome_trace(events: &[Event]) -> Value {
    let entry = |e: &Event| {
        let (cat, args) = match &e.what {
            What::Kernel { row, cost } => {
                ("kernel", json!({"problem": e.name, "flops": cost.flops, "bytes": cost.bytes(), "kernel": row}))
            }
            What::Layer => ("layer", json!({})),
            What::Transfer { bytes } => ("transfer", json!({"bytes": bytes})),
        };
        let name = match &e.what {
            What::Kernel { row, .. } => row,
            _ => e.name.as_str(),
        };
        json!({"name": name, "cat": cat, "ph": "X", "ts": e.start * 1e6, "dur": e.seconds * 1e6, "pid": 1, "tid": 1, "args": args})
    };
    json!({"displayTimeUnit": "ns", "traceEvents": events.iter().map(entry).collect::<Vec<_>>()})
}

struct Total {
    row: &'static str,
    problem: String,
    calls: usize,
    seconds: f64,
    flops: f64,
    bytes: f64,
}

fn totals(events: &[Event]) -> Vec<Total> {
    let mut rows: BTreeMap<(&'static str, &str), Total> = BTreeMap::new();
    for e in events {
        if let What::Kernel { row, cost } = &e.what {
            let t = rows.entry((row, &e.name)).or_insert_with(|| Total {
                row,
                problem: e.name.clone(),
                calls: 0,
                seconds: 0.0,
                flops: 0.0,
                bytes: 0.0,
            });
            t.calls += 1;
            t.seconds += e.seconds;
            t.flops += cost.flops as f64;
            t.bytes += cost.bytes() as f64;
        }
    }
    let mut rows: Vec<Total> = rows.into_values().collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows
}
