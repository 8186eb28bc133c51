//! `lapidary bench`.

mod model;

use crate::shared::{self, Shared, Status, note, print};
use lapidary::bench::{Call, Line, Options, Preset, Stop, Style, cases, gpu_calls, parse_calls, report};
use lapidary::ops::Class;
use lapidary::{Device, Error, Result};
use std::time::{Duration, Instant};

/// Check problems, time them, and hold the times against the device's measured limits
///
/// Without a choice: every case of a model's shape. GFLOP/s and GB/s are at the median (in JSON: of the fastest run, as
/// other libraries' benches print them), ±% is half the distance from the 10th to the 90th percentile.
#[derive(clap::Args)]
pub struct Args {
    /// Ops whose name has a match of this regular expression
    #[arg(long, value_name = "RE")]
    op: Option<String>,

    /// Cases whose name or problem has a match of this regular expression
    #[arg(long, value_name = "RE")]
    case: Option<String>,

    /// A set of cases
    #[arg(long, value_enum)]
    preset: Option<Choice>,

    /// A problem as a profile prints it, such as 'softmax(rows=577,cols=1024)'
    #[arg(long, value_name = "TEXT", num_args = 1.., conflicts_with_all = ["op", "case", "preset"])]
    problem: Vec<String>,

    #[command(flatten)]
    model: model::Args,

    /// A kernel by name; problems that it does not take are left out
    #[arg(long, value_name = "NAME")]
    row: Option<String>,

    /// Print what each kernel did: instructions, sectors, bank conflicts (device emulator)
    #[arg(long)]
    meter: bool,

    /// Seconds to spend on a measurement that does not settle earlier
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    budget: f64,

    /// Write 256 MiB of other memory before each run, so that operands come out of no cache
    #[arg(long)]
    cold: bool,

    /// The least number of runs
    #[arg(long, value_name = "N", default_value_t = 5)]
    min_runs: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    /// Cases that benches of other libraries have under the same names
    Peers,
    /// What `lapidary` shows without a command
    Headline,
    /// Cases that fill a large GPU, under the names of other libraries' benches
    Gpu,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let began = Instant::now();
    let budget = Duration::try_from_secs_f64(args.budget)
        .ok()
        .filter(|b| *b <= Duration::from_secs(86_400))
        .ok_or_else(|| Error::parse("--budget", args.budget.to_string(), "takes 0 to 86400 seconds"))?;
    let stop = Stop { min_runs: args.min_runs.max(1), budget, cold: args.cold, ..Stop::default() };
    let devices = shared.devices()?;
    if let Some(folder) = &args.model.checkpoint {
        return model::run(folder, &args.model, devices, began, stop, shared.json);
    }
    let mut calls = chosen(args)?;
    if args.problem.is_empty() {
        calls = Call::for_device(calls, &devices[0]);
        calls.retain(|call| call.kernel(&devices[0], None).map_err(|e| note(&format!("left out: {e}"))).is_ok());
    }
    if let (Some(row), true) = (&args.row, args.problem.is_empty()) {
        calls.retain(|call| call.kernel(&devices[0], Some(row)).is_ok());
        if calls.is_empty() {
            return Err(Error::parse("--row", row, "no kernel of this name takes any of the problems"));
        }
    }
    let status = bench(&calls, &devices, Options { stop, row: args.row.as_deref() }, shared.json)?;
    shared::print_meter(args.meter, &devices[0])?;
    Ok(status)
}

fn chosen(args: &Args) -> Result<Vec<Call>> {
    if !args.problem.is_empty() {
        return args.problem.iter().map(|text| parse_calls(text)).collect();
    }
    let (op, case) = (shared::pattern(args.op.as_deref())?, shared::pattern(args.case.as_deref())?);
    match args.preset {
        Some(Choice::Peers) => return Preset::Peers.calls(&op, &case),
        Some(Choice::Headline) => return Preset::Headline.calls(&op, &case),
        Some(Choice::Gpu) => {
            let mut calls = gpu_calls()?;
            calls.retain(|c| op.matches(c.problem.name()) && case.matches(c.case));
            return Ok(calls);
        }
        None => {}
    }
    let mut all = cases(&op, &case)?;
    if args.case.is_none() {
        all.retain(|c| c.class == Class::Model);
    }
    if all.is_empty() {
        return Err(Error::Config("--op and --case choose none of the cases".into()));
    }
    Ok(all.into_iter().map(Call::from).collect())
}

/// Prints a report with a progress bar beside it.
pub fn bench(calls: &[Call], devices: &[Device], options: Options<'_>, json: bool) -> Result<Status> {
    let bar = shared::progress((calls.len() * devices.len()) as u64, "problems");
    let style = if json { Style::Json } else { Style::Table };
    let wrong = report(calls, devices, options, style, &mut |line| {
        bar.tick();
        bar.suspend(|| match &line {
            Line::Note(text) if json => {
                note(text);
                Ok(())
            }
            Line::Note(text) | Line::Head(text) | Line::Row(text) => print(&format!("{text}\n")),
        })?;
        if matches!(line, Line::Row(_)) {
            bar.inc(1);
        }
        Ok(())
    });
    bar.finish_and_clear();
    let wrong = wrong?;
    wrong.iter().for_each(|e| note(&format!("error: {e}")));
    Ok(Status::passed(wrong.is_empty()))
}
