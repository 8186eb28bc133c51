//! Which problems a check or a bench is about.

use super::operands::{Arrangement, Call};
use super::peers::peers_calls;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{AnyCase, CATALOG};
use std::collections::HashSet;

/// What a name has to match, and the text that says so in messages.
pub struct Pattern<'a> {
    text: String,
    matches: Box<dyn Fn(&str) -> bool + 'a>,
}

impl<'a> Pattern<'a> {
    /// Any predicate, with the text that the user gave for it.
    pub fn new(text: &str, matches: impl Fn(&str) -> bool + 'a) -> Pattern<'a> {
        Pattern { text: text.into(), matches: Box::new(matches) }
    }

    /// Every name.
    pub fn any() -> Pattern<'a> {
        Pattern::new("", |_| true)
    }

    /// Names that contain one of the words; every name if there are none.
    pub fn words(words: &'a [String]) -> Pattern<'a> {
        Pattern::new(&words.join(" "), |name| words.is_empty() || words.iter().any(|w| name.contains(w.as_str())))
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        (self.matches)(name)
    }
}

/// A choice of cases that people ask for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Every case that benches of other libraries have too.
    Peers,
    /// The few that the command line shows when it is run without a command.
    Headline,
}

/// The headline's cases in order; those that the catalog lacks are left out.
const HEADLINE: &[&str] = &[
    "linear/1024x1024x1024",
    "linear/197x3072x768",
    "linear/577x4096x1024",
    "linear/1x4096x4096",
    "attn/vit_b",
    "attn/vit_l_336",
    "layernorm/577x1024",
    "gelu_erf/577x1024",
    "softmax/577x1024",
    "patchify(height=336,width=336,patch_h=14,patch_w=14)",
    "rvq_encode/1500x128x2048x4",
];

impl Preset {
    /// What the preset has of the ops and cases whose names match, in its order.
    ///
    /// # Errors
    /// It has none of them.
    pub fn calls(self, op: &Pattern<'_>, case: &Pattern<'_>) -> Result<Vec<Call>> {
        let mut more = if self == Preset::Peers { peers_calls()? } else { Vec::new() };
        more.retain(|c| op.matches(c.problem.name()) && case.matches(c.case));
        let named = match cases(op, case) {
            Err(_) if !more.is_empty() => Vec::new(),
            all => self.choose(all?),
        };
        let calls: Vec<Call> = named.into_iter().map(Call::from).chain(more).collect();
        match calls.is_empty() {
            true => Err(Error::Config("the preset has none of the ops and cases that were chosen".into())),
            false => Ok(calls),
        }
    }

    fn choose(self, cases: Vec<AnyCase>) -> Vec<AnyCase> {
        let place = |c: &AnyCase| match self {
            Preset::Peers => c.name.contains('/').then_some(0),
            Preset::Headline => HEADLINE.iter().position(|&name| name == c.name || name == c.problem.text()),
        };
        let mut chosen: Vec<AnyCase> = cases.into_iter().filter(|c| place(c).is_some()).collect();
        chosen.sort_by_key(|c| place(c));
        chosen
    }
}

/// The cases of the ops whose names match, and whose own names or texts match.
///
/// # Errors
/// One of the patterns matches nothing; the message lists what there is.
pub fn cases(op: &Pattern<'_>, case: &Pattern<'_>) -> Result<Vec<AnyCase>> {
    let entries: Vec<_> = CATALOG.iter().filter(|e| op.matches(e.name)).collect();
    if entries.is_empty() {
        let known: Vec<&str> = CATALOG.iter().map(|e| e.name).collect();
        return Err(Error::parse("a choice of ops", &op.text, format!("matches none of {}", known.join(", "))));
    }
    let all: Vec<AnyCase> = entries.iter().flat_map(|e| (e.cases)()).collect();
    let mut known: Vec<&str> = all.iter().map(|c| c.name).filter(|n| !n.is_empty()).collect();
    known.sort_unstable();
    known.dedup();
    let why = format!("matches no problem; names are {}", known.join(", "));
    let matching = |c: &AnyCase| !c.name.is_empty() && case.matches(c.name) || case.matches(&c.problem.text());
    let chosen: Vec<AnyCase> = all.into_iter().filter(matching).collect();
    if chosen.is_empty() { Err(Error::parse("a choice of cases", &case.text, why)) } else { Ok(chosen) }
}

impl Call {
    /// Calls with their operands in the formats that a device's kernels read, those of named cases in the format that models
    /// would take; each once.
    pub fn for_device(calls: Vec<Call>, device: &Device) -> Vec<Call> {
        let mut seen = HashSet::new();
        let adapted = calls.into_iter().map(|c| {
            let problem = if c.case.is_empty() { c.problem.for_device(device) } else { c.problem.prepared(device) };
            let then = c.then.as_ref().map(|then| then.prepared(device));
            Call { problem, then, ..c }
        });
        adapted.filter(|c| seen.insert((c.case, c.problem.text(), c.then.as_ref().map(|t| t.text())))).collect()
    }
}

impl From<AnyCase> for Call {
    fn from(case: AnyCase) -> Call {
        Call { case: case.name, problem: case.problem, arrangement: Arrangement::Contiguous, then: None }
    }
}
