//! The import rule of the crate doc, held against the sources: what a module may name, where `unsafe` may stand, and where
//! the backends may be listed. Works on text: comments and strings are blanked, `#[cfg(test)]` modules left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules in layers. A module may name those of the layers that are listed for it, and itself. The vocabulary is
/// everybody's.
const VOCABULARY: &[&str] = &["error", "dtype", "layout", "cost", "random"];
const DOWN_TO_OPS: &[&str] = &["backend", "profile", "device", "tensor", "autograd", "ops"];
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("dtype", &[]),
    ("layout", &[]),
    ("cost", &[]),
    ("random", &[]),
    ("backend", &[]),
    ("profile", &["backend"]),
    ("device", &["backend", "profile"]),
    ("tensor", &["backend", "profile", "device"]),
    ("autograd", &["backend", "profile", "device", "tensor"]),
    ("ops", &["backend", "profile", "device", "tensor", "autograd"]),
    ("bench", DOWN_TO_OPS),
    ("checkpoint", DOWN_TO_OPS),
    ("ring", DOWN_TO_OPS),
    ("media", DOWN_TO_OPS),
    ("text", &[]),
    ("nn", &["profile", "device", "tensor", "autograd", "ops", "checkpoint", "ring"]),
    ("train", &["profile", "device", "tensor", "autograd", "ops", "checkpoint", "ring", "text", "nn"]),
    ("models", &["profile", "device", "tensor", "autograd", "ops", "checkpoint", "ring", "media", "text", "nn"]),
    (
        "golden",
        &[
            "profile",
            "device",
            "tensor",
            "autograd",
            "ops",
            "checkpoint",
            "ring",
            "media",
            "text",
            "nn",
            "train",
            "models",
        ],
    ),
];

/// Files that may list the backends.
const LIST_BACKENDS: &[&str] = &["src/device.rs", "src/ops/mod.rs", "src/ops/run.rs"];

/// A source file: its path from the crate's root with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: without_tests(&blank(text)) }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text[..at].matches('\n').count()
    }

    /// The module's path: `src/ops/copy/cpu.rs` is `[ops, copy, cpu]`.
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<String> = path.split('/').map(str::to_string).collect();
        if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
            parts.pop();
        }
        parts
    }

    /// The op whose folder the file lies in, and whether it is one of its kernel files, which name no other op.
    fn op(&self) -> Option<(&str, bool)> {
        let (op, file) = self.path.strip_prefix("src/ops/")?.split_once('/')?;
        Some((op, !["mod.rs", "grad.rs", "compose.rs"].contains(&file)))
    }

    /// Whether `unsafe` may stand here.
    fn may_be_unsafe(&self) -> bool {
        let file = self.path.strip_prefix("src/ops/").and_then(|p| p.split_once('/')).map(|(_, file)| file);
        let backends = ["cpu", "wgpu", "cuda"];
        let kernel = |f: &str| backends.contains(&f.split(['/', '.']).next().unwrap_or_default());
        self.path.starts_with("src/backend/") || file.is_some_and(kernel)
    }
}

