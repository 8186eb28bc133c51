//! The shared memory of a block, with what is needed to find every access that goes wrong.
//!
//! `order` says which accesses are ordered; here are the bytes, with the state of each and the lines that touched it. The state
//! of a word is that of its four bytes. When an access of fewer bytes makes them differ, the word gets a state for
//! each byte, until a whole word is written again.

use super::fault::{Access, Earlier, Fault, Space};
use super::order::{Cell, Cells, Clocks, MAX_WARPS, Order, Pass, Wrong, bits};
use super::simd::widest;

/// Who accesses: its warp and the line of PTX.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    pub warp: usize,
    pub line: u32,
}

/// Which of a word's two lines is that of an access.
const fn note_of(access: Access) -> usize {
    matches!(access, Access::Read | Access::Atomic) as usize
}

/// A fault and the lane that it befell.
pub type LaneFault = (usize, Fault);

/// The shared memory of a block.
pub struct Shared {
    size: usize,
    data: Vec<u32>,
    cells: Cells,
    /// The lines of the last writes, and of the last reads (or atomic updates), by word.
    lines: [Vec<u32>; 2],
    split: Vec<[Cell; 4]>,
    /// Places of `split` that are free.
    unused: Vec<u32>,
    order: Order,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared::new()
    }
}

impl Shared {
    /// Of no bytes yet.
    pub fn new() -> Shared {
        Shared {
            size: 0,
            data: Vec::new(),
            cells: Cells::default(),
            lines: Default::default(),
            split: Vec::new(),
            unused: Vec::new(),
            order: Order::new(0),
        }
    }

    /// Begins a block: nothing is written, no warp has done anything.
    pub fn reset(&mut self, bytes: usize, warps: usize) {
        let words = bytes.div_ceil(4);
        self.size = bytes;
        self.data.resize(words, 0);
        self.cells.reset(words);
        self.lines.iter_mut().for_each(|lines| lines.resize(words, 0));
        self.split.clear();
        self.unused.clear();
        self.order = Order::new(warps.min(MAX_WARPS));
    }

    // --- Order between warps ---

    /// The warps of a mask met: what any of them did before is ordered before what any of them does from here on.
    pub fn barrier(&mut self, warps: u32) {
        self.order.barrier(warps);
    }

    /// What a warp did so far is ordered before whatever follows an [`acquire`](Shared::acquire) of `into`.
    pub fn release(&mut self, warp: usize, into: &mut Clocks) {
        self.order.release(warp, into);
    }

    /// What was released into `from` is ordered before what a warp does from here on.
    pub fn acquire(&mut self, warp: usize, from: &Clocks) {
        self.order.acquire(warp, from);
    }

    // --- Accesses of a warp ---

    /// Reads `bytes` bytes (1, 2, 4, 8 or 16) at the address of each lane of the mask: `out[w][lane]` is word w of them.
    pub fn read_lanes(
        &mut self,
        who: Who,
        mask: u32,
        addresses: &[u32; 32],
        bytes: usize,
        out: &mut [[u32; 32]; 4],
    ) -> Result<(), LaneFault> {
        match bytes {
            16 => self.read_words::<4>(who, mask, addresses, out),
            8 => self.read_words::<2>(who, mask, addresses, out),
            4 => self.read_words::<1>(who, mask, addresses, out),
            _ => {
                self.touch_parts(who, mask, addresses, bytes, Access::Read)?;
                bits(mask).for_each(|lane| out[0][lane] = self.part(addresses[lane], bytes));
                Ok(())
            }
        }
    }

    /// Writes the first words of `values[w][lane]`, or the low bytes of the first one, as
    /// [`read_lanes`](Shared::read_lanes) reads them. Two lanes that write to one address must write the same.
    pub fn write_lanes(
        &mut self,
        who: Who,
        mask: u32,
        addresses: &[u32; 32],
        bytes: usize,
        values: &[[u32; 32]; 4],
    ) -> Result<(), LaneFault> {
        match bytes {
            16 => self.write_words::<4>(who, mask, addresses, values),
            8 => self.write_words::<2>(who, mask, addresses, values),
            4 => self.write_words::<1>(who, mask, addresses, values),
            _ => {
                self.touch_parts(who, mask, addresses, bytes, Access::Write)?;
                let keep = (1u32 << (8 * bytes)) - 1;
                for lane in bits(mask) {
                    let address = addresses[lane];
                    let shift = 8 * (address % 4);
                    let word = &mut self.data[address as usize / 4];
                    *word = *word & !(keep << shift) | (values[0][lane] & keep) << shift;
                }
                let torn = bits(mask).find(|&lane| self.part(addresses[lane], bytes) != values[0][lane] & keep);
                torn.map_or(Ok(()), |lane| Err((lane, Fault::Torn { address: addresses[lane] })))
            }
        }
    }

