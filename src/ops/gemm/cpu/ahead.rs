//! Memory that is asked for while a tile multiplies, a line every few steps.

use crate::backend::cpu::simd::fetch_line;

/// Bytes that memory is asked for in.
const LINE: usize = 64;

/// Rows of memory at a distance, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    first: *const u8,
    stride: usize,
    bytes: usize,
    rows: usize,
}

impl Lines {
    pub const NONE: Lines = Lines { first: std::ptr::null(), stride: 0, bytes: 0, rows: 0 };

    /// So many rows of `bytes` bytes from `first` on.
    pub fn new<T>(first: *const T, stride: usize, bytes: usize, rows: usize) -> Lines {
        Lines { first: first.cast(), stride, bytes, rows }
    }

    pub fn of<T>(all: &[T]) -> Lines {
        Lines::new(all.as_ptr(), 0, size_of_val(all), 1)
    }

    /// Calls `ask` with every line.
    pub fn each(&self, ask: impl Fn(*const u8)) {
        for row in 0..self.rows {
            (0..self.per_row()).for_each(|line| ask(self.first.wrapping_add(row * self.stride + line * LINE)));
        }
    }

    fn per_row(&self) -> usize {
        self.bytes.div_ceil(LINE)
    }
}

/// Requests of a tile, spread over its steps. Tiles have it by reference: fields that are stored one by one and copied two at a
/// time wait for every store before them, which are those of results (5 % of a product whose result is large).
pub(super) struct Ahead {
    /// Its share of the next piece of rhs, and rows of lhs that come next.
    wanted: [Lines; 2],
    /// The one whose rows are being asked for, the next line of a row, and lines that follow it in the row.
    turn: usize,
    line: *const u8,
    left: usize,
    /// Steps from one request to the next.
    pub every: usize,
}

impl Ahead {
    /// For a tile of so many steps.
    pub fn new(rhs: Lines, lhs: Lines, steps: usize) -> Ahead {
        let wanted = [rhs, lhs];
        let lines: usize = wanted.iter().map(|w| w.rows * w.per_row()).sum();
        Ahead { wanted, turn: 0, line: std::ptr::null(), left: 0, every: (steps / lines.max(1)).max(1) }
    }

    /// The first line of rhs, and the number of lines.
    pub fn rhs(&self) -> (*const u8, usize) {
        (self.wanted[0].first, self.wanted[0].per_row())
    }

    #[inline(always)]
    pub fn fetch(&mut self) {
        while self.left == 0 {
            let Some(wanted) = self.wanted.get_mut(self.turn) else { return };
            if wanted.rows == 0 {
                self.turn += 1;
                continue;
            }
            (self.line, self.left) = (wanted.first, wanted.per_row());
            wanted.first = wanted.first.wrapping_add(wanted.stride);
            wanted.rows -= 1;
        }
        fetch_line(self.line);
        self.line = self.line.wrapping_add(LINE);
        self.left -= 1;
    }
}
