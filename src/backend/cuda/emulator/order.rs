//! Which accesses to shared memory are ordered.
//!
//! Each warp has a clock and knows how far it has seen the clocks of the others; a barrier tells what each member knew to
//! all of them and moves their clocks on. For every byte the last write and the reads since then are kept as (warp, clock). An
//! access is ordered behind an earlier one if its warp has seen that clock; if it has not, the two race, whatever order they
//! happened to run in (Flanagan and Freund, "FastTrack", PLDI 2009). Lanes of one warp are ordered by lock step.

use super::fault::Access;

/// Warps of a block at most.
pub const MAX_WARPS: usize = 32;

/// How far somebody has seen the clock of each warp.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks([u32; MAX_WARPS]);

impl Clocks {
    fn join(&mut self, other: &Clocks) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// A moment of a warp: its clock and, in the low bits, its index; or 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u32);

impl Epoch {
    /// Set while a `cp.async` is under way.
    const COPYING: u32 = 1 << 31;
    /// In the place of an epoch: the bytes of the word have states of their own.
    const SPLIT: Epoch = Epoch(u32::MAX);

    fn new(warp: usize, clock: u32) -> Epoch {
        Epoch(clock << 5 | warp as u32)
    }
    fn warp(self) -> usize {
        (self.0 & 31) as usize
    }
    fn clock(self) -> u32 {
        (self.0 & !Epoch::COPYING) >> 5
    }
    fn is_copying(self) -> bool {
        self.0 & Epoch::COPYING != 0
    }
}

/// The largest clock that an epoch can hold. Beyond it clocks stand still: races may be missed, none are made up.
const MAX_CLOCK: u32 = (1 << 26) - 2;

/// The state of a byte, or of the four bytes of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    write: Epoch,
    /// When the readers read: the same clock for all of them, [`Cell::MANY`] if they differ. With [`Cell::ATOMIC`], they are
    /// not readers but warps that updated it atomically.
    clock: u32,
    /// The warps that read since the write, one bit each; with [`Cell::MANY`], the place of their clocks in [`Order::many`].
    readers: u32,
}

impl Cell {
    /// A bit of `clock`.
    const ATOMIC: u32 = 1 << 31;
    /// A value of the rest of it.
    const MANY: u32 = Cell::ATOMIC - 1;

    /// Of what nobody touched.
    pub const UNTOUCHED: Cell = Cell { write: Epoch(0), clock: 0, readers: 0 };

    fn written(write: Epoch) -> Cell {
        Cell { write, ..Cell::UNTOUCHED }
    }

    /// Of a word whose bytes have states of their own, which are at `place` in a list.
    pub fn split(place: u32) -> Cell {
        Cell { write: Epoch::SPLIT, clock: 0, readers: place }
    }

    /// Where the states of the bytes are, if they have their own.
    #[inline(always)]
    pub fn place_of_bytes(&self) -> Option<u32> {
        (self.write == Epoch::SPLIT).then_some(self.readers)
    }
}

/// What is wrong with an access, before it has an address.
pub enum Wrong {
    NeverWritten,
    /// With what this warp did, unseen.
    Race(Access, usize),
    /// This warp's copy is under way.
    Copying(usize),
}

/// What warps know of each other, and with it which accesses are ordered.
pub struct Order {
    /// By warp; its own entry is its clock.
    known: [Clocks; MAX_WARPS],
    /// Up to which clock a warp has seen all others, so that most checks are one comparison.
    all: [u32; MAX_WARPS],
    warps: usize,
    time: u32,
    /// Clocks of the readers of cells of [`Cell::MANY`].
    many: Vec<Clocks>,
}

impl Order {
    pub fn new(warps: usize) -> Order {
        let mut order = Order { known: Default::default(), all: [0; MAX_WARPS], warps, time: 1, many: Vec::new() };
        (0..warps).for_each(|warp| order.set(warp, Clocks::default()));
        order
    }

    #[inline(always)]
    fn now(&self, warp: usize) -> u32 {
        self.known[warp].0[warp]
    }

    /// Whether a warp has seen a moment of another one; of itself it has seen everything.
    #[inline(always)]
    fn has_seen(&self, warp: usize, other: usize, clock: u32) -> bool {
        clock <= self.all[warp] || warp == other || clock <= self.known[warp].0[other]
    }

    /// Notes what a warp now knows, and moves its clock to `time`.
    fn set(&mut self, warp: usize, known: Clocks) {
        self.known[warp] = known;
        self.known[warp].0[warp] = self.time;
        let others = self.known[warp].0[..self.warps].iter().enumerate().filter(|(other, _)| *other != warp);
        self.all[warp] = others.map(|(_, clock)| *clock).min().unwrap_or(MAX_CLOCK);
    }

