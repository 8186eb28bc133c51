//! Memory that is asked for while a tile multiplies, a little with every step.

use crate::backend::cpu::simd::LINE;

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

/// Steps of a tile that ask for neighbouring memory: each for the line at `at`, which is `by` bytes further with every step. Many
/// ask for a line once more, which costs a load, but no branch: a tile whose loop ends every two to four steps takes 13 to 18 %
/// longer, every eight 10 %, every sixteen 5 %, whether it asks for anything there or not (Xeon, family 6, model 167; in C).
pub(super) struct Stretch {
    pub at: *const u8,
    pub by: usize,
    pub steps: usize,
}

/// Requests of a tile, spread over its steps. Tiles have it by reference: fields that are stored one by one and copied two at a
/// time wait for every store before them, which are those of results (5 % of a product whose result is large).
pub(super) struct Ahead {
    /// Its share of the next piece of rhs, and rows of lhs that come next.
    wanted: [Lines; 2],
    /// Steps that are left.
    pub steps: usize,
    /// Bytes that each asks for.
    by: usize,
}

impl Ahead {
    /// For a tile of so many steps.
    pub fn new(rhs: Lines, lhs: Lines, steps: usize) -> Ahead {
        let wanted = [rhs, lhs];
        let bytes: usize = wanted.iter().map(|w| w.rows * w.bytes).sum();
        Ahead { wanted, steps, by: bytes.div_ceil(steps.max(1)).clamp(1, LINE) }
    }

    /// Of rhs and of lhs the first row, which of packed lhs is all: its first line, and the number of lines.
    pub fn first_rows(&self) -> [(*const u8, usize); 2] {
        self.wanted.each_ref().map(|wanted| (wanted.first, wanted.per_row()))
    }
}

/// As many steps as the tile has.
impl Iterator for &mut Ahead {
    type Item = Stretch;

    #[inline(always)]
    fn next(&mut self) -> Option<Stretch> {
        if self.steps == 0 {
            return None;
        }
        let by = self.by;
        let mut stretch = match self.wanted.iter_mut().find(|wanted| wanted.rows * wanted.bytes > 0) {
            Some(row) => {
                let at = row.first;
                row.first = at.wrapping_add(row.stride);
                row.rows -= 1;
                Stretch { at, by, steps: row.bytes.div_ceil(by) }
            }
            // What is left asks for what is at hand.
            None => Stretch { at: std::ptr::from_ref::<Ahead>(self).cast(), by: 0, steps: usize::MAX },
        };
        stretch.steps = stretch.steps.min(self.steps);
        self.steps -= stretch.steps;
        Some(stretch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_as_long_as_the_tile_and_ask_for_every_line() {
        let memory = [0u8; 4096];
        for (bytes, rows, steps) in [(2048, 3, 512), (100, 1, 512), (64, 2, 3), (4096, 0, 7), (0, 5, 9), (640, 1, 1)] {
            let rhs = &memory[..bytes];
            let mut ahead = Ahead::new(Lines::of(rhs), Lines::new(memory.as_ptr(), 1024, 640, rows), steps);
            let (mut asked, mut walked) = (Vec::new(), 0);
            for Stretch { at, by, steps } in &mut ahead {
                walked += steps;
                asked.extend((0..steps).map(|step| at.wrapping_add(step * by) as usize / LINE));
            }
            assert_eq!(walked, steps);
            let lines = Lines::of(rhs).per_row() + rows * 10;
            if lines < steps {
                Lines::of(rhs).each(|line| assert!(asked.contains(&(line as usize / LINE))));
                let last = memory.as_ptr().wrapping_add(rows.saturating_sub(1) * 1024) as usize / LINE;
                assert!(rows == 0 || (last..last + 10).all(|line| asked.contains(&line)));
            }
        }
    }
}