    #[inline(always)]
    fn read_words<const N: usize>(
        &mut self,
        who: Who,
        mask: u32,
        addresses: &[u32; 32],
        out: &mut [[u32; 32]; 4],
    ) -> Result<(), LaneFault> {
        if let Some(data) = self.neighbours(who, mask, addresses, 4 * N, Access::Read) {
            for (lane, data) in data.as_chunks::<N>().0.iter().enumerate() {
                (0..N).for_each(|i| out[i][lane] = data[i]);
            }
            return Ok(());
        }
        let pass = Pass::new(&self.order, who.warp, Access::Read);
        // Or all read the same.
        if mask == u32::MAX && addresses.iter().fold(0, |differ, address| differ | address ^ addresses[0]) == 0 {
            let first = self.place::<N>(addresses[0]).map_err(|fault| (0, fault))?;
            self.check::<N>(&pass, who, first, Access::Read).map_err(|fault| (0, fault))?;
            (0..N).for_each(|i| out[i] = [self.data[first + i]; 32]);
            return Ok(());
        }
        for lane in bits(mask) {
            let first = self.place::<N>(addresses[lane]).map_err(|fault| (lane, fault))?;
            self.check::<N>(&pass, who, first, Access::Read).map_err(|fault| (lane, fault))?;
            let data = &self.data[first..first + N];
            (0..N).for_each(|i| out[i][lane] = data[i]);
        }
        Ok(())
    }

    #[inline(always)]
    fn write_words<const N: usize>(
        &mut self,
        who: Who,
        mask: u32,
        addresses: &[u32; 32],
        values: &[[u32; 32]; 4],
    ) -> Result<(), LaneFault> {
        if let Some(data) = self.neighbours(who, mask, addresses, 4 * N, Access::Write) {
            for (lane, data) in data.as_chunks_mut::<N>().0.iter_mut().enumerate() {
                (0..N).for_each(|i| data[i] = values[i][lane]);
            }
            return Ok(());
        }
        let pass = Pass::new(&self.order, who.warp, Access::Write);
        // Ascending lanes of a store that is not strange have ascending addresses, and then none twice.
        let (mut end, mut ascending) = (0, true);
        for lane in bits(mask) {
            let first = self.place::<N>(addresses[lane]).map_err(|fault| (lane, fault))?;
            ascending &= first >= end;
            end = first + N;
            self.check::<N>(&pass, who, first, Access::Write).map_err(|fault| (lane, fault))?;
            let data = &mut self.data[first..first + N];
            (0..N).for_each(|i| data[i] = values[i][lane]);
        }
        if ascending {
            return Ok(());
        }
        // Whoever does not find what it wrote was overwritten.
        for lane in bits(mask) {
            for (i, values) in values.iter().enumerate().take(N) {
                if self.data[addresses[lane] as usize / 4 + i] != values[lane] {
                    return Err((lane, Fault::Torn { address: addresses[lane] + 4 * i as u32 }));
                }
            }
        }
        Ok(())
    }

