//! `lapidary devices`.

use crate::shared::{Shared, Status, print};
use lapidary::Result;
use lapidary::bench::table::Table;
use serde_json::json;

/// List the devices and what can be done with them
#[derive(clap::Args)]
pub struct Args {}

struct Entry {
    name: &'static str,
    built_in: bool,
    kernels: bool,
    about: String,
}

pub fn run(_: &Args, shared: &Shared) -> Result<Status> {
    let frame = "no kernels in this version";
    let entry =
        |name, built_in, what: &str| Entry { name, built_in, kernels: false, about: format!("{what}; {frame}") };
    let cpu = shared.device()?;
    let entries = [
        Entry { name: "cpu", built_in: true, kernels: true, about: cpu.describe() },
        entry("wgpu", cfg!(feature = "wgpu"), "GPUs through Vulkan, Metal or DirectX 12"),
        entry("cuda", cfg!(feature = "cuda"), "NVIDIA GPUs through their driver"),
        entry("emulator", cfg!(feature = "emulator"), "CUDA kernels interpreted on the CPU"),
    ];
    if shared.json {
        let list: Vec<_> = entries
            .iter()
            .map(|e| json!({"name": e.name, "built_in": e.built_in, "has_kernels": e.kernels, "describe": e.about}))
            .collect();
        print(&format!("{:#}\n", json!(list)))?;
    } else {
        let built = |e: &Entry| if e.built_in { "built in" } else { "not built in" };
        let rows: Vec<_> = entries.iter().map(|e| vec![e.name, built(e), e.about.as_str()]).collect();
        print(&Table::render(&["device", "", "what it is"], &rows))?;
    }
    Ok(Status::Success)
}
