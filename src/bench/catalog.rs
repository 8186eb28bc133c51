//! The catalog as the table in the README.

use crate::ops::{CATALOG, Class};

/// A Markdown table of every op: how many kernels each backend has for it, and how many cases of each class.
pub fn catalog_table() -> String {
    let mut text = String::from("| op | cpu | wgpu | cuda | edge cases | model cases |\n|---|--:|--:|--:|--:|--:|\n");
    for entry in CATALOG {
        let kernels =
            (entry.kernels)().map(|(_, rows)| if rows.is_empty() { "–".into() } else { rows.len().to_string() });
        let cases = (entry.cases)();
        let of = |class| cases.iter().filter(|c| c.class == class).count();
        let (edge, model) = (of(Class::Edge), of(Class::Model));
        text += &format!("| `{}` | {} | {edge} | {model} |\n", entry.name, kernels.join(" | "));
    }
    text
}
