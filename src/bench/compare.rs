//! Results of benches of several programs, joined by case: who is ahead, by how much, and how far from the limit.

use super::table::{Table, seconds};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// The name under which this engine's own lines are known.
const OURS: &str = "lapidary";

/// One line of a bench: `{"peer", "case", "dtype", "threads", "min_s", "cpu_s", …}`.
struct Entry {
    peer: String,
    key: Key,
    seconds: f64,
    /// The least seconds that the measured limits of the machine allow.
    limit: Option<f64>,
    /// The most memory that was resident, in units of 2^20 bytes.
    rss_mb: Option<f64>,
}

#[derive(Clone, PartialEq)]
struct Key {
    case: String,
    dtype: String,
    threads: u64,
}

/// A program's result: the best of its rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    pub peer: String,
    pub seconds: f64,
    /// How much slower the middle one of the rounds was, as a share of the best: one that was disturbed excuses nothing.
    pub spread: f64,
    pub rounds: usize,
    /// The most memory that was resident in the best round, in units of 2^20 bytes, where it was measured.
    pub rss_mb: Option<f64>,
    limit: Option<f64>,
}

/// This engine and the fastest of the others on one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub case: String,
    pub dtype: String,
    pub threads: u64,
    pub ours: Best,
    pub peer: Option<Best>,
}

/// Where this engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Ahead,
    /// Slower, by no more than rounds of either differ among themselves.
    Even,
    Behind,
}

impl Compared {
    /// The peer's time divided by ours.
    pub fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|peer| peer.seconds / self.ours.seconds)
    }

    /// Who is ahead; `None` where nobody else has the case.
    pub fn standing(&self) -> Option<Standing> {
        let (peer, ratio) = (self.peer.as_ref()?, self.ratio()?);
        let spread = 1.0 + self.ours.spread.max(peer.spread);
        Some(match ratio {
            r if r >= 1.0 => Standing::Ahead,
            r if r * spread >= 1.0 => Standing::Even,
            _ => Standing::Behind,
        })
    }

    fn percent_of_limit(&self) -> Option<f64> {
        self.ours.limit.map(|limit| 100.0 * limit / self.ours.seconds)
    }

    /// As an object.
    pub fn json(&self) -> Value {
        let best = |b: &Best| json!({"peer": b.peer, "s": b.seconds, "spread": b.spread, "rounds": b.rounds, "peak_rss_mb": b.rss_mb});
        json!({
            "case": self.case, "dtype": self.dtype, "threads": self.threads, "ours": best(&self.ours),
            "percent_of_limit": self.percent_of_limit(), "best_peer": self.peer.as_ref().map(best),
            "ratio": self.ratio(), "standing": self.standing().map(Standing::name),
        })
    }
}

impl Standing {
    fn name(self) -> &'static str {
        match self {
            Standing::Ahead => "ahead",
            Standing::Even => "even",
            Standing::Behind => "behind",
        }
    }
}

impl Entry {
    /// `None` for lines that are about something else: limits of the machine, cases that a program cannot do.
    ///
    /// One thread is judged by the processor time it took, which other work on the machine changes least; several by the
    /// clock.
    fn read(line: &Map<String, Value>) -> Option<Entry> {
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_string);
        let number = |key: &str| line.get(key).and_then(Value::as_f64).filter(|&s| s > 0.0);
        let case = text("case").filter(|case| !case.starts_with("roof/"))?;
        let key = Key { case, dtype: text("dtype")?, threads: line.get("threads")?.as_u64()? };
        let wall = number("min_s")?;
        let seconds = number("cpu_s").filter(|_| key.threads == 1).unwrap_or(wall);
        // The share is printed of the median.
        let limit = number("percent_of_peak").zip(number("median_s")).map(|(percent, s)| percent / 100.0 * s);
        Some(Entry { peer: text("peer")?, key, seconds, limit, rss_mb: number("peak_rss_mb") })
    }
}

