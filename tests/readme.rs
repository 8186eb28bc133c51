//! The README's kernel table is the catalog's. `UPDATE_README=1 cargo test --release --test readme` rewrites it.
// The number of CPU kernels depends on the processor family; the README has that of x86-64.
#![cfg(target_arch = "x86_64")]

use std::path::Path;

#[test]
fn kernel_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- kernels -->\n", "<!-- /kernels -->");
    let Some((before, rest)) = text.split_once(begin) else { return };
    let (have, after) = rest.split_once(end).expect("the README closes its kernel table");
    let want = format!("\n{}\n", lapidary::bench::catalog_table());
    if std::env::var_os("UPDATE_README").is_some_and(|v| v == "1") {
        std::fs::write(&path, format!("{before}{begin}{want}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(have, want, "run: UPDATE_README=1 cargo test --release --test readme");
}
