//! Every shader with the constants of every kernel and case, checked and translated without any adapter: a driver that
//! does nothing tells what would be compiled, and naga compiles it.
#![cfg(feature = "wgpu")]

mod common;

use common::small_cases;
use lapidary::bench::{Arrangement, Operands};
use lapidary::ops::CATALOG;
use lapidary::{Device, Format};
use naga::back::{pipeline_constants::process_overrides, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Larger problems ask for the same shaders.
const BUDGET: u64 = 5_000_000;

#[test]
fn every_shader_compiles_with_every_constant() {
    let device = Device::open("wgpu:noop").unwrap();
    for case in small_cases(BUDGET) {
        let problem = &*case.problem.for_device(&device);
        let rows = problem.explain(&device, &[]);
        let rows: Vec<_> = rows.iter().filter(|r| r.unsupported.is_none()).collect();
        if rows.is_empty() {
            continue;
        }
        for arrangement in Arrangement::standard(problem) {
            let operands = Operands::random(problem, &device, 1, &arrangement).unwrap();
            for row in &rows {
                if let Err(e) = operands.run(problem, &device, Some(row.name)) {
                    panic!("{} {} {}: {e}", row.name, problem.text(), arrangement.name());
                }
            }
        }
    }

    let mut by_source: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for compiled in device.compiled_shaders() {
        by_source.entry(compiled.shader.source().unwrap()).or_default().push(compiled);
    }
    let mut variants = 0;
    for (source, all) in &by_source {
        let name = all[0].shader.name;
        let module =
            naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(source)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
        let info = info.unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(source)));
        for compiled in all {
            let constants = compiled.constants.iter().map(|&(name, value)| (name.to_string(), value)).collect();
            let stage = naga::ShaderStage::Compute;
            let what = || format!("{name} for {} with {:?}", compiled.kernel, compiled.constants);
            let (module, info) = process_overrides(&module, &info, Some((stage, compiled.entry)), &constants)
                .unwrap_or_else(|e| panic!("{}: {e:?}", what()));
            let options = spv::PipelineOptions { shader_stage: stage, entry_point: compiled.entry.into() };
            let words = spv::write_vec(&module, &info, &spv::Options::default(), Some(&options));
            assert!(!words.unwrap_or_else(|e| panic!("{}: {e}", what())).is_empty());
            variants += 1;
        }
    }
    println!("{variants} variants of {} shaders", by_source.len());

    // A file that no kernel uses is dead.
    let used: BTreeSet<&str> =
        by_source.values().flat_map(|all| all[0].shader.parts.iter().map(|part| part.0)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    // What measures the adapter's peaks is no kernel.
    let probes = ["probe.wgsl", "probe_matrix.wgsl"];
    for under in ["", "common"] {
        for file in std::fs::read_dir(folder.join(under)).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()) {
            let path = file.strip_prefix(&folder).unwrap().to_string_lossy().replace('\\', "/");
            assert!(used.contains(path.as_str()) || probes.contains(&path.as_str()), "no kernel uses shaders/{path}");
        }
    }
}

/// Every problem of the catalog has a kernel, but for operands in the panels of the CPU's products.
#[test]
fn every_problem_has_a_kernel() {
    let device = Device::open("wgpu:noop").unwrap();
    for case in CATALOG.iter().flat_map(|entry| (entry.cases)()) {
        let problem = &*case.problem.for_device(&device);
        let packed = |f: Format| matches!(f, Format::Panels { .. } | Format::BlockPanels { .. });
        let cpu_only = problem.inputs().iter().any(|(_, o)| packed(o.format))
            || problem.outputs().iter().any(|(_, o)| packed(o.format));
        let rows = problem.explain(&device, &[]);
        let able = rows.iter().any(|r| r.unsupported.is_none());
        assert!(able || cpu_only, "{}: no kernel of {rows:?}", problem.text());
    }
}
