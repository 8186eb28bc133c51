//! How parts of a kernel's work share memory and ranges.

use super::Caps;
use std::ops::{Range, RangeInclusive};
use std::sync::{Mutex, PoisonError};

/// Scratch memory for every thread.
pub struct Slots<'a>(Mutex<Vec<&'a mut [f32]>>);

impl<'a> Slots<'a> {
    /// Cuts memory into slots of `len` elements.
    pub fn new(scratch: &'a mut [f32], len: usize) -> Slots<'a> {
        Slots(Mutex::new(scratch.chunks_exact_mut(len).collect()))
    }

    /// Bytes of memory for a slot of `len` elements for each thread.
    pub fn bytes(caps: &Caps, len: usize) -> usize {
        caps.threads * len * size_of::<f32>()
    }

    /// Runs a part on a slot, which holds arbitrary values.
    pub fn with(&self, part: impl FnOnce(&mut [f32])) {
        let slots = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots().pop().expect("a thread works on one part at a time, and each has a slot");
        part(slot);
        slots().push(slot);
    }
}

/// Range `i` of the `parts` of nearly equal size that `0..len` is dealt out to.
pub fn deal(len: usize, parts: usize, i: usize) -> Range<usize> {
    len * i / parts..len * (i + 1) / parts
}

/// Parts of so many rows, as many for each thread, if that is possible, where a part has as many rows as `allowed`.
pub fn parts_of(rows: usize, allowed: RangeInclusive<usize>, threads: usize) -> usize {
    rows.div_ceil(*allowed.end()).next_multiple_of(threads).min(rows.div_ceil(*allowed.start()))
}

/// Rows of each of these parts.
pub fn rows_of_part(rows: usize, allowed: RangeInclusive<usize>, threads: usize) -> usize {
    rows.div_ceil(parts_of(rows, allowed, threads))
}
