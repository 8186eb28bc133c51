//! `lapidary check`.

use crate::shared::{self, Shared, Status, print};
use lapidary::bench::table::Table;
use lapidary::bench::{Arrangement, Call, Checked, cases, check_rows, parse_call};
use lapidary::{Device, Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Check kernels against the reference: every case, operands contiguous and not
///
/// An error is relative, in the 2-norm, and held against that of the plain computation in f32 (see README). `worst` is
/// the largest share of the allowed error that was found.
#[derive(clap::Args)]
pub struct Args {
    /// Ops whose name has a match of this regular expression
    #[arg(long, value_name = "RE")]
    op: Option<String>,

    /// A kernel by name instead of all
    #[arg(long, value_name = "NAME")]
    row: Option<String>,

    /// Check models' shapes of any size
    #[arg(long, conflicts_with = "budget")]
    all: bool,

    /// Check models' shapes up to this many floating-point operations or bytes
    #[arg(long, value_name = "FLOPS", default_value_t = 300_000_000)]
    budget: u64,

    /// Print what each kernel did: instructions, sectors, bank conflicts (device emulator)
    #[arg(long)]
    meter: bool,

    /// Problems as a profile prints them, instead of the catalog's cases
    #[arg(value_name = "PROBLEM", conflicts_with_all = ["op", "all", "budget"])]
    problems: Vec<String>,
}

/// What was found about one kernel.
#[derive(Default)]
struct Tally {
    checks: usize,
    failed: usize,
    /// Error by allowed error.
    worst: f64,
    worst_problem: String,
}

#[derive(Default)]
struct Findings {
    kernels: BTreeMap<&'static str, Tally>,
    failures: Vec<[String; 4]>,
    passed: usize,
    /// Checks that the device cannot make, for the size of the operands as they lie.
    too_large: Vec<[String; 3]>,
    /// Problems of the catalog that no kernel of the device takes.
    without: Vec<String>,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let device = shared.device()?;
    let row = args.row.as_deref();
    let mut calls = chosen(args)?;
    if args.problems.is_empty() {
        calls = Call::for_device(calls, &device);
        calls.retain(|c| row.is_none() || c.kernel(&device, row).is_ok());
    }
    if let (Some(row), true) = (row, calls.is_empty()) {
        return Err(Error::parse("--row", row, "no kernel of this name takes any of the problems"));
    }
    let mut findings = Findings::default();
    let bar = shared::progress(calls.len() as u64, "problems");
    for call in &calls {
        bar.tick();
        match call.kernel(&device, row) {
            Ok(_) => findings.check(call, &device, row)?,
            // One that was asked for is an error, which says why.
            Err(Error::NoKernel { problem, .. }) if args.problems.is_empty() => findings.without.push(problem),
            Err(e) => return Err(e),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    print(&if shared.json { format!("{:#}\n", findings.json(&device)) } else { findings.text() })?;
    shared::print_meter(args.meter, &device)?;
    Ok(Status::passed(findings.failures.is_empty()))
}

fn chosen(args: &Args) -> Result<Vec<Call>> {
    if !args.problems.is_empty() {
        return args.problems.iter().map(|text| parse_call(text)).collect();
    }
    let all = cases(&shared::pattern(args.op.as_deref())?, &shared::pattern(None)?)?;
    Ok(all.into_iter().filter(|c| args.all || c.within(args.budget)).map(Call::from).collect())
}

impl Findings {
    fn check(&mut self, call: &Call, device: &Device, row: Option<&str>) -> Result<()> {
        let standard = Arrangement::standard(&*call.problem);
        let given = [call.arrangement.clone()];
        let arrangements = if call.arrangement == Arrangement::Contiguous { standard.as_slice() } else { &given };
        let text = call.text()?;
        check_rows(&*call.problem, device, row, arrangements, &mut |done| self.add(&text, &done))
    }

    fn add(&mut self, problem: &str, done: &Checked<'_>) {
        if done.too_large() {
            self.too_large.push([done.kernel.into(), problem.into(), done.arrangement.name().into()]);
            return;
        }
        let tally = self.kernels.entry(done.kernel).or_default();
        tally.checks += 1;
        let ratio = match &done.outcome {
            Ok(v) if v.passed() && v.error == 0.0 => 0.0,
            Ok(v) if v.allowed > 0.0 => v.error / v.allowed,
            _ => f64::INFINITY,
        };
        if tally.worst_problem.is_empty() || ratio > tally.worst {
            (tally.worst, tally.worst_problem) = (ratio, problem.into());
        }
        match done.failure() {
            None => self.passed += 1,
            Some(why) => {
                tally.failed += 1;
                self.failures.push([done.kernel.into(), problem.into(), done.arrangement.name().into(), why]);
            }
        }
    }

    fn text(&self) -> String {
        let row = |(name, t): (&&str, &Tally)| {
            let worst = format!("{:.2}", t.worst);
            vec![name.to_string(), t.checks.to_string(), t.failed.to_string(), worst, t.worst_problem.clone()]
        };
        let rows: Vec<_> = self.kernels.iter().map(row).collect();
        let mut text = Table::render(&["kernel", ">checks", ">failed", ">worst", "at"], &rows) + "\n";
        for [kernel, problem, arrangement, why] in &self.failures {
            text += &format!("failed: {kernel}: {problem}, {arrangement}: {why}\n");
        }
        for problem in &self.without {
            text += &format!("no kernel: {problem}\n");
        }
        for [kernel, problem, arrangement] in &self.too_large {
            text += &format!("too large: {kernel}: {problem}, {arrangement}\n");
        }
        let some = |n: usize, what: &str| if n == 0 { String::new() } else { format!(", {n} {what}") };
        let without = some(self.without.len(), "problems without a kernel on this device");
        let too_large = some(self.too_large.len(), "too large for it");
        text + &format!("{} passed, {} failed{too_large}{without}\n", self.passed, self.failures.len())
    }

    fn json(&self, device: &Device) -> Value {
        let kernel = |(name, t): (&&str, &Tally)| {
            json!({
                "kernel": name, "checks": t.checks, "failed": t.failed, "worst": t.worst,
                "worst_problem": t.worst_problem,
            })
        };
        let failure = |[kernel, problem, arrangement, why]: &[String; 4]| json!({"kernel": kernel, "problem": problem, "arrangement": arrangement, "why": why});
        json!({
            "device": device.describe(), "kernels": self.kernels.iter().map(kernel).collect::<Vec<_>>(),
            "failures": self.failures.iter().map(failure).collect::<Vec<_>>(), "passed": self.passed,
            "failed": self.failures.len(), "too_large": self.too_large.len(), "without_kernel": self.without,
        })
    }
}
