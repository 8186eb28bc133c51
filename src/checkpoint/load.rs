//! From a stored tensor to one on a device.

use super::{Stored, StoredDType};
use crate::{DType, Device, Elem, Format, Result, Tensor, with_elem};

impl Stored {
    /// The tensor on a device, as stored where the device has the dtype: then its mapped bytes are read in place.
    /// Quantised blocks stay such ([`Format::Blocks`], of u8). Types that devices lack are cast, with a range check: f64
    /// to f32, and integers to i32 (bool to u8).
    ///
    /// # Errors
    /// A value is out of range, blocks are in a format that cannot be read, or memory is short.
    pub fn tensor(&self, device: &Device) -> Result<Tensor> {
        let mapped = |dtype, format| Tensor::from_mapped(device, self.bytes.clone(), dtype, format, &self.shape);
        match (self.dtype, self.dtype.device()) {
            (StoredDType::Blocks(quant), _) => mapped(DType::U8, Format::Blocks(quant)),
            (StoredDType::Foreign(_), _) => Err(self.unreadable("a tensor")),
            (_, Some(dtype)) => mapped(dtype, Format::Plain),
            (other, None) => self.tensor_as(device, fallback(other)),
        }
    }

    /// The tensor on a device in another dtype; of quantised blocks, their values.
    ///
    /// # Errors
    /// A value is out of range, blocks are in a format that cannot be read, or memory is short.
    pub fn tensor_as(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        if self.dtype.device() == Some(dtype) {
            return self.tensor(device);
        }
        fn cast<T: Elem>(stored: &Stored, device: &Device) -> Result<Tensor> {
            Tensor::from_slice(device, &stored.to_vec::<T>()?, &stored.shape)
        }
        with_elem!(dtype, T => cast::<T>(self, device))
    }
}

fn fallback(stored: StoredDType) -> DType {
    match stored {
        StoredDType::Bool => DType::U8,
        StoredDType::I64 | StoredDType::U64 | StoredDType::I16 | StoredDType::U16 | StoredDType::I8 => DType::I32,
        _ => DType::F32,
    }
}
