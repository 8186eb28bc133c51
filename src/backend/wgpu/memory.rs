//! Buffers, and the pool that they return to when dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes that wait in a pool at most: enough for what a model's forward pass takes and gives back, and little beside the
/// weights of a model that was let go.
const POOL_BYTES: u64 = 1 << 30;

/// Memory on the device. Dropping it gives it back to the pool at once: the queue's order keeps its next user apart from
/// work that was recorded before.
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
    pool: Arc<Pool>,
}

impl Buffer {
    pub(super) fn new(raw: wgpu::Buffer, pool: Arc<Pool>) -> Buffer {
        Buffer { raw, pool }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.pool.free();
        // Beyond the limit it goes back to the driver, once work that was recorded is done with it.
        if free.bytes + self.raw.size() > POOL_BYTES {
            return;
        }
        free.bytes += self.raw.size();
        free.by_size.entry(self.raw.size()).or_default().push(self.raw.clone());
    }
}

/// Buffers that wait for the next tensor of their size.
#[derive(Default)]
pub(super) struct Pool(Mutex<Free>);

#[derive(Default)]
struct Free {
    bytes: u64,
    by_size: HashMap<u64, Vec<wgpu::Buffer>>,
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A buffer of exactly this size, if one waits.
    pub fn take(&self, size: u64) -> Option<wgpu::Buffer> {
        let mut free = self.free();
        let buffer = free.by_size.get_mut(&size)?.pop()?;
        free.bytes -= size;
        Some(buffer)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.free().bytes
    }

    /// Gives all that waits back to the system.
    pub fn clear(&self) {
        *self.free() = Free::default();
    }
}

/// The size that a request is rounded up to, so that similar tensors share buffers: steps of an eighth of the next power
/// of two below (at most an eighth is wasted), at least 256 bytes. What it leaves is never less than 16 bytes of a whole
/// vector, so that vector loads stay inside.
pub(super) fn rounded(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let step = (1u64 << (63 - bytes.leading_zeros())) / 8;
    bytes.next_multiple_of(step.max(256))
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn sizes_are_rounded_by_at_most_an_eighth() {
        for bytes in [0u64, 1, 255, 256, 257, 4096, 5000, 1 << 20, (1 << 20) + 1, 131_072_000, 3 << 30] {
            let size = rounded(bytes);
            assert!(size >= bytes && size.is_multiple_of(256), "{bytes} to {size}");
            assert!(size - bytes <= (bytes / 8).max(256), "{bytes} to {size}");
            assert_eq!(rounded(size), size);
        }
    }
}
