//! The PTX that is embedded: every kernel of the tables is a function of it, and nothing else is there.

use lapidary::ops::CATALOG;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
    let wanted = paths.filter(|p| p.extension().is_some_and(|e| e == extension));
    let named =
        |p: PathBuf| (p.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(p).unwrap());
    wanted.map(named).collect()
}

/// The names of a module's kernels.
fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry ")).map(|rest| rest.trim_end_matches(['(', ')']))
}

#[test]
fn every_source_is_compiled_for_every_driver() {
    let (sources, ptx) = (files("kernels", "cu"), files("kernels/ptx/sm_80", "ptx"));
    assert_eq!(sources.keys().collect::<Vec<_>>(), ptx.keys().collect::<Vec<_>>());
    for (name, text) in &ptx {
        assert!(text.contains(".version 7.8\n.target sm_80\n"), "{name}: made for other drivers; run kernels/build");
        assert!(entries(text).next().is_some(), "{name}: has no kernel");
    }
}

#[test]
fn every_row_is_a_function_and_names_are_unique() {
    let ptx = files("kernels/ptx/sm_80", "ptx");
    let mut functions = BTreeSet::new();
    for (name, text) in &ptx {
        for function in entries(text) {
            assert!(functions.insert(function), "{function} of {name} is in two modules");
        }
    }
    let rows = CATALOG.iter().flat_map(|op| (op.kernels)()).filter(|(backend, _)| *backend == "cuda");
    for row in rows.flat_map(|(_, rows)| rows) {
        assert!(functions.contains(row), "no kernel is called {row}");
    }
}