/// Joins lines of benches, of any number of rounds and in any order. Lines that are no objects are passed over. Cases are in
/// the order in which this engine has them.
///
/// # Errors
/// Lines of this engine say that a result was wrong, or there are none.
pub fn compare<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<Compared>> {
    let mut entries = Vec::new();
    for line in lines {
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { continue };
        if line.get("passed") == Some(&Value::Bool(false)) {
            let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or("unknown").to_string();
            return Err(Error::Wrong { problem: text("case"), kernel: text("kernel"), why: text("error") });
        }
        entries.extend(Entry::read(&line));
    }
    let mut keys: Vec<&Key> = Vec::new();
    for entry in entries.iter().filter(|e| e.peer == OURS) {
        if !keys.contains(&&entry.key) {
            keys.push(&entry.key);
        }
    }
    if keys.is_empty() {
        let why = format!("no line is of {OURS}: make some with `bench --preset peers --json`");
        return Err(Error::Config(why));
    }
    let of = |key: &Key| {
        let all: Vec<Best> = bests(entries.iter().filter(|e| e.key == *key));
        let (ours, peers): (Vec<Best>, Vec<Best>) = all.into_iter().partition(|b| b.peer == OURS);
        let peer = peers.into_iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let Key { case, dtype, threads } = key.clone();
        ours.into_iter().next().map(|ours| Compared { case, dtype, threads, ours, peer })
    };
    Ok(keys.into_iter().filter_map(of).collect())
}

/// The best round of each program.
fn bests<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Best> {
    let mut programs: Vec<Vec<&Entry>> = Vec::new();
    for e in entries {
        match programs.iter_mut().find(|rounds| rounds[0].peer == e.peer) {
            Some(rounds) => rounds.push(e),
            None => programs.push(vec![e]),
        }
    }
    let best = |mut rounds: Vec<&Entry>| {
        rounds.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let (best, middle) = (rounds[0], rounds[rounds.len() / 2]);
        let spread = middle.seconds / best.seconds - 1.0;
        let Entry { peer, seconds, limit, rss_mb, .. } = best;
        Best { peer: peer.clone(), seconds: *seconds, spread, rounds: rounds.len(), rss_mb: *rss_mb, limit: *limit }
    };
    programs.into_iter().map(best).collect()
}

