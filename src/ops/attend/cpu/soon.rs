//! Rows that will be wanted soon, brought closer while others are worked on.
//!
//! Rows of a head lie pages apart, where the processor does not follow by itself; without this, packing them waits for the
//! outer caches or for memory.

use crate::backend::cpu::simd::{LINE, fetch_line};

/// Rows at a distance.
#[derive(Clone, Copy)]
pub struct Soon {
    pub next: *const u8,
    /// Bytes between rows, and of a row.
    pub stride: usize,
    pub bytes: usize,
    pub left: usize,
}

impl Soon {
    pub const NONE: Soon = Soon { next: std::ptr::null(), stride: 0, bytes: 0, left: 0 };

    /// Asks for up to `n` more of them.
    #[inline(always)]
    pub fn fetch(&mut self, n: usize) {
        for _ in 0..n.min(self.left) {
            for at in (0..self.bytes).step_by(LINE) {
                fetch_line(self.next.wrapping_add(at));
            }
            self.next = self.next.wrapping_add(self.stride);
            self.left -= 1;
        }
    }
}
