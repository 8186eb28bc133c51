//! `lapidary compare`.

use crate::shared::{self, Shared, Status, print};
use lapidary::bench::{compare, compared_table};
use lapidary::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Join results of benches of this engine and of other libraries, and print who is ahead by how much
///
/// Reads the lines that `bench --json` and benches of other libraries print, of any number of rounds. Of each program the best
/// round counts: on one thread by processor time, on more by the clock. A ratio above 1 says that this engine is ahead.
#[derive(clap::Args)]
pub struct Args {
    /// Files of JSON lines; - for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Cases whose name has a match of this regular expression
    #[arg(long, value_name = "RE")]
    case: Option<String>,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let case = shared::pattern(args.case.as_deref())?;
    let texts: Vec<String> = args.files.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let mut all = compare(texts.iter().flat_map(|text| text.lines()))?;
    let threads = |n: u64| shared.threads.is_empty() || shared.threads.iter().any(|&t| t as u64 == n);
    all.retain(|c| case.matches(&c.case) && threads(c.threads));
    if shared.json {
        all.iter().try_for_each(|c| print(&format!("{}\n", c.json())))?;
    } else {
        print(&compared_table(&all))?;
    }
    Ok(Status::Success)
}

fn read(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(|e| Error::io("stdin", e))
}
