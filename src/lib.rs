//! Lapidary (crate doc to come).
#![deny(unsafe_code, missing_docs)]
#![allow(missing_docs)]

mod autograd;
#[allow(unsafe_code)]
pub mod backend;
pub mod bench;
pub mod checkpoint;
mod cost;
mod device;
mod dtype;
mod error;
mod layout;
pub mod media;
pub mod ops;
pub mod profile;
mod tensor;
pub mod text;

pub use autograd::{Gradients, NoGrad, backward, no_grad};
pub use cost::Cost;
pub use device::{Device, MemoryUse};
pub use dtype::{DType, Elem, Format, Scalar};
pub use error::{Error, Result, Unsupported};
pub use layout::{Layout, MAX_RANK, Shape, Takes};
pub use tensor::{Backward, Node, Tensor, TensorMut};
