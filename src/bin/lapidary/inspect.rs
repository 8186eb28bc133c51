//! `lapidary inspect`.

use crate::shared::{self, Shared, Status, print, printable};
use lapidary::bench::table::{Table, bytes, count};
use lapidary::checkpoint::{Checkpoint, Stored, TensorFile};
use lapidary::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// List the files and tensors of a checkpoint
#[derive(clap::Args)]
pub struct Args {
    /// A .safetensors file, a .safetensors.index.json, a .gguf file, or a folder that holds one
    checkpoint: PathBuf,

    /// Tensors whose name has a match of this regular expression
    #[arg(long, value_name = "RE")]
    filter: Option<String>,

    /// What files say besides of tensors, too (JSON always has it)
    #[arg(long)]
    metadata: bool,
}

/// Longer lists of metadata are told by type and length only.
const LONGEST_LIST: usize = 64;

#[derive(Default)]
struct Total {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

impl Total {
    fn add(&mut self, tensor: &Stored) {
        self.tensors += 1;
        self.parameters += tensor.count() as u64;
        self.bytes += tensor.bytes.len() as u64;
    }
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let filter = shared::pattern(args.filter.as_deref())?;
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let tensors: Vec<Stored> = checkpoint.iter().filter(|t| filter.matches(&t.name)).collect();
    if let (Some(text), true, false) = (&args.filter, tensors.is_empty(), checkpoint.is_empty()) {
        let why = format!("matches none of the {} tensors", checkpoint.len());
        return Err(Error::parse("--filter", text, why));
    }
    let (mut totals, mut whole) = (BTreeMap::<&str, Total>::new(), Total::default());
    for tensor in &tensors {
        totals.entry(tensor.dtype.name()).or_default().add(tensor);
        whole.add(tensor);
    }
    if shared.json {
        print(&format!("{:#}\n", to_json(&checkpoint, &tensors, &totals, &whole)))?;
    } else {
        if args.metadata {
            print(&(metadata(&checkpoint) + "\n"))?;
        }
        print(&text(&checkpoint, &tensors, &totals, &whole))?;
    }
    Ok(Status::Success)
}

fn metadata(checkpoint: &Checkpoint) -> String {
    let mut lines = Vec::new();
    for file in checkpoint.files() {
        lines.extend(file.texts().into_iter().flatten().map(|(key, text)| vec![printable(key), printable(text)]));
        if let Some(metadata) = file.gguf() {
            let values = metadata.keys().filter_map(|key| Some((key, metadata.get(key)?)));
            lines.extend(values.map(|(key, value)| vec![printable(key), metadata.text_of(value)]));
        }
    }
    Table::render(&["key", "value"], &lines)
}

fn text(checkpoint: &Checkpoint, tensors: &[Stored], totals: &BTreeMap<&str, Total>, whole: &Total) -> String {
    let files: Vec<_> = checkpoint
        .files()
        .iter()
        .map(|f| vec![printable(&f.path().display().to_string()), count(f.tensors().len() as u64)])
        .collect();
    let line = |t: &Stored| {
        let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
        vec![printable(&t.name), t.dtype.to_string(), shape.join("x"), count(t.bytes.len() as u64)]
    };
    let lines: Vec<_> = tensors.iter().map(line).collect();
    let total = |name: &str, t: &Total| vec![name.to_string(), count(t.tensors), count(t.parameters), bytes(t.bytes)];
    let mut sums: Vec<_> = totals.iter().map(|(name, t)| total(name, t)).collect();
    sums.push(total("all", whole));
    [
        Table::render(&["file", ">tensors"], &files),
        Table::render(&["tensor", "dtype", "shape", ">bytes"], &lines),
        Table::render(&["dtype", ">tensors", ">parameters", ">size"], &sums),
    ]
    .join("\n")
}

fn to_json(checkpoint: &Checkpoint, tensors: &[Stored], totals: &BTreeMap<&str, Total>, whole: &Total) -> Value {
    let metadata = |f: &TensorFile| match f.gguf() {
        Some(metadata) => Value::Object(metadata.to_json(LONGEST_LIST)),
        None => json!(f.texts()),
    };
    let file = |f: &TensorFile| json!({"path": f.path(), "tensors": f.tensors().len(), "metadata": metadata(f)});
    let tensor = |t: &Stored| json!({"name": t.name, "dtype": t.dtype.name(), "shape": t.shape, "bytes": t.bytes.len(), "path": &*t.path});
    let total = |t: &Total| json!({"tensors": t.tensors, "parameters": t.parameters, "bytes": t.bytes});
    json!({
        "files": checkpoint.files().iter().map(file).collect::<Vec<_>>(),
        "tensors": tensors.iter().map(tensor).collect::<Vec<_>>(),
        "dtypes": totals.iter().map(|(name, t)| (name.to_string(), total(t))).collect::<serde_json::Map<_, _>>(),
        "total": total(whole),
    })
}
