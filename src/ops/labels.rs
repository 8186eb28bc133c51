//! The class of each row, as `cross_entropy` and its gradient read it; this is no op.

use crate::backend::{Launch, cpu::Cpu};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// The class that a label names; `None` for a row that does not count: a negative label, or the one to ignore.
pub(super) fn class(label: i64, ignore: i64) -> Option<usize> {
    if label == ignore { None } else { usize::try_from(label).ok() }
}

/// The label to ignore, where labels of this dtype can be it; negative ones never count anyhow.
pub(super) fn ignored(dtype: DType, ignore: i64) -> Option<u32> {
    let most = if dtype == DType::I32 { i32::MAX as u32 } else { u32::MAX };
    u32::try_from(ignore).ok().filter(|&label| label <= most)
}

/// # Errors
/// Neither u32 nor i32.
pub(super) fn check_dtype(op: &'static str, labels: DType) -> Result<()> {
    if matches!(labels, DType::U32 | DType::I32) {
        return Ok(());
    }
    Err(Error::problem(op, format!("labels are u32 or i32, got {labels}")))
}

/// Labels of a launch on the CPU, none beyond the classes.
pub(super) struct Labels<'a> {
    labels: Numbers<'a>,
    ignore: i64,
}

enum Numbers<'a> {
    U32(&'a [u32]),
    I32(&'a [i32]),
}

impl<'a> Labels<'a> {
    /// From operand `i`.
    ///
    /// # Errors
    /// A row that counts has a label that is not below `classes`.
    pub fn new(
        op: &'static str,
        l: &Launch<'a, Cpu>,
        i: usize,
        dtype: DType,
        ignore: i64,
        classes: usize,
    ) -> Result<Labels<'a>> {
        let (labels, rows) = match dtype {
            DType::U32 => (Numbers::U32(l.input(i)), l.input::<u32>(i).len()),
            _ => (Numbers::I32(l.input(i)), l.input::<i32>(i).len()),
        };
        let labels = Labels { labels, ignore };
        let beyond = |row: usize| labels.class(row).filter(|&class| class >= classes).map(|class| (row, class));
        match (0..rows).find_map(beyond) {
            Some((index, class)) => Err(Error::Index { op, value: class as u64, index, limit: classes as u64 }),
            None => Ok(labels),
        }
    }

    /// The class of a row that counts.
    pub fn class(&self, row: usize) -> Option<usize> {
        let label = match self.labels {
            Numbers::U32(labels) => labels[row].into(),
            Numbers::I32(labels) => labels[row].into(),
        };
        class(label, self.ignore)
    }
}