    /// Updates 2, 4 or 8 bytes atomically and returns what was there.
    pub fn update(
        &mut self,
        who: Who,
        address: u32,
        bytes: usize,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Fault> {
        self.touch(who, address, bytes, Access::Atomic)?;
        let at = address as usize;
        let here = &mut bytemuck::cast_slice_mut::<u32, u8>(&mut self.data)[at..at + bytes];
        let mut old = [0; 8];
        old[..bytes].copy_from_slice(here);
        let old = u64::from_le_bytes(old);
        here.copy_from_slice(&change(old).to_le_bytes()[..bytes]);
        Ok(old)
    }

    /// Issues a `cp.async` of 4, 8 or 16 bytes for each lane of the mask: until its end nobody may touch them.
    pub fn begin_copies(&mut self, who: Who, mask: u32, addresses: &[u32; 32], bytes: usize) -> Result<(), LaneFault> {
        match bytes {
            16 => self.copy_words::<4>(who, mask, addresses),
            8 => self.copy_words::<2>(who, mask, addresses),
            _ => self.copy_words::<1>(who, mask, addresses),
        }
    }

    fn copy_words<const N: usize>(&mut self, who: Who, mask: u32, addresses: &[u32; 32]) -> Result<(), LaneFault> {
        if self.neighbours(who, mask, addresses, 4 * N, Access::Copy).is_some() {
            return Ok(());
        }
        let pass = Pass::new(&self.order, who.warp, Access::Copy);
        bits(mask).try_for_each(|lane| {
            let first = self.place::<N>(addresses[lane]).map_err(|fault| (lane, fault))?;
            self.check::<N>(&pass, who, first, Access::Copy).map_err(|fault| (lane, fault))
        })
    }

    /// Copies that were begun have been waited for: their data are there, as if the warp wrote them now.
    pub fn end_copies(&mut self, who: Who, mask: u32, addresses: &[u32; 32], bytes: usize, data: &[[u32; 32]; 4]) {
        let cell = self.order.written(who.warp);
        for lane in bits(mask) {
            let at = addresses[lane] as usize / 4;
            (at..at + bytes / 4).for_each(|word| self.cells.set(word, cell));
            self.data[at..at + bytes / 4].iter_mut().zip(data).for_each(|(to, row)| *to = row[lane]);
        }
    }

    // --- Checks ---

    /// The first word of an access of N words.
    #[inline(always)]
    fn place<const N: usize>(&self, address: u32) -> Result<usize, Fault> {
        let bytes = 4 * N;
        if !(address as usize).is_multiple_of(bytes) || address as usize + bytes > self.size {
            return Err(self.misplaced(address, bytes));
        }
        Ok(address as usize / 4)
    }

    #[cold]
    fn misplaced(&self, address: u32, bytes: usize) -> Fault {
        let (space, address) = (Space::Shared, address.into());
        if address % bytes as u64 != 0 {
            return Fault::Misaligned { space, address, bytes };
        }
        Fault::OutOfBounds { space, address, bytes, near: Some((0, self.size as u64)) }
    }

    /// Checks an access of any width and notes it.
    fn touch(&mut self, who: Who, address: u32, bytes: usize, access: Access) -> Result<(), Fault> {
        let at = address as usize;
        if at & (bytes - 1) != 0 || at + bytes > self.size {
            return Err(self.misplaced(address, bytes));
        }
        match bytes {
            1 | 2 => self.touch_bytes(who, at, bytes, access),
            _ => (at / 4..(at + bytes) / 4).try_for_each(|word| self.touch_word(who, word, access)),
        }
    }

    /// Checks and notes accesses of 1 or 2 bytes. Neighbours that fill a word together are checked as one.
    fn touch_parts(
        &mut self,
        who: Who,
        mask: u32,
        addresses: &[u32; 32],
        bytes: usize,
        access: Access,
    ) -> Result<(), LaneFault> {
        if self.neighbours(who, mask, addresses, bytes, access).is_some() {
            return Ok(());
        }
        let per_word = 4 / bytes;
        let (mut lane, pass) = (0, Pass::new(&self.order, who.warp, access));
        while lane < 32 {
            let address = addresses[lane];
            let group = (1u32 << per_word) - 1;
            let mut neighbours = addresses[lane..].iter().zip(0..).take(per_word);
            let fills_word = mask >> lane & group == group
                && neighbours.all(|(other, i)| other.wrapping_sub(address) == i * bytes as u32)
                && self.place::<1>(address).is_ok_and(|word| self.check::<1>(&pass, who, word, access).is_ok());
            if fills_word {
                lane += per_word;
            } else if mask >> lane & 1 == 0 {
                lane += 1;
            } else {
                // Apart, and if it is wrong, by the lane that is.
                self.touch(who, address, bytes, access).map_err(|fault| (lane, fault))?;
                lane += 1;
            }
        }
        Ok(())
    }

    /// Checks and notes an access of N words.
    #[inline(always)]
    fn check<const N: usize>(&mut self, pass: &Pass, who: Who, first: usize, access: Access) -> Result<(), Fault> {
        if pass.try_words(&mut self.cells, first..first + N) {
            self.lines[note_of(access)][first..first + N].fill(who.line);
            return Ok(());
        }
        (first..first + N).try_for_each(|word| self.touch_word(who, word, access))
    }

    /// Checks and notes the access of a whole warp to neighbours, `bytes` for each lane: their data. `None` if it is not
    /// that, or not simply right, and is to be checked lane by lane.
    #[inline(always)]
    fn neighbours(
        &mut self,
        who: Who,
        mask: u32,
        addresses: &[u32; 32],
        bytes: usize,
        access: Access,
    ) -> Option<&mut [u32]> {
        let start = addresses[0];
        let apart = addresses.iter().zip(0..).map(|(address, lane)| address ^ start.wrapping_add(lane * bytes as u32));
        let differ = apart.fold(0, |all, apart| all | apart);
        if mask != u32::MAX || differ != 0 || !(start as usize).is_multiple_of(bytes.max(4)) {
            return None;
        }
        let range = start as usize / 4..start as usize / 4 + 8 * bytes;
        // The last word of a memory of odd bytes is not all there.
        if 4 * range.end > self.size {
            return None;
        }
        let pass = Pass::new(&self.order, who.warp, access);
        if !widest(|| pass.try_words(&mut self.cells, range.clone())) {
            return None;
        }
        self.lines[note_of(access)][range.clone()].fill(who.line);
        Some(&mut self.data[range])
    }

    fn touch_word(&mut self, who: Who, word: usize, access: Access) -> Result<(), Fault> {
        let mut cell = self.cells.get(word);
        if cell.place_of_bytes().is_some() {
            return self.touch_bytes(who, 4 * word, 4, access);
        }
        let checked = self.order.access(&mut cell, who.warp, access);
        self.cells.set(word, cell);
        self.note(who, word, access, checked.map_err(|wrong| (4 * word, wrong)))
    }

    /// As [`touch_word`](Shared::touch_word), of some bytes of one word.
    fn touch_bytes(&mut self, who: Who, at: usize, bytes: usize, access: Access) -> Result<(), Fault> {
        let mut cell = self.cells.get(at / 4);
        let place = cell.place_of_bytes().unwrap_or_else(|| {
            let place = self.unused.pop().unwrap_or_else(|| {
                self.split.push([Cell::UNTOUCHED; 4]);
                self.split.len() as u32 - 1
            });
            self.split[place as usize] = [cell; 4].map(|state| self.order.copy(state));
            cell = Cell::split(place);
            place
        });
        let states = &mut self.split[place as usize];
        let checked = (at..at + bytes).try_for_each(|byte| {
            self.order.access(&mut states[byte % 4], who.warp, access).map_err(|wrong| (byte, wrong))
        });
        if states.iter().all(|state| *state == states[0]) {
            self.unused.push(place);
            cell = states[0];
        }
        self.cells.set(at / 4, cell);
        self.note(who, at / 4, access, checked)
    }

    /// Notes the line of a good access, and finds that of the one which a bad one collides with.
    #[inline]
    fn note(
        &mut self,
        who: Who,
        word: usize,
        access: Access,
        checked: Result<(), (usize, Wrong)>,
    ) -> Result<(), Fault> {
        let Err((at, wrong)) = checked else {
            self.lines[note_of(access)][word] = who.line;
            return Ok(());
        };
        let address = at as u32;
        Err(match wrong {
            Wrong::NeverWritten => Fault::NeverWritten { address },
            Wrong::Race(earlier, warp) => {
                let line = self.lines[note_of(earlier)][word];
                Fault::Race { address, access, earlier: Earlier { access: earlier, warp, line } }
            }
            Wrong::Copying(warp) => {
                let copy = Earlier { access: Access::Copy, warp, line: self.lines[0][word] };
                Fault::NotWaitedFor { address, access, copy }
            }
        })
    }

    /// The 1 or 2 bytes at an address that was checked.
    fn part(&self, address: u32, bytes: usize) -> u32 {
        self.data[address as usize / 4] >> (8 * (address % 4)) & ((1 << (8 * bytes)) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(warp: usize) -> Who {
        Who { warp, line: 100 + warp as u32 }
    }

    fn shared(bytes: usize, warps: usize) -> Shared {
        let mut shared = Shared::new();
        shared.reset(bytes, warps);
        shared
    }

    /// One lane's access of so many bytes.
    fn read(shared: &mut Shared, warp: usize, address: u32, bytes: usize) -> Result<u32, Fault> {
        let mut out = [[0; 32]; 4];
        shared.read_lanes(who(warp), 1, &[address; 32], bytes, &mut out).map_err(|(_, fault)| fault)?;
        Ok(out[0][0])
    }
    fn write(shared: &mut Shared, warp: usize, address: u32, bytes: usize, value: u32) -> Result<(), Fault> {
        let values = [[value; 32]; 4];
        shared.write_lanes(who(warp), 1, &[address; 32], bytes, &values).map_err(|(_, fault)| fault)
    }

    fn race(address: u32, access: Access, earlier: Access, warp: usize) -> Fault {
        race_in(100 + warp as u32, address, access, earlier, warp)
    }
    fn race_in(line: u32, address: u32, access: Access, earlier: Access, warp: usize) -> Fault {
        Fault::Race { address, access, earlier: Earlier { access: earlier, warp, line } }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut s = shared(64, 1);
        write(&mut s, 0, 0, 16, 0x0403_0201).unwrap();
        write(&mut s, 0, 5, 1, 0xaa).unwrap();
        write(&mut s, 0, 6, 2, 0xbbcc).unwrap();
        assert_eq!(read(&mut s, 0, 4, 4), Ok(0xbbcc_aa01));
        assert_eq!((read(&mut s, 0, 6, 2), read(&mut s, 0, 12, 4)), (Ok(0xbbcc), Ok(0x0403_0201)));
        assert_eq!(s.update(who(0), 8, 8, |x| x + 1), Ok(0x0403_0201_0403_0201));
        assert_eq!(read(&mut s, 0, 8, 8), Ok(0x0403_0202));
    }

    #[test]
    fn bounds_alignment_and_what_was_never_written() {
        let mut s = shared(30, 1);
        assert!(matches!(write(&mut s, 0, 28, 4, 0), Err(Fault::OutOfBounds { address: 28, .. })));
        assert!(matches!(read(&mut s, 0, u32::MAX - 15, 16), Err(Fault::OutOfBounds { .. })));
        assert!(matches!(read(&mut s, 0, 8, 16), Err(Fault::Misaligned { .. })));
        write(&mut s, 0, 28, 2, 0).unwrap();
        assert_eq!(read(&mut s, 0, 8, 4), Err(Fault::NeverWritten { address: 8 }));
        write(&mut s, 0, 8, 2, 7).unwrap();
        assert_eq!((read(&mut s, 0, 8, 2), read(&mut s, 0, 8, 4)), (Ok(7), Err(Fault::NeverWritten { address: 10 })));
        assert_eq!(s.update(who(0), 12, 4, |x| x), Err(Fault::NeverWritten { address: 12 }));
        s.reset(30, 1);
        assert_eq!(read(&mut s, 0, 8, 2), Err(Fault::NeverWritten { address: 8 }));
    }

    #[test]
    fn a_barrier_orders() {
        let mut s = shared(64, 3);
        write(&mut s, 0, 0, 4, 1).unwrap();
        assert_eq!(read(&mut s, 1, 0, 4), Err(race(0, Access::Read, Access::Write, 0)));
        s.barrier(0b111);
        assert_eq!((read(&mut s, 1, 0, 4), read(&mut s, 2, 0, 4), read(&mut s, 0, 0, 4)), (Ok(1), Ok(1), Ok(1)));
        assert_eq!(write(&mut s, 0, 0, 4, 2), Err(race_in(100, 0, Access::Write, Access::Read, 1)));
        s.barrier(0b111);
        write(&mut s, 2, 0, 4, 3).unwrap();
        assert_eq!(write(&mut s, 1, 0, 4, 2), Err(race(0, Access::Write, Access::Write, 2)));
    }

    #[test]
    fn bytes_of_a_word_are_apart() {
        let mut s = shared(64, 2);
        for byte in 0..4 {
            write(&mut s, byte % 2, byte as u32, 1, byte as u32).unwrap();
        }
        assert_eq!(read(&mut s, 0, 2, 1), Ok(2));
        assert_eq!(read(&mut s, 0, 3, 1), Err(race(3, Access::Read, Access::Write, 1)));
        assert_eq!(read(&mut s, 0, 0, 4), Err(race(1, Access::Read, Access::Write, 1)));
        s.barrier(0b11);
        assert_eq!(read(&mut s, 0, 0, 4), Ok(0x0302_0100));
        // Whole again: no state of single bytes is left.
        s.barrier(0b11);
        write(&mut s, 1, 0, 4, 9).unwrap();
        assert_eq!((s.cells.get(0).place_of_bytes(), s.unused.len()), (None, s.split.len()));
    }

    #[test]
    fn barriers_of_some_warps_order_those() {
        let mut s = shared(64, 4);
        write(&mut s, 0, 0, 4, 1).unwrap();
        s.barrier(0b0011);
        assert_eq!(read(&mut s, 1, 0, 4), Ok(1));
        assert_eq!(read(&mut s, 2, 0, 4), Err(race(0, Access::Read, Access::Write, 0)));
        // Through warp 1 to warp 2.
        s.barrier(0b0110);
        assert_eq!(read(&mut s, 2, 0, 4), Ok(1));
        // Readers of different clocks: a writer must have seen every one of them.
        assert_eq!(read(&mut s, 0, 0, 4), Ok(1));
        s.barrier(0b1001);
        assert!(matches!(write(&mut s, 3, 0, 4, 2), Err(Fault::Race { earlier: Earlier { warp: 1 | 2, .. }, .. })));
        s.barrier(0b1010);
        assert!(matches!(write(&mut s, 3, 0, 4, 2), Err(Fault::Race { earlier: Earlier { warp: 2, .. }, .. })));
        s.barrier(0b1100);
        assert_eq!(write(&mut s, 3, 0, 4, 2), Ok(()));
    }

    #[test]
    fn what_is_released_is_acquired() {
        let mut s = shared(64, 2);
        let mut full = Clocks::default();
        write(&mut s, 0, 0, 4, 1).unwrap();
        s.release(0, &mut full);
        write(&mut s, 0, 4, 4, 1).unwrap();
        s.acquire(1, &full);
        assert_eq!(read(&mut s, 1, 0, 4), Ok(1));
        assert_eq!(read(&mut s, 1, 4, 4), Err(race(4, Access::Read, Access::Write, 0)));
    }

    #[test]
    fn copies_are_waited_for() {
        let mut s = shared(64, 2);
        let begin = |s: &mut Shared, warp, address, bytes| {
            s.begin_copies(who(warp), 1, &[address; 32], bytes).map_err(|(_, fault)| fault)
        };
        begin(&mut s, 0, 16, 16).unwrap();
        let copy = Earlier { access: Access::Copy, warp: 0, line: 100 };
        for access in [Access::Read, Access::Write, Access::Copy] {
            let got = match access {
                Access::Read => read(&mut s, 0, 20, 4).map(drop),
                Access::Write => write(&mut s, 1, 20, 4, 0),
                _ => begin(&mut s, 1, 20, 4),
            };
            assert_eq!(got, Err(Fault::NotWaitedFor { address: 20, access, copy }));
        }
        s.end_copies(who(0), 1, &[16; 32], 16, &[[0x0505_0505; 32]; 4]);
        assert_eq!(read(&mut s, 0, 20, 4), Ok(0x0505_0505));
        assert_eq!(read(&mut s, 1, 24, 4), Err(race(24, Access::Read, Access::Write, 0)));
        s.barrier(0b11);
        assert_eq!(read(&mut s, 1, 24, 4), Ok(0x0505_0505));
        // A copy to what another warp may still be reading.
        assert_eq!(begin(&mut s, 0, 24, 8), Err(race(24, Access::Copy, Access::Read, 1)));
    }

    #[test]
    fn atomic_updates_race_with_other_accesses_only() {
        let mut s = shared(64, 3);
        write(&mut s, 0, 0, 4, 5).unwrap();
        assert!(s.update(who(1), 0, 4, |x| x + 1).is_err());
        s.barrier(0b111);
        for warp in 0..3 {
            assert_eq!(s.update(who(warp), 0, 4, |x| x + 1), Ok(5 + warp as u64));
        }
        assert!(matches!(
            read(&mut s, 0, 0, 4),
            Err(Fault::Race { earlier: Earlier { access: Access::Atomic, .. }, .. })
        ));
        s.barrier(0b111);
        assert_eq!(read(&mut s, 0, 0, 4), Ok(8));
        assert_eq!(s.update(who(1), 0, 4, |x| x), Err(race(0, Access::Atomic, Access::Read, 0)));
    }

    #[test]
    fn the_lane_at_fault_is_named() {
        let mut s = shared(64, 2);
        let addresses: [u32; 32] = std::array::from_fn(|lane| 2 * lane as u32);
        let mut out = [[0; 32]; 4];
        s.write_lanes(who(0), !(1 << 9), &addresses, 2, &[addresses; 4]).unwrap();
        let got = s.read_lanes(who(0), !0, &addresses, 2, &mut out);
        assert_eq!(got, Err((9, Fault::NeverWritten { address: 18 })));
        s.write_lanes(who(0), !0, &addresses, 2, &[addresses; 4]).unwrap();
        s.read_lanes(who(0), !0, &addresses, 2, &mut out).unwrap();
        assert_eq!(out[0], addresses);
        s.reset(62, 2);
        let got = s.write_lanes(who(0), !0, &addresses, 2, &[addresses; 4]);
        assert!(matches!(got, Err((31, Fault::OutOfBounds { .. }))));
    }

    #[test]
    fn lanes_of_one_store_agree() {
        let mut s = shared(256, 1);
        let mut addresses: [u32; 32] = std::array::from_fn(|lane| 4 * lane as u32);
        let values = [std::array::from_fn(|lane| lane as u32); 4];
        s.write_lanes(who(0), !0, &addresses, 4, &values).unwrap();
        addresses[9] = 4 * 8;
        assert_eq!(s.write_lanes(who(0), !0, &addresses, 4, &values), Err((8, Fault::Torn { address: 32 })));
        s.write_lanes(who(0), !0, &addresses, 4, &[[7; 32]; 4]).unwrap();
        s.write_lanes(who(0), !(1 << 9), &addresses, 2, &values).unwrap();
        assert!(s.write_lanes(who(0), !0, &addresses, 1, &values).is_err());
    }

    #[test]
    #[ignore = "prints times"]
    fn speed() {
        const ROUNDS: u32 = 20_000;
        for bytes in [2, 4, 8, 16] {
            let mut s = shared(48 << 10, 8);
            let addresses: [u32; 32] = std::array::from_fn(|lane| (bytes * lane) as u32);
            let (values, mut out) = ([[1; 32]; 4], [[0; 32]; 4]);
            let (mut writing, mut reading) = (0, 0);
            for _ in 0..ROUNDS {
                // Each warp writes its part, and after a barrier reads the next warp's.
                for warp in 0..8 {
                    let addresses = addresses.map(|address| address + 6144 * warp as u32);
                    let start = std::time::Instant::now();
                    s.write_lanes(who(warp), !0, &addresses, bytes, &values).unwrap();
                    writing += start.elapsed().as_nanos();
                }
                s.barrier(0xff);
                for warp in 0..8 {
                    let addresses = addresses.map(|address| address + 6144 * ((warp as u32 + 1) % 8));
                    let start = std::time::Instant::now();
                    s.read_lanes(who(warp), !0, &addresses, bytes, &mut out).unwrap();
                    reading += start.elapsed().as_nanos();
                }
                s.barrier(0xff);
            }
            let accesses = u128::from(8 * ROUNDS);
            println!("32 x {bytes}: write {} ns, read {} ns", writing / accesses, reading / accesses);
        }
    }
}
