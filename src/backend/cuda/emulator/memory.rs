//! The global address space.
//!
//! An allocation has exactly the bytes that were asked for and its addresses are never given out again, with 1 GiB between
//! one and the next: an access beyond an end, or after a free, hits nothing and is found. Addresses are looked up in a
//! [`View`], a snapshot that workers use without a lock and that keeps the memory alive.
//!
//! Blocks run on several threads and may touch the same allocation, so that bytes are reached through raw pointers, by atomic
//! accesses of their own width: a kernel that races has some value, as on a GPU, and never undefined behaviour here.

use super::fault::{Fault, Space};
use super::registers::{FULL, LANES, Lanes, lanes};
use crate::error::{Error, Result};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first address: far above what shared, local and parameter memory use.
pub const BASE: u64 = 1 << 44;
/// Between the end of an allocation and the start of the next.
const GAP: u64 = 1 << 30;
/// What addresses of allocations are multiples of.
const ALIGN: u64 = 256;

/// Bytes of the host, zeroed at birth.
struct Bytes {
    data: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the bytes belong to the value, and are touched through the functions of this file only, which say how.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn new(bytes: usize) -> Option<Bytes> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN as usize).ok()?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        Some(Bytes { data, layout })
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody else holds it.
        unsafe { std::alloc::dealloc(self.data.as_ptr(), self.layout) }
    }
}

/// An allocation in the order of addresses.
#[derive(Clone)]
struct Region {
    start: u64,
    bytes: u64,
    data: Arc<Bytes>,
}

impl Region {
    /// Whether the accesses of all lanes of a mask are inside and aligned.
    #[inline(always)]
    fn holds(&self, mask: u32, addresses: &Lanes<u64>, bytes: usize) -> bool {
        // The top bit is set where a number is below zero: an offset, or what is left behind it.
        let room = self.bytes.wrapping_sub(bytes as u64);
        let (mut outside, mut low) = (0, 0);
        for (lane, &address) in addresses.iter().enumerate() {
            let offset = if mask >> lane & 1 != 0 { address.wrapping_sub(self.start) } else { 0 };
            outside |= offset | room.wrapping_sub(offset);
            low |= offset;
        }
        outside >> 63 == 0 && low & (bytes as u64 - 1) == 0
    }
}

#[derive(Default)]
struct State {
    regions: BTreeMap<u64, Region>,
    /// The start of the next allocation.
    next: u64,
    used: u64,
    /// The snapshot of what is there now, once somebody asked for it.
    view: Option<View>,
}

/// The memory of a device.
pub struct Global {
    limit: u64,
    state: Mutex<State>,
}

impl Global {
    /// A memory of `limit` bytes, all of them free.
    pub fn new(limit: u64) -> Global {
        Global { limit, state: Mutex::new(State { next: BASE, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made in one piece, so that what a panicking thread leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zeroed memory of exactly `bytes` bytes, at a multiple of 256.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        let none = || Error::Memory { device: "emulator".into(), bytes };
        let mut state = self.state();
        if bytes as u64 > self.limit - state.used {
            return Err(none());
        }
        let data = Arc::new(Bytes::new(bytes).ok_or_else(none)?);
        let (start, bytes) = (state.next, bytes as u64);
        state.next += bytes.next_multiple_of(ALIGN) + GAP;
        state.used += bytes;
        state.regions.insert(start, Region { start, bytes, data });
        state.view = None;
        Ok(start)
    }

    /// Takes memory of `alloc` back. Views of before keep it alive.
    pub fn free(&self, address: u64) {
        let mut state = self.state();
        if let Some(region) = state.regions.remove(&address) {
            state.used -= region.bytes;
            state.view = None;
        }
    }

    /// What is allocated now.
    pub fn view(&self) -> View {
        let mut state = self.state();
        if state.view.is_none() {
            state.view = Some(View(state.regions.values().cloned().collect()));
        }
        state.view.clone().unwrap_or_else(|| View(Arc::new([])))
    }

    fn range(&self, what: &str, address: u64, bytes: usize) -> Result<(View, *mut u8)> {
        let view = self.view();
        let at = view.resolve_bytes(address, bytes);
        let at = at.map_err(|fault| Error::Device { device: "emulator".into(), why: format!("{what}: {fault}") })?;
        Ok((view, at))
    }

    /// Copies from the host.
    pub fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        let (_alive, at) = self.range("upload", to, from.len())?;
        // SAFETY: the range is inside one allocation that the view keeps, which `from` cannot overlap. Launches are
        // synchronous: nobody else touches the bytes unless the caller races with its own work.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at, from.len()) }
        Ok(())
    }

    /// Fills with copies of a byte.
    pub fn fill(&self, address: u64, byte: u8, bytes: usize) -> Result<()> {
        let (_alive, at) = self.range("fill", address, bytes)?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::write_bytes(at, byte, bytes) }
        Ok(())
    }

    /// Copies to the host.
    pub fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let (_alive, at) = self.range("download", from, to.len())?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(at, to.as_mut_ptr(), to.len()) }
        Ok(())
    }
}

