//! Lapidary: a tensor engine from scratch. Kernels cut by hand for each backend, and the graphs of multimodal models on
//! top of them, with no framework in between.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | `error` `dtype` `layout` `cost` `random` | vocabulary; strides are in elements |
//! | [`backend`] | how memory is had and work is submitted; nothing in it is named after an op: `cpu` (threads, buffers, vectors), `wgpu` (shaders, queue, pool), `cuda` (drivers, launches, an emulator of PTX) |
//! | [`profile`] | spans of kernels and layers; tables, JSON, traces |
//! | `device` | [`Device`]: a backend's device with profiler and memory counters |
//! | `tensor` | [`Tensor`]: storage, layout, dtype, format, place on the tape; data only |
//! | `autograd` | the walk backwards over the tape |
//! | [`ops`] | one folder per op: the checked problem, its reference, its cases, its kernels; `run`, `explain`, the catalog |
//! | [`bench`] | one harness over the catalog: checks, timing, measured peaks; results beside those of other libraries |
//! | [`checkpoint`] | safetensors, mapped and sharded; GGUF; a view by prefix; synthetic checkpoints |
//! | [`media`] | pictures: resize, crop, normalise; PNG and JPEG with feature `media` |
//! | [`text`] | ids in and out; tokenizers and chat templates with feature `text` |
//! | [`nn`] | layers; writing on: cache, sampling, beams |
//! | [`train`] | the loop around a loss: schedule, optimiser, adapters, saving and resuming |
//! | [`models`] | one per family |
//! | [`golden`] | reads and judges golden cases |
//! | `bin/lapidary` | the command line, one file per command |
//!
//! # The import rule
//!
//! A module imports from those above it in this order, never from a sibling, as `tests/layering.rs` enforces: vocabulary;
//! backends (never one another); profile; device; tensor; autograd; ops (kernel files import no other op); bench; checkpoint
//! and media; text (the vocabulary only); nn; train; models (no `unsafe`, no `cfg(feature)`, no backend); golden and the binary.
//! The backends are listed in two files only: `device.rs` and those of `ops` that run problems.
//!
//! # Safety
//!
//! `unsafe` is in `backend` and in kernel files, nowhere else, each block with its reason. Checkpoints are mapped: as with
//! every mapped file, another process must not truncate one while it is in use.
//!
//! The README has an example.
#![deny(unsafe_code)]

mod autograd;
#[allow(unsafe_code)]
pub mod backend;
pub mod bench;
pub mod checkpoint;
mod cost;
mod device;
mod dtype;
mod error;
pub mod golden;
mod layout;
pub mod media;
pub mod models;
pub mod nn;
pub mod ops;
pub mod profile;
mod random;
mod tensor;
pub mod text;
pub mod train;

pub use autograd::{Gradients, NoGrad, backward, no_grad};
pub use cost::Cost;
pub use device::{Device, MemoryUse, Recording};
pub use dtype::{DType, Elem, Format, Quant, Scalar};
pub use error::{Error, Result, Unsupported};
pub use layout::{Layout, MAX_RANK, Shape, Takes};
pub use tensor::{Backward, Node, Tensor, TensorMut};

/// The README, whose example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
