//! The one error type. Every message names the op, shape, dtype, file or tensor concerned and what to do about it.

use std::path::{Path, PathBuf};

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why one kernel row cannot take a problem: `what` was `have` where `want` is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unsupported {
    /// The limit or property concerned, such as `"head_dim at most"` or `"cpu feature avx512f"`.
    pub what: &'static str,
    /// The problem's value.
    pub have: u64,
    /// The row's value.
    pub want: u64,
}

impl Unsupported {
    /// `Ok` where `have == want`.
    pub fn equal(what: &'static str, have: impl TryInto<u64>, want: impl TryInto<u64>) -> Result<(), Unsupported> {
        let (have, want) = (have.try_into().unwrap_or(u64::MAX), want.try_into().unwrap_or(u64::MAX));
        if have == want { Ok(()) } else { Err(Unsupported { what, have, want }) }
    }

    /// `Ok` where `have <= want`.
    pub fn at_most(what: &'static str, have: impl TryInto<u64>, want: impl TryInto<u64>) -> Result<(), Unsupported> {
        let (have, want) = (have.try_into().unwrap_or(u64::MAX), want.try_into().unwrap_or(u64::MAX));
        if have <= want { Ok(()) } else { Err(Unsupported { what, have, want }) }
    }

    /// `Ok` where the condition holds; the numbers then read 0 for no and 1 for yes.
    pub fn require(what: &'static str, holds: bool) -> Result<(), Unsupported> {
        if holds { Ok(()) } else { Err(Unsupported { what, have: 0, want: 1 }) }
    }
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.have, self.want) {
            (0, 1) => write!(f, "needs {}", self.what),
            (have, want) => write!(f, "{}: has {have}, takes {want}", self.what),
        }
    }
}

/// Everything that can go wrong. The library never panics on input; it returns one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The fields of a problem contradict each other or are out of range.
    #[error("{op}: {why}")]
    Problem { op: &'static str, why: String },

    /// An operand handed to `run` is not the one that the problem describes.
    #[error("{problem}: operand `{operand}` must be {want}, got {have}")]
    Operand { problem: String, operand: &'static str, want: String, have: String },

    /// No kernel of the device takes the problem.
    #[error("{problem}: no kernel on {device}{}", rows_text(.rows))]
    NoKernel { problem: String, device: String, rows: Vec<(&'static str, Unsupported)> },

    /// A kernel was asked for by name that cannot take the problem or does not exist.
    #[error("{problem}: kernel `{row}` cannot run on {device}: {why}")]
    Row { problem: String, row: String, device: String, why: String },

    /// A kernel's result is not what the reference says.
    #[error("{problem}: wrong result of {kernel}: {why}")]
    Wrong { problem: String, kernel: String, why: String },

    /// Writing in place to storage that somebody else holds, or that is a mapped file.
    #[error("{what}: cannot be written in place: {why}; copy it first")]
    Aliased { what: String, why: &'static str },

    /// A view that the layout does not allow.
    #[error("{view} of a tensor of shape {shape}: {why}")]
    View { view: &'static str, shape: String, why: String },

    /// A value does not fit the dtype that it is cast to.
    #[error("cannot cast {value} at index {index} to {dtype}: out of range")]
    Cast { value: String, index: usize, dtype: crate::DType },

    /// An index operand points outside of what it indexes.
    #[error("{op}: index {value} at place {index} is not below {limit}")]
    Index { op: &'static str, value: u64, index: usize, limit: u64 },

    /// Memory could not be had.
    #[error("{device}: cannot allocate {bytes} bytes")]
    Memory { device: String, bytes: usize },

    /// A problem that the device cannot take for its size.
    #[error("device {device}: {what} of {bytes} bytes is beyond its limit of {limit} bytes; use a smaller problem")]
    TooLarge { device: String, what: String, bytes: u64, limit: u64 },

    /// A device is missing, was built without its feature, or failed.
    #[error("device {device}: {why}")]
    Device { device: String, why: String },

    /// Text that does not parse: a problem, a dtype, an option.
    #[error("cannot read {what} from `{text}`: {why}")]
    Parse { what: &'static str, text: String, why: String },

    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },

    /// A file whose content is not what it should be.
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },

    /// A tensor that a model needs and a checkpoint lacks.
    #[error("{}: no tensor `{name}`{}", path.display(), nearest_text(.nearest))]
    MissingTensor { path: PathBuf, name: String, nearest: Vec<String> },

    /// A tensor whose shape or dtype is not the one that the model needs.
    #[error("{}: tensor `{name}` must be {want}, is {have}", path.display())]
    WrongTensor { path: PathBuf, name: String, want: String, have: String },

    /// A model configuration that contradicts itself or asks for what does not exist.
    #[error("config: {0}")]
    Config(String),

    /// A picture, sound or text that cannot be processed.
    #[error("{0}")]
    Media(String),

    /// Something a model, task or build does not do (yet); never silently replaced by something else.
    #[error("not supported: {0}")]
    NotSupported(String),
}

impl Error {
    /// A problem's own complaint.
    pub fn problem(op: &'static str, why: impl Into<String>) -> Error {
        Error::Problem { op, why: why.into() }
    }

    /// A file that cannot be read or written.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Error {
        Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A file whose content is wrong.
    pub fn file(path: impl AsRef<Path>, why: impl Into<String>) -> Error {
        Error::File { path: path.as_ref().to_path_buf(), why: why.into() }
    }

    /// Text that does not parse.
    pub fn parse(what: &'static str, text: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Parse { what, text: text.into(), why: why.into() }
    }
}

fn rows_text(rows: &[(&'static str, Unsupported)]) -> String {
    if rows.is_empty() {
        return ": it has none for this op yet".into();
    }
    rows.iter().map(|(name, why)| format!("\n  {name}: {why}")).collect()
}

fn nearest_text(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; nearest names: {}", nearest.join(", ")) }
}
