//! `lapidary synth`.

use crate::shared::{self, Shared, Status, print};
use lapidary::bench::table::bytes;
use lapidary::checkpoint::synth::Model;
use lapidary::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write a checkpoint of a published model's names and shapes with random weights
#[derive(clap::Args)]
pub struct Args {
    /// The model; a wrong name lists all
    name: String,

    /// The folder to write, made where it does not exist
    folder: PathBuf,

    /// The same seed gives the same bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Write into a folder that holds something already
    #[arg(long)]
    force: bool,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let model = Model::find(&args.name)?;
    if !args.force && !is_free(&args.folder)? {
        return Err(Error::file(&args.folder, "holds something already; use another folder, or --force"));
    }
    let size = model.bytes() as u64;
    let bar = shared::progress_bytes(size);
    let written = model.write(&args.folder, args.seed, &mut |done, _| bar.set_position(done));
    bar.finish_and_clear();
    written?;
    print(&if shared.json {
        let out = json!({
            "name": model.name, "like": model.like, "folder": args.folder, "seed": args.seed, "bytes": size,
        });
        format!("{out:#}\n")
    } else {
        format!("{}: {} of random weights shaped like {}\n", args.folder.display(), bytes(size), model.like)
    })?;
    Ok(Status::Success)
}

/// Whether nothing can be lost by writing there.
fn is_free(folder: &Path) -> Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(Error::io(folder, e)),
    }
}