/// The allocations of a moment.
#[derive(Clone)]
pub struct View(Arc<[Region]>);

impl View {
    /// Where `bytes` bytes at an address are on this machine; a fault if they are not inside one allocation, or not
    /// at a multiple of `bytes` (a power of two). `hint` is the caller's: where the last access was found.
    #[inline]
    pub fn resolve(&self, hint: &mut usize, address: u64, bytes: usize) -> Result<*mut u8, Fault> {
        if address & (bytes as u64 - 1) != 0 {
            return Err(Fault::Misaligned { space: Space::Global, address, bytes });
        }
        if let Some(region) = self.0.get(*hint) {
            let offset = address.wrapping_sub(region.start);
            // An aligned access that begins inside may end outside only where the size is no multiple of it.
            if offset < region.bytes && region.bytes - offset >= bytes as u64 {
                // SAFETY: the offset is inside the allocation.
                return Ok(unsafe { region.data.data.as_ptr().add(offset as usize) });
            }
        }
        *hint = self.find(address);
        self.in_region(*hint, address, bytes)
    }

    /// As [`resolve`](View::resolve), of an access of each lane of a mask: calls `visit` with the lanes and where their bytes
    /// are. A fault comes with its lane, after the lanes before it.
    #[inline(always)]
    pub fn each_lane(
        &self,
        hint: &mut usize,
        mask: u32,
        addresses: &Lanes<u64>,
        bytes: usize,
        mut visit: impl FnMut(usize, *mut u8),
    ) -> Result<(), (usize, Fault)> {
        let first = addresses[mask.trailing_zeros() as usize % LANES];
        if self.0.get(*hint).is_none_or(|region| first.wrapping_sub(region.start) >= region.bytes) {
            *hint = self.find(first);
        }
        if let Some(region) = self.0.get(*hint).filter(|region| region.holds(mask, addresses, bytes)) {
            let data = region.data.data.as_ptr();
            // SAFETY: the offset is inside the allocation.
            let visit = |lane: usize| visit(lane, unsafe { data.add((addresses[lane] - region.start) as usize) });
            if mask == FULL {
                (0..LANES).for_each(visit)
            } else {
                lanes(mask).for_each(visit)
            }
            return Ok(());
        }
        for lane in lanes(mask) {
            let at = self.resolve(hint, addresses[lane], bytes).map_err(|fault| (lane, fault))?;
            visit(lane, at);
        }
        Ok(())
    }

    /// As [`resolve`](View::resolve), of any number of bytes at any address.
    fn resolve_bytes(&self, address: u64, bytes: usize) -> Result<*mut u8, Fault> {
        self.in_region(self.find(address), address, bytes)
    }

    /// The last region that begins at or before an address.
    #[cold]
    fn find(&self, address: u64) -> usize {
        self.0.partition_point(|region| region.start <= address).saturating_sub(1)
    }

    #[cold]
    fn in_region(&self, index: usize, address: u64, bytes: usize) -> Result<*mut u8, Fault> {
        let region = self.0.get(index);
        if let Some(region) = region {
            let offset = address.wrapping_sub(region.start);
            if offset <= region.bytes && region.bytes - offset >= bytes as u64 {
                // SAFETY: the offset is inside the allocation, or at its end with nothing to access.
                return Ok(unsafe { region.data.data.as_ptr().add(offset as usize) });
            }
        }
        let near = region.map(|region| (region.start, region.bytes));
        Err(Fault::OutOfBounds { space: Space::Global, address, bytes, near })
    }
}

