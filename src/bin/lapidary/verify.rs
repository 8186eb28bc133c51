//! `verify`: golden cases against what their references computed.

use crate::shared::{self, Shared, Status};
use lapidary::golden::{self, Case, Limit, Outcome};
use lapidary::nn::Precision;
use lapidary::{DType, Result};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Computes golden cases and holds each output against the reference's
#[derive(clap::Args)]
pub struct Args {
    /// Case folders, or trees of them.
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    /// A case that cannot be computed yet is a failure.
    #[arg(long)]
    require_supported: bool,
    /// What inputs of matrix products are rounded to: f32, bf16 or f16. The limits of the cases are for f32.
    #[arg(long, default_value = "f32")]
    dtype: DType,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let device = &shared.device()?;
    let precision = Precision::compute_in(args.dtype)?;
    let mut folders = Vec::new();
    for path in &args.cases {
        folders.extend(golden::find(path)?);
    }
    let (mut passed, mut failed, mut unsupported) = (0, 0, 0);
    let progress = shared::progress(folders.len() as u64, "cases");
    for folder in &folders {
        let names: Vec<_> = folder.components().rev().take(2).map(|c| c.as_os_str().to_string_lossy()).collect();
        let name = names.iter().rev().map(|n| &**n).collect::<Vec<_>>().join("/");
        let outcome = Case::open(folder).and_then(|case| case.run(device, precision));
        match &outcome {
            Ok(Outcome::Unsupported(_)) => unsupported += 1,
            Ok(outcome) if outcome.passed() => passed += 1,
            _ => failed += 1,
        }
        progress.suspend(|| shared::print(&report(&name, &outcome, shared.json)))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    let last = match shared.json {
        true => json!({"passed": passed, "failed": failed, "unsupported": unsupported}).to_string(),
        false => format!("{passed} passed, {failed} failed, {unsupported} unsupported"),
    };
    shared::print(&format!("{last}\n"))?;
    Ok(Status::passed(failed == 0 && !(args.require_supported && unsupported > 0)))
}

/// A line per output.
fn report(name: &str, outcome: &Result<Outcome>, as_json: bool) -> String {
    let line = |output: &str, numbers: Option<[f64; 2]>, limit: &str, verdict: &str, why: &str| {
        if as_json {
            let number = |i: usize| numbers.map(|n| n[i]).filter(|x| x.is_finite()).map_or(Value::Null, Value::from);
            let row = json!({"case": name, "output": output, "rel_l2": number(0), "max_abs": number(1), "limit": limit,
                             "verdict": verdict, "why": why});
            return format!("{row}\n");
        }
        let [rel_l2, max_abs] = numbers.map_or_else(Default::default, |n| n.map(|x| format!("{x:.2e}")));
        let colon = if why.is_empty() { "" } else { ": " };
        format!("{name:<34} {output:<32} {rel_l2:>9} {max_abs:>9} {limit:>7}  {verdict}{colon}{why}\n")
    };
    match outcome {
        Err(e) => line("", None, "", "FAILED", &e.to_string()),
        Ok(Outcome::Unsupported(what)) => line("", None, "", "unsupported", what),
        Ok(Outcome::Judged(rows)) => rows
            .iter()
            .map(|r| {
                let limit = match r.limit {
                    Limit::Exact => "exact".to_string(),
                    Limit::RelL2(x) => format!("{x:.0e}"),
                };
                let (verdict, why) = r.failure.as_deref().map_or(("ok", ""), |why| ("FAILED", why));
                line(&r.name, Some([r.rel_l2, r.max_abs]), &limit, verdict, why)
            })
            .collect(),
    }
}