/// Blanks comments, strings and characters, keeping every line where it is.
fn blank(text: &str) -> String {
    let c: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let hide = |out: &mut String, part: &[char]| part.iter().for_each(|&c| out.push(if c == '\n' { c } else { ' ' }));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while i < c.len() {
        let next = |k: usize| c.get(i + k).copied().unwrap_or('\0');
        let begin = i;
        if c[i] == '/' && next(1) == '/' {
            while i < c.len() && c[i] != '\n' {
                i += 1;
            }
        } else if c[i] == '/' && next(1) == '*' {
            let mut depth = 0;
            while i < c.len() {
                match (c[i], c.get(i + 1)) {
                    ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
                    ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if c[i] == 'r' && (next(1) == '"' || next(1) == '#') && (i == 0 || !is_word(c[i - 1]) || c[i - 1] == 'b')
        {
            let hashes = c[i + 1..].iter().take_while(|&&c| c == '#').count();
            if c.get(i + 1 + hashes) != Some(&'"') {
                // A raw identifier.
                out.push(c[i]);
                i += 1;
                continue;
            }
            i += 2 + hashes;
            let closes = |i: usize| c[i] == '"' && c[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
            while i < c.len() && !closes(i) {
                i += 1;
            }
            i = (i + 1 + hashes).min(c.len());
        } else if c[i] == '"' {
            i += 1;
            while i < c.len() && c[i] != '"' {
                i += if c[i] == '\\' { 2 } else { 1 };
            }
            i = (i + 1).min(c.len());
        } else if c[i] == '\'' && (next(1) == '\\' || next(2) == '\'') {
            i += if next(1) == '\\' { 3 } else { 2 };
            while i < c.len() && c[i] != '\'' {
                i += 1;
            }
            i = (i + 1).min(c.len());
        } else {
            out.push(c[i]);
            i += 1;
            continue;
        }
        hide(&mut out, &c[begin..i.min(c.len())]);
    }
    out
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    let mut out = text.to_string();
    while let Some(at) = out.find("#[cfg(test)]") {
        let end = out[at..].find(['{', ';']).map_or(out.len(), |open| {
            let open = at + open;
            if out.as_bytes()[open] == b';' { open + 1 } else { open + braces(&out[open..]) }
        });
        let hidden: String = out[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        out.replace_range(at..end, &hidden);
    }
    out
}

/// The bytes of a text that begins with `{`, to the brace that closes it.
fn braces(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    text.len()
}

/// Places where a word stands by itself.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word))
}

/// Every path that begins at `at`: one, or all of a tree in braces. Renamings are dropped.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(tree) = text.strip_prefix('{') {
        let tree = &tree[..braces(text).saturating_sub(2)];
        let (mut depth, mut begin, mut out) = (0, 0, Vec::new());
        for (i, c) in tree.char_indices().chain([(tree.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !tree[begin..i].trim().is_empty() {
                        out.extend(paths(&tree[begin..i]));
                    }
                    begin = i + 1;
                }
                _ => {}
            }
        }
        return out;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    let rest = rest.trim_start();
    match rest.strip_prefix("::") {
        // A generic argument is not a path.
        Some(rest) if !rest.trim_start().starts_with('<') => {
            let deeper = paths(rest);
            deeper.into_iter().map(|p| [vec![first.to_string()], p].concat()).collect()
        }
        _ => vec![vec![first.to_string()]],
    }
}

/// All paths into the crate that a file names, absolute, with their places.
fn imports(source: &Source) -> Vec<(usize, Vec<String>)> {
    let text = &source.text;
    let mut found = Vec::new();
    for at in words(text, "crate") {
        if let Some(rest) = text[at + 5..].trim_start().strip_prefix("::") {
            found.extend(paths(rest).into_iter().map(|p| (at, p)));
        }
    }
    for at in words(text, "super") {
        // `super::super::x` is found at its first word.
        if text[..at].trim_end().ends_with("super::") {
            continue;
        }
        for path in paths(&text[at..]) {
            let ups = path.iter().take_while(|p| *p == "super").count();
            let mut base = source.module();
            base.truncate(base.len().saturating_sub(ups));
            found.push((at, [base, path[ups..].to_vec()].concat()));
        }
    }
    found.iter_mut().for_each(|(_, path)| path.retain(|p| p != "self"));
    found
}

/// What the crate's root gives other names to: what `lib.rs` re-exports, and macros of the whole crate.
fn root_names(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for source in sources {
        if source.path == "src/lib.rs" {
            for at in words(&source.text, "use") {
                for path in paths(&source.text[at + 3..]).into_iter().filter(|p| p.len() > 1) {
                    names.insert(path[path.len() - 1].clone(), path);
                }
            }
        }
        for at in words(&source.text, "macro_rules") {
            let attributes = source.text[..at].rsplit(['}', ';']).next().unwrap_or_default();
            if attributes.contains("#[macro_export]") {
                let name = source.text[at..].trim_start_matches("macro_rules").trim_start_matches(['!', ' ']);
                let name = paths(name)[0][0].clone();
                names.insert(name.clone(), [source.module(), vec![name]].concat());
            }
        }
    }
    names
}

/// Every violation, as `file:line: what: the rule`.
fn violations(sources: &[Source]) -> Vec<String> {
    let roots = root_names(sources);
    let ops: BTreeSet<&str> =
        sources.iter().filter(|s| s.text.contains("impl Op for")).filter_map(|s| Some(s.op()?.0)).collect();
    let mut found = Vec::new();
    for source in sources {
        let mut tell = |at: usize, what: &str| found.push(format!("{}:{}: {what}", source.path, source.line(at)));
        if !source.path.starts_with("src/bin/") && source.path != "src/lib.rs" {
            for (at, path) in imports(source) {
                let path = match roots.get(path.first().map_or("", String::as_str)) {
                    Some(full) => [full.clone(), path[1..].to_vec()].concat(),
                    None => path,
                };
                if let Some(why) = bad_import(source, &path, &ops) {
                    tell(at, &format!("names crate::{}: {why}", path.join("::")));
                }
            }
        }
        bad_words(source, &mut tell);
    }
    found.sort();
    found.dedup();
    found
}

fn bad_import(source: &Source, path: &[String], ops: &BTreeSet<&str>) -> Option<String> {
    let module = source.module();
    let (own, other) = (module.first()?.as_str(), path.first()?.as_str());
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == own) else {
        return Some(format!("module `{own}` is not in the table of tests/layering.rs; give it a row"));
    };
    if !MAY_IMPORT.iter().any(|(name, _)| *name == other) {
        return Some(format!(
            "`{other}` is neither a module of the table in tests/layering.rs nor re-exported by lib.rs"
        ));
    }
    if own == other {
        let of = |path: &[String]| path.get(1).cloned().unwrap_or_default();
        let backends = ["cpu", "wgpu", "cuda"].map(String::from);
        let (mine, theirs) = (of(&module), of(path));
        if own == "backend" && backends.contains(&theirs) && mine != theirs && !mine.is_empty() {
            return Some("a backend never imports another".into());
        }
        if own == "backend" && backends.contains(&theirs) && mine.is_empty() {
            return Some("backend/mod.rs knows no backend".into());
        }
        if let Some((op, true)) = source.op()
            && ops.contains(theirs.as_str())
            && theirs != op
        {
            return Some("kernel files import no other op; its mod.rs and grad.rs may".into());
        }
        return None;
    }
    if VOCABULARY.contains(&other) || allowed.contains(&other) {
        return None;
    }
    Some(format!("`{own}` may import the vocabulary{}", allowed.iter().map(|a| format!(", {a}")).collect::<String>()))
}

fn bad_words(source: &Source, tell: &mut dyn FnMut(usize, &str)) {
    let (text, path) = (&source.text, source.path.as_str());
    if !source.may_be_unsafe() {
        words(text, "unsafe").for_each(|at| tell(at, "`unsafe` belongs in backend/ and in kernel files of ops"));
    }
    if path.starts_with("src/models") {
        let squeezed = |at: usize| text[at..].chars().filter(|c| !c.is_whitespace()).take(12).collect::<String>();
        let features = ["cfg", "cfg_attr"].into_iter().flat_map(|w| words(text, w));
        let of_feature = |&at: &usize| squeezed(at).starts_with("cfg(feature") || squeezed(at).starts_with("cfg_attr(");
        features.filter(of_feature).for_each(|at| tell(at, "models have no cfg(feature)"));
    }
    for (name, home) in [("cudarc", "src/backend/cuda"), ("wgpu", "src/backend/wgpu")] {
        if path.starts_with(home) {
            continue;
        }
        // A module of ours has the crate's name: its paths begin with another word, or it was imported as `wgpu`.
        let imported = name == "wgpu" && imports(source).iter().any(|(_, p)| p.iter().eq(["backend", "wgpu"]));
        for at in words(text, name) {
            let (before, after) = (text[..at].trim_end(), text[at + name.len()..].trim_start());
            // Inside of the tree of `use crate::backend::{wgpu::Wgpu, …}`.
            let statement = before.rsplit(';').next().unwrap_or_default();
            let tree =
                ["use crate::", "use super::"].iter().any(|u| statement.contains(u)) && before.ends_with(['{', ',']);
            let begins = ["use", "use ::", "crate"].iter().any(|b| before.ends_with(b));
            let path = after.starts_with("::") && !before.ends_with(':') && !imported && !tree;
            if name == "cudarc" || begins || path {
                tell(at, &format!("only {home} names the crate `{name}`"));
            }
        }
    }
    if !LIST_BACKENDS.contains(&path) && !path.starts_with("src/bin/") {
        let lists = ["with_device", "Kind"].into_iter().flat_map(|word| words(text, word).map(move |at| (word, at)));
        for (word, at) in lists {
            let after = text[at + word.len()..].trim_start();
            let kind =
                ["Cpu", "Wgpu", "Cuda"].iter().any(|b| after.strip_prefix("::").is_some_and(|a| a.starts_with(b)));
            if (word == "with_device" && after.starts_with('!')) || (word == "Kind" && kind) {
                tell(at, "backends are listed in device.rs and in ops/mod.rs and ops/run.rs only");
            }
        }
    }
}

fn read(folder: &Path, prefix: &str, out: &mut Vec<Source>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            read(&path, &name, out);
        } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") {
            out.push(Source::new(&name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn modules_import_from_above_only() {
    let mut sources = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "src", &mut sources);
    assert!(sources.len() > 30, "the sources were not found");
    let found = violations(&sources);
    assert!(found.is_empty(), "{} violations of the import rule:\n{}", found.len(), found.join("\n"));
}

/// Each planted violation is found, on its line, and nothing is found where there is none.
#[test]
fn planted_violations_are_found() {
    let planted: &[(&str, &str, &str)] = &[
        ("src/tensor.rs", "use crate::ops::run;", "`tensor` may import"),
        ("src/tensor.rs", "use crate::{DType, nn::{self, Linear as L}};", "`tensor` may import"),
        ("src/nn/linear.rs", "use super::super::media::Image;", "`nn` may import"),
        ("src/text/mod.rs", "fn f(t: &crate::Tensor) {}", "`text` may import"),
        ("src/checkpoint/mod.rs", "use crate::media::Image;", "`checkpoint` may import"),
        ("src/models/vit.rs", "use crate::backend::cpu::Cpu;", "`models` may import"),
        ("src/models/vit.rs", "#[cfg(feature = \"media\")]", "no cfg(feature)"),
        ("src/models/vit.rs", "fn f() { unsafe { g() } }", "`unsafe` belongs"),
        ("src/ops/copy/mod.rs", "unsafe fn f() {}", "`unsafe` belongs"),
        ("src/ops/softmax/cpu.rs", "use crate::ops::copy::Copy;", "no other op"),
        ("src/ops/softmax/cpu/wide.rs", "use super::super::super::copy::Copy;", "no other op"),
        ("src/ops/softmax/cases.rs", "use super::super::copy::Copy;", "no other op"),
        ("src/backend/wgpu/mod.rs", "use crate::backend::cpu::Buffer;", "never imports another"),
        ("src/backend/wgpu/mod.rs", "use super::cpu::Buffer;", "never imports another"),
        ("src/bench/mod.rs", "use wgpu::Instance;", "names the crate `wgpu`"),
        ("src/bench/mod.rs", "fn f() -> wgpu::Instance {}", "names the crate `wgpu`"),
        ("src/device.rs", "fn f() { cudarc::driver::init() }", "names the crate `cudarc`"),
        ("src/tensor.rs", "fn f() { with_device!(d, |B, d| 1) }", "backends are listed"),
        ("src/nn/mod.rs", "match d.kind() { Kind::Cpu(_) => 1 }", "backends are listed"),
        ("src/stray/mod.rs", "use crate::DType;", "give it a row"),
    ];
    let sound: &[(&str, &str)] = &[
        ("src/lib.rs", "pub use dtype::{DType, Elem};\npub use tensor::Tensor;"),
        ("src/ops/copy/mod.rs", "impl Op for Copy {}"),
        ("src/ops/softmax/mod.rs", "impl Op for Softmax {}\nuse crate::ops::copy::copy;"),
        (
            "src/ops/softmax/cpu.rs",
            "use crate::ops::{Real, with_lane};\nuse super::Softmax;\nfn f() { unsafe { g() } }",
        ),
        (
            "src/device.rs",
            "use crate::backend::wgpu::{self, Wgpu};\nfn f(d: wgpu::Device) { with_device!(d, |B, d| 1) }",
        ),
        ("src/tensor.rs", "// use crate::nn::X;\nconst S: &str = \"unsafe crate::nn::X\"; const Q: char = '\"';\n"),
        ("src/dtype.rs", "#[cfg(test)]\nmod tests {\n    use crate::nn::Linear;\n    fn f() { unsafe {} }\n}\n"),
        ("src/dtype.rs", "/* unsafe /* crate::nn::X */ unsafe */ fn f<'a>(x: &'a str) -> &'a str { r#\"unsafe \"\"# }"),
    ];
    let source = |&(path, text): &(&str, &str)| Source::new(path, text);
    let clean: Vec<Source> = sound.iter().map(source).collect();
    assert_eq!(violations(&clean), Vec::<String>::new());
    for (path, text, rule) in planted {
        let mut sources: Vec<Source> = sound.iter().map(source).collect();
        sources.push(Source::new(path, &format!("// one\n\n{text}\n")));
        let found = violations(&sources);
        let expected = format!("{path}:3: ");
        let hit = found.iter().any(|f| f.starts_with(&expected) && f.contains(rule));
        assert!(hit, "`{text}` in {path} gave {found:?}");
        assert!(found.iter().all(|f| f.starts_with(&expected)), "`{text}` in {path} gave {found:?}");
    }
}