/// Reads 1, 2, 4 or 8 bytes.
///
/// # Safety
/// `at` is an address that [`View::resolve`] gave for as many bytes, of a view that is still held.
#[inline(always)]
pub unsafe fn load(at: *mut u8, bytes: usize) -> u64 {
    // SAFETY: the caller's promise; allocations begin at multiples of 256, so that what is aligned in the device's
    // address space is here.
    unsafe {
        match bytes {
            1 => AtomicU8::from_ptr(at).load(Relaxed).into(),
            2 => AtomicU16::from_ptr(at.cast()).load(Relaxed).into(),
            4 => atomic_u32(at).load(Relaxed).into(),
            _ => atomic_u64(at).load(Relaxed),
        }
    }
}

/// Writes the low 1, 2, 4 or 8 bytes of a value.
///
/// # Safety
/// As of [`load`].
#[inline(always)]
pub unsafe fn store(at: *mut u8, bytes: usize, value: u64) {
    // SAFETY: as in `load`.
    unsafe {
        match bytes {
            1 => AtomicU8::from_ptr(at).store(value as u8, Relaxed),
            2 => AtomicU16::from_ptr(at.cast()).store(value as u16, Relaxed),
            4 => atomic_u32(at).store(value as u32, Relaxed),
            _ => atomic_u64(at).store(value, Relaxed),
        }
    }
}

/// The four bytes at an address, for atomic updates.
///
/// # Safety
/// As of [`load`]; the reference ends with the view.
#[inline(always)]
pub unsafe fn atomic_u32<'a>(at: *mut u8) -> &'a AtomicU32 {
    // SAFETY: aligned and alive, by the caller's promise.
    unsafe { AtomicU32::from_ptr(at.cast()) }
}

/// The eight bytes at an address, for atomic updates.
///
/// # Safety
/// As of [`atomic_u32`].
#[inline(always)]
pub unsafe fn atomic_u64<'a>(at: *mut u8) -> &'a AtomicU64 {
    // SAFETY: as above.
    unsafe { AtomicU64::from_ptr(at.cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_there() {
        let memory = Global::new(1 << 20);
        let (a, b) = (memory.alloc(10).unwrap(), memory.alloc(4096).unwrap());
        assert!(a.is_multiple_of(256) && b.is_multiple_of(256));
        memory.upload(a, &[7; 10]).unwrap();
        let mut back = [1; 10];
        memory.download(a, &mut back).unwrap();
        assert_eq!(back, [7; 10]);
        memory.download(b, &mut back).unwrap();
        assert_eq!(back, [0; 10]);

        let (view, mut hint) = (memory.view(), 0);
        for (address, bytes) in [(a, 8), (a + 8, 2), (b, 4), (b + 4092, 4), (a + 9, 1)] {
            let at = view.resolve(&mut hint, address, bytes).unwrap();
            // SAFETY: the view is held.
            let value = unsafe { load(at, bytes) };
            assert_eq!(value & 0xff, if address < b { 7 } else { 0 });
        }
        for (address, bytes) in [(a + 8, 4), (a + 10, 1), (a - 4, 4), (b + 4096, 16), (0, 4), (u64::MAX - 3, 4)] {
            let fault = view.resolve(&mut hint, address, bytes).unwrap_err();
            assert!(matches!(fault, Fault::OutOfBounds { .. }), "{fault}");
        }
        assert!(matches!(view.resolve(&mut hint, b + 2, 4), Err(Fault::Misaligned { .. })));
        assert!(memory.upload(b + 4000, &[0; 97]).is_err());
    }

    #[test]
    fn what_was_freed_is_gone_and_never_given_out_again() {
        let memory = Global::new(1000);
        let a = memory.alloc(600).unwrap();
        assert!(matches!(memory.alloc(600), Err(Error::Memory { bytes: 600, .. })));
        let before = memory.view();
        memory.free(a);
        let b = memory.alloc(600).unwrap();
        assert_ne!(a, b);
        assert!(before.resolve(&mut 0, a, 4).is_ok());
        assert!(memory.view().resolve(&mut 0, a, 4).is_err());
        assert!(matches!(Global::new(u64::MAX).alloc(usize::MAX / 4), Err(Error::Memory { .. })));
    }
}
