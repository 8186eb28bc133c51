//! Bytes on the host: aligned and recycled, or a mapped file read where it lies.

use crate::error::{Error, Result};
use memmap2::{Mmap, MmapMut};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

/// Every buffer starts at a multiple of this: a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;

/// A part of a file that is mapped read-only into memory. Clones share the mapping.
#[derive(Clone)]
pub struct MappedBytes {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl MappedBytes {
    /// Maps a whole file.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or is empty.
    pub fn open(path: impl AsRef<Path>) -> Result<MappedBytes> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
            return Err(Error::file(path, "the file is empty"));
        }
        // SAFETY: the mapping is private and read-only. As with every mapped weight file, the file must not be
        // truncated by another process while it is in use; the crate doc says so.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        let range = 0..map.len();
        Ok(MappedBytes { map: Arc::new(map), range })
    }

    /// A part of this part.
    ///
    /// # Panics
    /// The range does not lie inside; callers check it against [`len`](slice::len) first.
    pub fn slice(&self, range: Range<usize>) -> MappedBytes {
        assert!(range.start <= range.end && range.end <= self.range.len());
        MappedBytes { map: self.map.clone(), range: self.range.start + range.start..self.range.start + range.end }
    }
}

impl Deref for MappedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

/// Memory of one tensor, freed (into the pool that it came from) when dropped.
pub struct Buffer(Bytes);

enum Bytes {
    Owned { block: Block, pool: Arc<Recycler> },
    Mapped(MappedBytes),
}

impl Buffer {
    /// A buffer over mapped bytes; it can be read, never written.
    pub(crate) fn mapped(bytes: MappedBytes) -> Buffer {
        Buffer(Bytes::Mapped(bytes))
    }

