//! What goes from the host to the device before a call.

use crate::dtype::Elem;
use crate::{Device, Result, Tensor};

/// Tensors made of a call's host values, in the order in which they are put. After a [`rewind`](Feed::rewind) the values of
/// the next call go into the same memory, so that launches that were recorded read them.
#[derive(Default)]
pub struct Feed {
    slots: Vec<Tensor>,
    next: usize,
}

impl Feed {
    /// Begins the next call.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    /// A tensor of these values. Where the call before had one in its place, it is overwritten; whoever holds that must have
    /// let it go.
    ///
    /// # Errors
    /// The tensor in its place has another shape or dtype or is still held, or memory is short.
    pub fn put<T: Elem>(&mut self, device: &Device, values: &[T], shape: &[usize]) -> Result<Tensor> {
        if self.next == self.slots.len() {
            self.slots.push(Tensor::from_slice(device, values, shape)?);
        } else {
            self.slots[self.next].as_mut()?.write(values)?;
        }
        self.next += 1;
        Ok(self.slots[self.next - 1].clone())
    }
}