    fn tick(&mut self) {
        self.time = (self.time + 1).min(MAX_CLOCK);
    }

    /// The warps of a mask met.
    pub fn barrier(&mut self, warps: u32) {
        let mut joined = Clocks::default();
        bits(warps).for_each(|warp| joined.join(&self.known[warp]));
        self.tick();
        bits(warps).for_each(|warp| self.set(warp, joined));
    }

    /// Whoever acquires `into` will have seen what the warp has seen and done.
    pub fn release(&mut self, warp: usize, into: &mut Clocks) {
        let known = self.known[warp];
        into.join(&known);
        self.tick();
        self.set(warp, known);
    }

    /// The warp has seen what was released into `from`.
    pub fn acquire(&mut self, warp: usize, from: &Clocks) {
        let mut known = self.known[warp];
        known.join(from);
        self.tick();
        self.set(warp, known);
    }

    /// The state of what a warp writes now.
    pub fn written(&self, warp: usize) -> Cell {
        Cell::written(Epoch::new(warp, self.now(warp)))
    }

    #[inline]
    fn after_write(&self, cell: &Cell, warp: usize) -> Result<(), Wrong> {
        let write = cell.write;
        if write.is_copying() {
            return Err(Wrong::Copying(write.warp()));
        }
        if self.has_seen(warp, write.warp(), write.clock()) {
            Ok(())
        } else {
            Err(Wrong::Race(Access::Write, write.warp()))
        }
    }

    /// That a warp has seen all readers (or atomic updates).
    #[inline]
    fn after_readers(&self, cell: &Cell, warp: usize) -> Result<(), Wrong> {
        let clock = cell.clock & !Cell::ATOMIC;
        if clock <= self.all[warp] {
            return Ok(());
        }
        let unseen = if clock == Cell::MANY {
            let clocks = &self.many[cell.readers as usize].0;
            (0..MAX_WARPS).find(|&other| !self.has_seen(warp, other, clocks[other]))
        } else {
            bits(cell.readers).find(|&other| !self.has_seen(warp, other, clock))
        };
        let access = if cell.clock & Cell::ATOMIC == 0 { Access::Read } else { Access::Atomic };
        unseen.map_or(Ok(()), |other| Err(Wrong::Race(access, other)))
    }

    /// Adds a warp to the readers, or with `kind` [`Cell::ATOMIC`] to the atomic updates.
    #[inline]
    fn add_reader(&mut self, cell: &mut Cell, warp: usize, kind: u32) {
        let (now, bit) = (self.now(warp), 1 << warp);
        let clock = cell.clock & !Cell::ATOMIC;
        if clock == now {
            cell.readers |= bit;
        } else if self.after_readers(cell, warp).is_ok() {
            // Whoever will have seen this one will have seen those before it.
            (cell.readers, cell.clock) = (bit, now | kind);
        } else if clock == Cell::MANY {
            self.many[cell.readers as usize].0[warp] = now;
        } else {
            let mut clocks = Clocks::default();
            bits(cell.readers).for_each(|reader| clocks.0[reader] = clock);
            clocks.0[warp] = now;
            (cell.readers, cell.clock) = (self.many.len() as u32, Cell::MANY | kind);
            self.many.push(clocks);
        }
    }

    #[inline]
    fn read(&mut self, cell: &mut Cell, warp: usize) -> Result<(), Wrong> {
        if cell.write == Epoch::default() {
            return Err(Wrong::NeverWritten);
        }
        self.after_write(cell, warp)?;
        if cell.clock & Cell::ATOMIC != 0 {
            self.after_readers(cell, warp)?;
            // The updates are past, and count as one write from here on.
            *cell = Cell::written(self.last_update(cell));
        }
        self.add_reader(cell, warp, 0);
        Ok(())
    }

    /// A write, or with an epoch that says so the issue of a copy.
    #[inline]
    fn write(&mut self, cell: &mut Cell, warp: usize, epoch: Epoch) -> Result<(), Wrong> {
        self.after_write(cell, warp)?;
        self.after_readers(cell, warp)?;
        *cell = Cell::written(epoch);
        Ok(())
    }

    /// Checks an access of a warp to a byte or word, and notes it.
    #[inline]
    pub fn access(&mut self, cell: &mut Cell, warp: usize, access: Access) -> Result<(), Wrong> {
        match access {
            Access::Read => self.read(cell, warp),
            Access::Write | Access::Copy => self.write(cell, warp, self.epoch(warp, access)),
            Access::Atomic => self.update(cell, warp),
        }
    }