    /// Whether it is a mapped file.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.0, Bytes::Mapped(_))
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Bytes::Owned { block, .. } => block.len,
            Bytes::Mapped(m) => m.len(),
        }
    }

    /// Lets the pages that lie wholly inside of a mapped part go; others are left alone.
    pub(crate) fn release_pages(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(m) = &self.0 {
            const PAGE: usize = 4096;
            let (start, end) = (m.range.start.next_multiple_of(PAGE), m.range.end / PAGE * PAGE);
            if start < end {
                // SAFETY: the mapping is of a file, private and never written: what is dropped is read again from it.
                let advised =
                    unsafe { m.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
                // Advice only: where the system does not take it, pages stay.
                let _ = advised;
            }
        }
    }

    /// The first byte. Writing through it needs [`Buffer::is_mapped`] to be false and the caller to be the only one
    /// who reads or writes these bytes meanwhile.
    pub(crate) fn ptr(&self) -> *mut u8 {
        match &self.0 {
            Bytes::Owned { block, .. } => block.ptr.as_ptr(),
            Bytes::Mapped(m) => m.as_ptr().cast_mut(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Bytes::Owned { block, pool } = &mut self.0 {
            pool.give_back(std::mem::replace(block, Block::EMPTY));
        }
    }
}

/// An allocation from the system, zeroed.
struct Block {
    ptr: NonNull<u8>,
    len: usize,
    capacity: usize,
    /// Where `ptr` points into, for a large one.
    map: Option<MmapMut>,
}

/// A large page. Blocks of at least this size are asked to lie in such: with small ones, a core that reads memory waits for
/// translations (in a virtual machine twice over). One row times bf16 weights of 90 MB reads 29 GB/s instead of 19 to 24, rows of
/// 64 MB are normalised in 5.6 ms instead of 6.3. Writing them for the first time costs the system as much as small ones or
/// less (0.10 to 0.15 s for 346 MB, small ones 0.17 to 0.22), but 0.34 to 0.45 s where a virtual machine's host has yet to find
/// the memory.
const LARGE_PAGE: usize = 2 << 20;

impl Block {
    const EMPTY: Block = Block { ptr: NonNull::dangling(), len: 0, capacity: 0, map: None };

    /// Zeroed memory. A large block is a mapping, whose pages the system zeroes when they are first written, by whichever thread
    /// writes them; the allocator would have this thread write zeros over all of them first.
    fn new(capacity: usize) -> Option<Block> {
        if capacity < LARGE_PAGE {
            // SAFETY: the layout's size is at least one cache line, hence not zero.
            let ptr = NonNull::new(unsafe { alloc_zeroed(Block::layout(capacity)?) })?;
            return Some(Block { ptr, len: 0, capacity, map: None });
        }
        let mut map = MmapMut::map_anon(capacity.checked_add(LARGE_PAGE)?).ok()?;
        let start = map.as_ptr().align_offset(LARGE_PAGE);
        // Pages that lie wholly inside: a large page at the end would be taken for what nobody uses. Advice only.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, start, capacity / LARGE_PAGE * LARGE_PAGE);
        let ptr = NonNull::from(&mut map[start..][..capacity]).cast();
        Some(Block { ptr, len: 0, capacity, map: Some(map) })
    }

    fn layout(capacity: usize) -> Option<Layout> {
        Layout::from_size_align(capacity, ALIGNMENT).ok()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let (None, 1.., Some(layout)) = (&self.map, self.capacity, Block::layout(self.capacity)) {
            // SAFETY: `ptr` came from `alloc_zeroed` with this very layout, and nothing refers to it any more.
            unsafe { dealloc(self.ptr.as_ptr(), layout) }
        }
    }
}

// SAFETY: a block is plain memory that it owns; access is governed by whoever holds the buffer.
unsafe impl Send for Block {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Block {}

/// Keeps freed blocks for the next tensor of about the same size, so that a steady state asks the system for nothing.
/// Memory is zeroed when it first comes from the system; a recycled block holds old values, never uninitialised ones.
#[derive(Default)]
pub(crate) struct Recycler {
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    blocks: BTreeMap<usize, Vec<Block>>,
    bytes: usize,
}

/// Blocks beyond this many bytes in all go back to the system.
const KEEP_BYTES: usize = 1 << 30;

impl Recycler {
    /// Memory of at least `bytes` bytes.
    ///
    /// # Errors
    /// The system has no more.
    pub(crate) fn alloc(self: &Arc<Recycler>, bytes: usize) -> Result<Buffer> {
        let capacity = size_class(bytes);
        let recycled = {
            let mut free = self.lock();
            let block = free.blocks.get_mut(&capacity).and_then(Vec::pop);
            free.bytes -= block.as_ref().map_or(0, |b| b.capacity);
            block
        };
        let none = || Error::Memory { device: "cpu".into(), bytes };
        let mut block = recycled.or_else(|| Block::new(capacity)).ok_or_else(none)?;
        block.len = bytes;
        Ok(Buffer(Bytes::Owned { block, pool: self.clone() }))
    }

    /// Bytes of the blocks that nobody uses.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn give_back(&self, block: Block) {
        let mut free = self.lock();
        if block.capacity > 0 && free.bytes + block.capacity <= KEEP_BYTES {
            free.bytes += block.capacity;
            free.blocks.entry(block.capacity).or_default().push(block);
        }
    }
}

/// Rounds up to one of eight sizes per power of two, so that tensors of nearly the same size share blocks.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.checked_next_power_of_two().unwrap_or(0) / 16).max(ALIGNMENT);
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_recycled() {
        let pool = Arc::new(Recycler::default());
        let a = pool.alloc(1000).unwrap();
        assert_eq!(a.ptr() as usize % ALIGNMENT, 0);
        let first = a.ptr();
        drop(a);
        let b = pool.alloc(990).unwrap();
        assert_eq!((b.ptr(), b.len()), (first, 990));
        assert!(matches!(pool.alloc(usize::MAX / 2), Err(Error::Memory { .. })));
        assert!(matches!(pool.alloc(usize::MAX), Err(Error::Memory { .. })));

        let large = pool.alloc(3 * LARGE_PAGE).unwrap();
        assert_eq!(large.ptr() as usize % ALIGNMENT, 0);
        // SAFETY: nobody else has the buffer.
        let bytes = unsafe { std::slice::from_raw_parts_mut(large.ptr(), large.len()) };
        assert!(bytes.iter().all(|&b| b == 0));
        bytes.fill(1);
        let first = large.ptr();
        drop(large);
        assert_eq!(pool.alloc(3 * LARGE_PAGE).unwrap().ptr(), first);
    }
}
