//! `lapidary devices`.

use crate::shared::{Shared, Status, print};
use lapidary::bench::table::Table;
use lapidary::{Device, Result};
use serde_json::json;

/// List the devices and what can be done with them
#[derive(clap::Args)]
pub struct Args {}

struct Entry {
    name: String,
    built_in: bool,
    about: String,
}

pub fn run(_: &Args, shared: &Shared) -> Result<Status> {
    let cpu = Device::cpu()?;
    let mut entries = vec![Entry { name: "cpu".into(), built_in: true, about: cpu.describe() }];
    let built_in = cfg!(feature = "wgpu");
    let adapters = Device::wgpu_adapters();
    for (i, about) in adapters.iter().enumerate() {
        entries.push(Entry { name: format!("wgpu:{i}"), built_in, about: about.clone() });
    }
    if adapters.is_empty() {
        let about = "no adapter: no driver for Vulkan, Metal or DirectX 12 answers".into();
        entries.push(Entry { name: "wgpu".into(), built_in, about });
    }
    let built_in = cfg!(feature = "cuda");
    match Device::cuda_devices() {
        Ok(devices) => entries.extend(devices.into_iter().enumerate().map(|(i, about)| Entry {
            name: format!("cuda:{i}"),
            built_in,
            about,
        })),
        Err(about) => entries.push(Entry { name: "cuda".into(), built_in, about }),
    }
    let about = Device::open("emulator").map_or_else(|e| e.to_string(), |d| d.describe());
    entries.push(Entry { name: "emulator".into(), built_in: cfg!(feature = "emulator"), about });
    if shared.json {
        let list: Vec<_> =
            entries.iter().map(|e| json!({"name": e.name, "built_in": e.built_in, "describe": e.about})).collect();
        print(&format!("{:#}\n", json!(list)))?;
    } else {
        let built = |e: &Entry| if e.built_in { "built in" } else { "not built in" };
        let rows: Vec<_> = entries.iter().map(|e| vec![e.name.as_str(), built(e), e.about.as_str()]).collect();
        print(&Table::render(&["device", "", "what it is"], &rows))?;
    }
    Ok(Status::Success)
}
