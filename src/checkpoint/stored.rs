//! A tensor as a file stores it: any dtype of the format, and its bytes where they lie.

use crate::backend::cpu::MappedBytes;
use crate::ops::quant::dequantise;
use crate::{DType, Elem, Error, Quant, Result};
use bytemuck::Pod;
use half::{bf16, f16};
use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

// Files are little endian, and mapped bytes are read as they lie.
const _: () = assert!(cfg!(target_endian = "little"), "lapidary reads weights in place: little-endian hosts only");

macro_rules! stored_dtypes {
    ($($variant:ident $header:literal $name:literal $bytes:literal $device:expr;)*) => {
        /// Element types of tensors in files. Those that devices lack are cast on the way in.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum StoredDType {
            $($variant,)*
            /// Quantised blocks, in GGUF files only.
            Blocks(Quant),
            /// Blocks of GGUF files that can be measured but not read.
            Foreign(Foreign),
        }

        impl StoredDType {
            /// Those of safetensors files: an element each.
            pub const PLAIN: &[StoredDType] = &[$(StoredDType::$variant,)*];

            /// The size in bytes of an element, or of a block.
            pub const fn bytes(self) -> usize {
                match self {
                    $(StoredDType::$variant => $bytes,)*
                    StoredDType::Blocks(quant) => quant.block_bytes(),
                    StoredDType::Foreign(foreign) => foreign.block_bytes,
                }
            }

            /// The name as text, spelled as [`DType::name`] does: `f32`, `i64`, `bool`, `q8_0`, …
            pub const fn name(self) -> &'static str {
                match self {
                    $(StoredDType::$variant => $name,)*
                    StoredDType::Blocks(quant) => quant.name(),
                    StoredDType::Foreign(foreign) => foreign.name,
                }
            }

            /// The name in the header of a safetensors file: `F32`, `I64`, `BOOL`, …; blocks have none.
            pub const fn header_name(self) -> Option<&'static str> {
                match self {
                    $(StoredDType::$variant => Some($header),)*
                    StoredDType::Blocks(_) | StoredDType::Foreign(_) => None,
                }
            }

            /// The same element type on devices, where it exists there.
            pub const fn device(self) -> Option<DType> {
                match self {
                    $(StoredDType::$variant => $device,)*
                    StoredDType::Blocks(_) | StoredDType::Foreign(_) => None,
                }
            }
        }
    };
}
stored_dtypes! {
    F64 "F64" "f64" 8 None;
    F32 "F32" "f32" 4 Some(DType::F32);
    F16 "F16" "f16" 2 Some(DType::F16);
    BF16 "BF16" "bf16" 2 Some(DType::BF16);
    I64 "I64" "i64" 8 None;
    I32 "I32" "i32" 4 Some(DType::I32);
    I16 "I16" "i16" 2 None;
    I8 "I8" "i8" 1 None;
    U64 "U64" "u64" 8 None;
    U32 "U32" "u32" 4 Some(DType::U32);
    U16 "U16" "u16" 2 None;
    U8 "U8" "u8" 1 Some(DType::U8);
    Bool "BOOL" "bool" 1 None;
    F8E4M3 "F8_E4M3" "f8_e4m3" 1 None;
    F8E5M2 "F8_E5M2" "f8_e5m2" 1 None;
    F8E8M0 "F8_E8M0" "f8_e8m0" 1 None;
}

/// A block format by its measures only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Foreign {
    /// Its name as text, in lower case.
    pub name: &'static str,
    /// Values of a block, which lie in one row.
    pub block_values: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
}

impl StoredDType {
    /// The values of a block; 1 where elements stand alone.
    pub const fn block_values(self) -> usize {
        match self {
            StoredDType::Blocks(quant) => quant.block_values(),
            StoredDType::Foreign(foreign) => foreign.block_values,
            _ => 1,
        }
    }

    /// The size in bytes of a tensor of this type, or `None` where it overflows or a row ends within a block. (An extent
    /// of zero hides no overflow.)
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let (row, rows) = shape.split_last().map_or((1, shape), |(&row, rows)| (row, rows));
        if !row.is_multiple_of(self.block_values()) {
            return None;
        }
        let row_bytes = (row / self.block_values()).max(1).checked_mul(self.bytes())?;
        let bytes = rows.iter().try_fold(row_bytes, |n, &d| n.checked_mul(d.max(1)))?;
        Some(if shape.contains(&0) { 0 } else { bytes })
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<DType> for StoredDType {
    fn from(dtype: DType) -> StoredDType {
        match dtype {
            DType::F32 => StoredDType::F32,
            DType::F16 => StoredDType::F16,
            DType::BF16 => StoredDType::BF16,
            DType::I32 => StoredDType::I32,
            DType::U32 => StoredDType::U32,
            DType::U8 => StoredDType::U8,
        }
    }
}

/// A tensor of a checkpoint: row-major, its bytes still in the mapped file. Nothing is read before it is asked for.
#[derive(Clone)]
pub struct Stored {
    /// The full name in the checkpoint.
    pub name: String,
    /// The file that holds it.
    pub path: Arc<Path>,
    /// The element type in the file.
    pub dtype: StoredDType,
    /// The extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, little endian, in row-major order; or rows of blocks. They may lie at any address.
    pub bytes: MappedBytes,
}

impl Stored {
    /// The number of elements of its shape.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.dtype.bytes() * self.dtype.block_values()
    }

