//! Without feature `wgpu`: the types that kernels' launch code names, and no way to have a value of them.

use super::{Call, Caps};
use crate::error::{Error, Result};

/// No value of it exists.
#[derive(Clone)]
pub enum Device {}

/// Memory of a [`Device`].
pub enum Buffer {}

/// A moment in a [`Device`]'s queue.
pub enum Stamp {}

impl Device {
    /// # Errors
    /// Always: it was not built in.
    pub fn open(name: &str) -> Result<Device> {
        Err(Error::Device { device: name.into(), why: "this build lacks the feature `wgpu`".into() })
    }

    /// # Errors
    /// Always: it was not built in.
    pub fn open_within(name: &str, _: u64) -> Result<Device> {
        Device::open(name)
    }

    /// No adapters.
    pub fn adapters() -> Vec<String> {
        Vec::new()
    }

    pub fn compiled(&self) -> Vec<super::shader::Compiled> {
        match *self {}
    }
    pub fn describe(&self) -> String {
        match *self {}
    }
    pub fn submissions(&self) -> u64 {
        match *self {}
    }
    pub fn pooled_bytes(&self) -> usize {
        match *self {}
    }
    pub(super) fn caps(&self) -> &Caps {
        match *self {}
    }
    pub(super) fn alloc(&self, _: usize) -> Result<Buffer> {
        match *self {}
    }
    pub(super) fn upload(&self, _: &Buffer, _: usize, _: &[u8]) -> Result<()> {
        match *self {}
    }
    pub(super) fn clear(&self, _: &Buffer, _: usize, _: usize) -> Result<()> {
        match *self {}
    }
    pub(super) fn download(&self, _: &Buffer, _: usize, _: &mut [u8]) -> Result<()> {
        match *self {}
    }
    pub(super) fn synchronise(&self) -> Result<()> {
        match *self {}
    }
    pub(super) fn stamp(&self) -> Result<Stamp> {
        match *self {}
    }
    pub(super) fn seconds(&self, _: &Stamp, _: &Stamp) -> Result<f64> {
        match *self {}
    }
    pub(super) fn run(&self, _: &Call<'_>, _: [u32; 3]) -> Result<()> {
        match *self {}
    }
}
