use crate::backend::MAX_IN;
use crate::error::{Error, Result};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// One to twelve extents, inline; their text is `3x4x5`. (Not a [`Shape`](crate::Shape), which bounds their product.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    extents: [usize; MAX_IN],
    count: u8,
}

impl Parts {
    /// From at most twelve extents.
    pub(in crate::ops) fn of(extents: &[usize]) -> Parts {
        let mut parts = Parts { extents: [0; MAX_IN], count: extents.len() as u8 };
        parts.extents[..extents.len()].copy_from_slice(extents);
        parts
    }
}

impl Deref for Parts {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.extents[..self.count as usize]
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.iter().map(usize::to_string).collect();
        f.pad(&text.join("x"))
    }
}

impl FromStr for Parts {
    type Err = Error;
    fn from_str(s: &str) -> Result<Parts> {
        let extents: Result<Vec<usize>, _> = s.split('x').map(str::parse).collect();
        match extents {
            Ok(extents) if extents.len() <= MAX_IN => Ok(Parts::of(&extents)),
            _ => Err(Error::parse("parts", s, format!("expected one to {MAX_IN} extents like 3x4x5"))),
        }
    }
}
