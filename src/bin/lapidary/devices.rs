//! `lapidary devices`.

use crate::shared::{Shared, Status, print};
use lapidary::bench::{PoolCost, table::Table};
use lapidary::{Device, Result};
use serde_json::{Value, json};

/// List the devices and what can be done with them
#[derive(clap::Args)]
pub struct Args {}

struct Entry {
    name: String,
    built_in: bool,
    about: String,
}

/// What starting a loop costs on one thread of the CPU, two, four and so on, up to all.
fn pools(cpu: &Device) -> Result<Vec<PoolCost>> {
    let all = PoolCost::measure(cpu);
    let fewer = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|&n| all.is_some_and(|all| n < all.threads));
    let fewer = fewer.map(|n| Ok(PoolCost::measure(&Device::cpu_with_threads(n)?)));
    Ok(fewer.collect::<Result<Vec<_>>>()?.into_iter().chain([all]).flatten().collect())
}

pub fn run(_: &Args, shared: &Shared) -> Result<Status> {
    let cpu = shared.threads.iter().max().map_or_else(Device::cpu, |&n| Device::cpu_with_threads(n))?;
    let pools = pools(&cpu)?;
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
        let mut list: Vec<Value> =
            entries.iter().map(|e| json!({"name": e.name, "built_in": e.built_in, "describe": e.about})).collect();
        let pool = |p: &PoolCost| json!({"threads": p.threads, "pool_us": p.awake_us, "pool_asleep_us": p.asleep_us});
        list[0]["pool"] = pools.iter().map(pool).collect();
        print(&format!("{:#}\n", json!(list)))?;
    } else {
        let built = |e: &Entry| if e.built_in { "built in" } else { "not built in" };
        let rows: Vec<_> = entries.iter().map(|e| vec![e.name.as_str(), built(e), e.about.as_str()]).collect();
        let pool = |p: &PoolCost| {
            vec![p.threads.to_string(), format!("{:.2} us", p.awake_us), format!("{:.1} us", p.asleep_us)]
        };
        let pools: Vec<_> = pools.iter().map(pool).collect();
        print(&Table::render(&["device", "", "what it is"], &rows))?;
        print(&format!(
            "\n{}",
            Table::render(&[">threads of the cpu", ">start and end of a loop", ">after a pause"], &pools)
        ))?;
    }
    Ok(Status::Success)
}
