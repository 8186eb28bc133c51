//! What every command needs: the device of the flags, output that survives a closed pipe, progress bars.

use indicatif::{ProgressBar, ProgressStyle};
use lapidary::bench::Pattern;
use lapidary::checkpoint::Folder;
use lapidary::models;
use lapidary::text::{ChatTemplate, Tokenizer};
use lapidary::{Device, Error, Result};
use regex_lite::Regex;
use std::io::{ErrorKind, Write};

/// Options of all commands.
#[derive(clap::Args)]
pub struct Shared {
    /// Where to compute: cpu, wgpu, cuda, emulator; a GPU with an index or a name after a colon
    #[arg(long, global = true, value_name = "NAME", default_value = "cpu")]
    pub device: String,

    /// Threads of the CPU; a bench takes several numbers, joined by commas [default: all processors]
    #[arg(long, global = true, value_name = "N", value_delimiter = ',')]
    pub threads: Vec<usize>,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// How a command that could do its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success,
    /// Something was compared and differs.
    CheckFailed,
}

impl Status {
    pub fn passed(passed: bool) -> Status {
        if passed { Status::Success } else { Status::CheckFailed }
    }
}

impl Shared {
    /// The device, for commands that need one.
    pub fn device(&self) -> Result<Device> {
        if self.threads.len() > 1 {
            return Err(Error::Config("--threads: only `bench` takes several numbers".into()));
        }
        let mut devices = self.devices()?;
        Ok(devices.remove(0))
    }

    /// One device for each number of threads; at least one.
    pub fn devices(&self) -> Result<Vec<Device>> {
        match (self.device.as_str(), self.threads.as_slice()) {
            (name, []) => Ok(vec![Device::open(name)?]),
            ("cpu", threads) => threads.iter().map(|&n| Device::cpu_with_threads(n)).collect(),
            (name, _) => {
                Device::open(name)?;
                Err(Error::Config(format!("--threads is for the cpu, not for {name}")))
            }
        }
    }
}

/// Writes a result to stdout. `text` has its line ends.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::io("stdout", e))
}

/// Prints, if it is `wanted`, what kernels did since the last time: to stderr, beside the result.
pub fn print_meter(wanted: bool, device: &Device) -> Result<()> {
    match (wanted, device.meter()) {
        (false, _) => {}
        (true, Some(table)) => note(&table),
        (true, None) => return Err(Error::Config("--meter: only the device emulator counts what kernels do".into())),
    }
    Ok(())
}

/// The chat template of a name, else the model's own, if it has one.
pub fn chat_template(folder: &Folder, tokenizer: &Tokenizer, name: Option<&str>) -> Result<Option<ChatTemplate>> {
    match name {
        Some(name) => Ok(Some(ChatTemplate::built_in(name)?.with_tokens(tokenizer))),
        None => models::chat_template(folder, tokenizer),
    }
}

/// Writes a line to stderr. Where nobody reads it, nobody can be told.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether the reader of stdout went away, as `head` does: not an error of ours.
pub fn is_closed_pipe(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe)
}

/// Makes text from a file safe for a terminal: control characters are escaped.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A regular expression that names are searched for; without one every name matches.
pub fn pattern(text: Option<&str>) -> Result<Pattern<'static>> {
    let Some(text) = text else { return Ok(Pattern::any()) };
    let regex = Regex::new(text).map_err(|e| Error::parse("a regular expression", text, e.to_string()))?;
    Ok(Pattern::new(text, move |name| regex.is_match(name)))
}

/// A bar on stderr that counts; hidden where stderr is not a terminal.
pub fn progress(total: u64, unit: &str) -> ProgressBar {
    bar(total, &format!("{{bar:40}} {{pos}}/{{len}} {unit}, eta {{eta}}"))
}

/// As [`progress`], of bytes.
pub fn progress_bytes(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, eta {eta}")
}

fn bar(total: u64, template: &str) -> ProgressBar {
    ProgressBar::new(total).with_style(ProgressStyle::with_template(template).expect("the templates above are sound"))
}

/// Says on stderr what is going on, while it goes on; hidden where stderr is not a terminal.
pub fn spinner(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    spinner
}
