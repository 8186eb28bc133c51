//! What reading picture files says in a build without the feature `media`.

use super::Image;
use crate::error::{Error, Result};
use std::path::Path;

impl Image {
    /// Fails: this build has no codecs.
    pub fn open(_path: impl AsRef<Path>) -> Result<Image> {
        Err(absent())
    }

    /// Fails: this build has no codecs.
    pub fn decode(_bytes: &[u8]) -> Result<Image> {
        Err(absent())
    }
}

fn absent() -> Error {
    Error::NotSupported("pictures from files: built without feature `media`".into())
}