    /// The elements as `T`, on the host; those of quantised blocks as numbers. Floats are rounded to the nearest value of
    /// `T` (as everywhere, what is beyond its largest becomes infinite); integers must keep their value, and floats become
    /// integers only if they are some.
    ///
    /// # Errors
    /// [`Error::Cast`] with the first element that an integer type `T` cannot hold; [`Error::NotSupported`] for
    /// eight-bit floats and blocks that cannot be read.
    pub fn to_vec<T: Elem>(&self) -> Result<Vec<T>> {
        if self.dtype.device() == Some(T::DTYPE) {
            return Ok(self.values().collect());
        }
        match self.dtype {
            StoredDType::F64 => self.cast(|x: f64| x),
            StoredDType::F32 => self.cast(|x: f32| x.into()),
            StoredDType::F16 => self.cast(f16::to_f64),
            StoredDType::BF16 => self.cast(|x: bf16| x.to_f32().into()),
            // 64-bit integers lose low bits in f64, but only those that no integer `T` can hold.
            StoredDType::I64 => self.cast(|x: i64| x as f64),
            StoredDType::U64 => self.cast(|x: u64| x as f64),
            StoredDType::I32 => self.cast(|x: i32| x.into()),
            StoredDType::I16 => self.cast(|x: i16| x.into()),
            StoredDType::I8 => self.cast(|x: i8| x.into()),
            StoredDType::U32 => self.cast(|x: u32| x.into()),
            StoredDType::U16 => self.cast(|x: u16| x.into()),
            StoredDType::U8 => self.cast(|x: u8| x.into()),
            StoredDType::Bool => self.cast(|x: u8| f64::from(x != 0)),
            StoredDType::Blocks(quant) => {
                let mut values = vec![0f32; self.count()];
                dequantise(quant, &self.bytes, &mut values);
                match (&mut values as &mut dyn Any).downcast_mut::<Vec<T>>() {
                    Some(same) => Ok(std::mem::take(same)),
                    None => cast(values.into_iter(), f64::from),
                }
            }
            StoredDType::F8E4M3 | StoredDType::F8E5M2 | StoredDType::F8E8M0 | StoredDType::Foreign(_) => {
                Err(self.unreadable(T::DTYPE.name()))
            }
        }
    }

    /// What to say of a tensor in a format that nothing here reads.
    pub(super) fn unreadable(&self, as_what: &str) -> Error {
        let quants = Quant::ALL.map(Quant::name).join(", ");
        let (path, name, dtype) = (self.path.display(), &self.name, self.dtype);
        Error::NotSupported(format!(
            "{path}: tensor `{name}` is stored as {dtype}, which cannot be read as {as_what} yet; of quantised formats \
             {quants} can"
        ))
    }

    /// The elements of an integer or bool tensor (ids, indices, masks), exactly.
    ///
    /// # Errors
    /// [`Error::WrongTensor`] for a tensor of floats, or a u64 beyond i64.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        let wrong = |have: String| Error::WrongTensor {
            path: self.path.to_path_buf(),
            name: self.name.clone(),
            want: "made of integers that fit i64".into(),
            have,
        };
        match self.dtype {
            StoredDType::I64 => Ok(self.values().collect()),
            StoredDType::I32 => Ok(self.values::<i32>().map(i64::from).collect()),
            StoredDType::I16 => Ok(self.values::<i16>().map(i64::from).collect()),
            StoredDType::I8 => Ok(self.values::<i8>().map(i64::from).collect()),
            StoredDType::U32 => Ok(self.values::<u32>().map(i64::from).collect()),
            StoredDType::U16 => Ok(self.values::<u16>().map(i64::from).collect()),
            StoredDType::U8 => Ok(self.values::<u8>().map(i64::from).collect()),
            StoredDType::Bool => Ok(self.values::<u8>().map(|x| i64::from(x != 0)).collect()),
            StoredDType::U64 => {
                let exact = |(i, x): (usize, u64)| x.try_into().map_err(|_| wrong(format!("{x} at index {i}")));
                self.values::<u64>().enumerate().map(exact).collect()
            }
            _ => Err(wrong(self.dtype.to_string())),
        }
    }

    /// The elements as they are stored. Unaligned reads cost nothing here and spare a second path.
    fn values<S: Pod>(&self) -> impl Iterator<Item = S> {
        self.bytes.chunks_exact(size_of::<S>()).map(bytemuck::pod_read_unaligned)
    }

    fn cast<S: Pod + fmt::Display, T: Elem>(&self, to_f64: impl Fn(S) -> f64) -> Result<Vec<T>> {
        cast(self.values(), to_f64)
    }
}

fn cast<S: Copy + fmt::Display, T: Elem>(values: impl Iterator<Item = S>, to_f64: impl Fn(S) -> f64) -> Result<Vec<T>> {
    if T::DTYPE.is_float() {
        return Ok(values.map(|x| T::from_f64(to_f64(x))).collect());
    }
    let exact = |(index, x): (usize, S)| {
        let wide = to_f64(x);
        let cast = T::from_f64(wide);
        // `from_f64` truncates and saturates, so any value that does not come back does not fit.
        let fits = cast.to_f64() == wide;
        if fits { Ok(cast) } else { Err(Error::Cast { value: x.to_string(), index, dtype: T::DTYPE }) }
    };
    values.enumerate().map(exact).collect()
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.dtype, self.shape)
    }
}