    /// Now, as a warp's write or copy is noted.
    #[inline(always)]
    fn epoch(&self, warp: usize, access: Access) -> Epoch {
        let copying = if access == Access::Copy { Epoch::COPYING } else { 0 };
        Epoch(Epoch::new(warp, self.now(warp)).0 | copying)
    }

    fn update(&mut self, cell: &mut Cell, warp: usize) -> Result<(), Wrong> {
        if cell.write == Epoch::default() {
            return Err(Wrong::NeverWritten);
        }
        self.after_write(cell, warp)?;
        if cell.clock & Cell::ATOMIC == 0 {
            self.after_readers(cell, warp)?;
            (cell.clock, cell.readers) = (0, 0);
        }
        self.add_reader(cell, warp, Cell::ATOMIC);
        Ok(())
    }

    /// The same state for another byte.
    pub fn copy(&mut self, mut cell: Cell) -> Cell {
        if cell.clock & !Cell::ATOMIC == Cell::MANY {
            self.many.push(self.many[cell.readers as usize]);
            cell.readers = self.many.len() as u32 - 1;
        }
        cell
    }

    fn last_update(&self, cell: &Cell) -> Epoch {
        if cell.clock == Cell::MANY | Cell::ATOMIC {
            let clocks = &self.many[cell.readers as usize].0;
            let last = (0..MAX_WARPS).max_by_key(|&warp| clocks[warp]).unwrap_or(0);
            return Epoch::new(last, clocks[last]);
        }
        Epoch::new(cell.readers.trailing_zeros() as usize % MAX_WARPS, cell.clock & !Cell::ATOMIC)
    }
}

/// The states of words, each part of them side by side, so that neighbours are checked at once.
#[derive(Default)]
pub struct Cells {
    write: Vec<u32>,
    clock: Vec<u32>,
    readers: Vec<u32>,
}

impl Cells {
    /// So many words that nobody has touched.
    pub fn reset(&mut self, words: usize) {
        for part in [&mut self.write, &mut self.clock, &mut self.readers] {
            part.clear();
            part.resize(words, 0);
        }
    }

    #[inline(always)]
    pub fn get(&self, word: usize) -> Cell {
        Cell { write: Epoch(self.write[word]), clock: self.clock[word], readers: self.readers[word] }
    }

    #[inline(always)]
    pub fn set(&mut self, word: usize, cell: Cell) {
        (self.write[word], self.clock[word], self.readers[word]) = (cell.write.0, cell.clock, cell.readers);
    }
}

/// A warp's access, with what decides the usual cases of [`Order::access`] without a branch.
pub struct Pass {
    access: Access,
    warp: u32,
    now: u32,
    /// What a cell that is written holds.
    epoch: Epoch,
    /// Up to which clock the warp has seen all others, and the first epoch behind that.
    all: u32,
    unseen: u32,
}

impl Pass {
    #[inline(always)]
    pub fn new(order: &Order, warp: usize, access: Access) -> Pass {
        let (now, all) = (order.now(warp), order.all[warp]);
        Pass { access, warp: warp as u32, now, epoch: order.epoch(warp, access), all, unseen: (all + 1) << 5 }
    }

    /// Notes the access of some words if nothing speaks against it and it needs no list; else does nothing.
    #[inline(always)]
    pub fn try_words(&self, cells: &mut Cells, range: std::ops::Range<usize>) -> bool {
        let (write, clock) = (&mut cells.write[range.clone()], &mut cells.clock[range.clone()]);
        let readers = &mut cells.readers[range];
        let (reads, bit) = (self.access == Access::Read, 1 << self.warp);
        let mut good = self.access != Access::Atomic;
        for ((write, clock), readers) in write.iter().zip(&*clock).zip(&*readers) {
            // Neither split nor copied to, and if it is read, written.
            let is_plain = write.wrapping_sub(reads.into()) < Epoch::COPYING - u32::from(reads);
            good &= is_plain & ((*write < self.unseen) | (write & 31 == self.warp));
            good &= (*clock <= self.all) | (*clock == self.now) & (reads | (*readers == bit));
        }
        if !good {
            return false;
        }
        if reads {
            for (clock, readers) in clock.iter_mut().zip(readers) {
                *readers = if *clock == self.now { *readers | bit } else { bit };
                *clock = self.now;
            }
        } else {
            write.fill(self.epoch.0);
            clock.fill(0);
            readers.fill(0);
        }
        true
    }
}

/// The indices of the bits that are set.
pub fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then_some(mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(bit)
    })
}
