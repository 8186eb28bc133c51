//! What several test files share.

pub mod gpu;

use lapidary::Device;
use lapidary::ops::{AnyCase, CATALOG};
use std::sync::OnceLock;

/// One adapter for all tests of a file, or nothing where the machine has none: the test is skipped then, with a line.
/// Where `LAPIDARY_REQUIRE_ADAPTER` is set, as in CI, that is a failure.
pub fn adapter() -> Option<&'static Device> {
    static ADAPTER: OnceLock<Option<Device>> = OnceLock::new();
    let adapter = ADAPTER.get_or_init(|| match Device::open("wgpu") {
        Ok(device) => Some(device),
        Err(e) if std::env::var_os("LAPIDARY_REQUIRE_ADAPTER").is_some() => panic!("{e}"),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    });
    adapter.as_ref()
}

/// As [`adapter`], opened anew: for tests whose counters and errors nobody else may touch.
#[allow(dead_code)] // not every test file needs one
pub fn own_adapter() -> Option<Device> {
    adapter().map(|_| Device::open("wgpu").unwrap())
}

/// Cases up to so many floating-point operations or bytes, without those of tables of which little is read and much would
/// have to be made: a software adapter does about one GFLOP/s.
#[allow(dead_code)] // not every test file goes over the catalog
pub fn small_cases(budget: u64) -> impl Iterator<Item = AnyCase> {
    let all = CATALOG.iter().flat_map(|entry| (entry.cases)());
    all.filter(move |c| c.within(budget) && c.problem.inputs().bytes() <= 16 << 20)
}
