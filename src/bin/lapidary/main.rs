//! The command line. A command is one module with its arguments and a `run`, and one arm of [`Command`].

mod bench;
mod check;
mod compare;
mod devices;
mod explain;
mod headline;
mod inspect;
mod run;
mod shared;
mod synth;
mod train;
mod verify;

use clap::{Parser, Subcommand};
use shared::{Shared, Status};
use std::process::ExitCode;

/// A tensor engine with kernels cut by hand. Without a command: describes the device, measures its limits, and checks
/// and times the headline kernels against them.
///
/// Results go to stdout, progress to stderr. Exit codes: 0 success, 1 a check failed, 2 bad input.
#[derive(Parser)]
#[command(name = "lapidary", version)]
struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Devices(devices::Args),
    Check(check::Args),
    Bench(bench::Args),
    Compare(compare::Args),
    Explain(explain::Args),
    Inspect(inspect::Args),
    Synth(synth::Args),
    Train(train::Args),
    Run(run::Args),
    Verify(verify::Args),
}

fn main() -> ExitCode {
    let Cli { shared, command } = Cli::parse();
    let status = match command {
        None => headline::run(&shared),
        Some(Command::Devices(args)) => devices::run(&args, &shared),
        Some(Command::Check(args)) => check::run(&args, &shared),
        Some(Command::Bench(args)) => bench::run(&args, &shared),
        Some(Command::Compare(args)) => compare::run(&args, &shared),
        Some(Command::Explain(args)) => explain::run(&args, &shared),
        Some(Command::Inspect(args)) => inspect::run(&args, &shared),
        Some(Command::Synth(args)) => synth::run(&args, &shared),
        Some(Command::Train(args)) => train::run(&args, &shared),
        Some(Command::Run(args)) => run::run(&args, &shared),
        Some(Command::Verify(args)) => verify::run(&args, &shared),
    };
    match status {
        Ok(Status::Success) => ExitCode::SUCCESS,
        Ok(Status::CheckFailed) => ExitCode::from(1),
        Err(e) if shared::is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            shared::note(&format!("error: {e}"));
            ExitCode::from(2)
        }
    }
}