/// As a table, with a line that counts below it. Memory has its columns where somebody measured it.
pub fn compared_table(all: &[Compared]) -> String {
    let titles = [
        "case",
        "dtype",
        ">threads",
        ">ours",
        ">±%",
        ">% of limit",
        "best peer",
        ">its time",
        ">±%",
        ">ratio",
        "",
        ">MB",
        ">its MB",
    ];
    let memory = all.iter().any(|c| c.ours.rss_mb.is_some());
    let titles = &titles[..titles.len() - if memory { 0 } else { 2 }];
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let row = |c: &Compared| -> Vec<String> {
        let peer = c.peer.as_ref();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        let megabytes = |mb: f64| format!("{mb:.0}");
        vec![
            c.case.clone(),
            c.dtype.clone(),
            c.threads.to_string(),
            seconds(c.ours.seconds),
            percent(c.ours.spread),
            or_none(c.percent_of_limit().map(|p| format!("{p:.0}"))),
            or_none(peer.map(|p| p.peer.clone())),
            or_none(peer.map(|p| seconds(p.seconds))),
            or_none(peer.map(|p| percent(p.spread))),
            or_none(c.ratio().map(|r| format!("{r:.2}"))),
            c.standing().map_or("", Standing::name).into(),
            or_none(c.ours.rss_mb.map(megabytes)),
            or_none(peer.and_then(|p| p.rss_mb).map(megabytes)),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(|c| row(c).into_iter().take(titles.len()).collect()).collect();
    let count = |standing| all.iter().filter(|c| c.standing() == standing).count();
    let [ahead, even, behind] = [Standing::Ahead, Standing::Even, Standing::Behind].map(|s| count(Some(s)));
    let table = Table::render(titles, &rows);
    format!("{table}\n{ahead} ahead, {even} even within the spread of rounds, {behind} behind; {} alone\n", count(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"
loading weights
{"peer":"lapidary","case":"roof/fma512","threads":1,"dtype":"f32","min_s":null,"gflops":179.0}
{"peer":"lapidary","case":"softmax/9x9","threads":1,"dtype":"f32","median_s":0.004,"min_s":0.003,"cpu_s":0.002,"percent_of_peak":25.0}
{"peer":"lapidary","case":"softmax/9x9","threads":1,"dtype":"f32","median_s":0.005,"min_s":0.003,"cpu_s":0.0025,"percent_of_peak":20.0}
{"peer":"lapidary","case":"softmax/9x9","threads":2,"dtype":"f32","median_s":0.004,"min_s":0.003,"cpu_s":0.002}
{"peer":"lapidary","case":"alone","threads":1,"dtype":"f32","median_s":0.1,"min_s":0.1}
{"peer":"torch","case":"softmax/9x9","threads":1,"dtype":"f32","median_s":0.004,"min_s":0.001,"cpu_s":0.004}
{"peer":"torch","case":"softmax/9x9","threads":2,"dtype":"f32","median_s":0.004,"min_s":0.0028,"cpu_s":0.001}
{"peer":"torch","case":"softmax/9x9","threads":2,"dtype":"f32","median_s":0.004,"min_s":0.0035,"cpu_s":0.001}
{"peer":"ort","case":"softmax/9x9","threads":1,"dtype":"f32","median_s":0.004,"min_s":0.001,"cpu_s":0.005,"peak_rss_mb":9.5}
{"peer":"ort","case":"softmax/9x9","threads":2,"dtype":"f32","median_s":null,"min_s":null,"runs":0,"error":"cannot"}
{"peer":"ort","case":"softmax/9x9","threads":1,"dtype":"bf16","median_s":0.001,"min_s":0.001,"cpu_s":0.001}
"#;

    #[test]
    fn lines_are_joined_by_the_best_of_rounds() {
        let all = compare(LINES.lines()).unwrap();
        assert_eq!(all.len(), 3);
        // One thread by processor time: torch's shorter wall time does not count.
        let one = &all[0];
        assert_eq!((one.threads, one.ours.seconds, one.ours.rounds), (1, 0.002, 2));
        assert!((one.ours.spread - 0.25).abs() < 1e-9 && (one.percent_of_limit().unwrap() - 50.0).abs() < 1e-9);
        assert_eq!(one.peer.as_ref().unwrap().peer, "torch");
        assert_eq!((one.ratio(), one.standing()), (Some(2.0), Some(Standing::Ahead)));
        // Two by wall time: slower than torch's best round by 7 %, which is within the 25 % of torch's rounds.
        assert_eq!((all[1].threads, all[1].standing()), (2, Some(Standing::Even)));
        assert!((all[1].ratio().unwrap() - 0.0028 / 0.003).abs() < 1e-9);
        assert_eq!((all[2].ratio(), all[2].standing()), (None, None));
        let table = compared_table(&all);
        assert!(!table.contains("MB"), "nobody here measured ours: {table}");
        assert!(
            table.contains("torch")
                && table.ends_with("1 ahead, 1 even within the spread of rounds, 0 behind; 1 alone\n")
        );
    }

    #[test]
    fn wrong_results_and_missing_ones_are_errors() {
        let wrong = r#"{"peer":"lapidary","case":"a","threads":1,"dtype":"f32","passed":false,"error":"x"}"#;
        assert!(matches!(compare([wrong]), Err(Error::Wrong { .. })));
        assert!(matches!(compare(["{}", "no object"]), Err(Error::Config(_))));
    }
}
