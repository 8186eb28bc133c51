//! `verify`: golden cases against what their references computed.

use lapidary::golden::{self, Case, Limit, Outcome};
use lapidary::nn::Precision;
use lapidary::{DType, Device, Result};
use serde_json::{Value, json};
use std::path::PathBuf;

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
    /// One JSON object per output.
    #[arg(long)]
    json: bool,
}

/// Whether nothing failed.
pub fn run(args: &Args, device: &Device) -> Result<bool> {
    let precision = Precision::compute_in(args.dtype)?;
    let mut folders = Vec::new();
    for path in &args.cases {
        folders.extend(golden::find(path)?);
    }
    let (mut passed, mut failed, mut unsupported) = (0, 0, 0);
    let progress = crate::shared::progress(folders.len() as u64, "cases");
    for folder in &folders {
        let names: Vec<_> = folder.components().rev().take(2).map(|c| c.as_os_str().to_string_lossy()).collect();
        let name = names.iter().rev().map(|n| &**n).collect::<Vec<_>>().join("/");
        let outcome = Case::open(folder).and_then(|case| case.run(device, precision));
        match &outcome {
            Ok(Outcome::Unsupported(_)) => unsupported += 1,
            Ok(outcome) if outcome.passed() => passed += 1,
            _ => failed += 1,
        }
        progress.suspend(|| report(&name, &outcome, args.json));
        progress.inc(1);
    }
    progress.finish_and_clear();
    if args.json {
        println!("{}", json!({"passed": passed, "failed": failed, "unsupported": unsupported}));
    } else {
        println!("{passed} passed, {failed} failed, {unsupported} unsupported");
    }
    Ok(failed == 0 && !(args.require_supported && unsupported > 0))
}

fn report(name: &str, outcome: &Result<Outcome>, as_json: bool) {
    let line = |output: &str, rel_l2: Option<f64>, max_abs: Option<f64>, limit: &str, verdict: &str, why: &str| {
        if as_json {
            let number = |x: Option<f64>| x.filter(|x| x.is_finite()).map_or(Value::Null, Value::from);
            println!(
                "{}",
                json!({"case": name, "output": output, "rel_l2": number(rel_l2), "max_abs": number(max_abs),
                       "limit": limit, "verdict": verdict, "why": why})
            );
        } else {
            let number = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.2e}"));
            println!(
                "{name:<36} {output:<36} {:>9} {:>9} {limit:>9}  {verdict}{}{why}",
                number(rel_l2),
                number(max_abs),
                if why.is_empty() { "" } else { ": " }
            );
        }
    };
    match outcome {
        Err(e) => line("", None, None, "", "FAILED", &e.to_string()),
        Ok(Outcome::Unsupported(what)) => line("", None, None, "", "unsupported", what),
        Ok(Outcome::Judged(rows)) => {
            for r in rows {
                let limit = match r.limit {
                    Limit::Exact => "exact".to_string(),
                    Limit::RelL2(x) => format!("{x:.0e}"),
                };
                let (verdict, why) = match &r.failure {
                    None => ("ok", ""),
                    Some(why) => ("FAILED", why.as_str()),
                };
                line(&r.name, Some(r.rel_l2), Some(r.max_abs), &limit, verdict, why);
            }
        }
    }
}
