use crate::error::{Error, Result};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// A number for each axis: depth, height, width. Their text is `2x3x4`; where the outer ones are `FILL`, they may be left
/// out: with a fill of 1 a picture's is `3x4`, a sound's `4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axes<const FILL: usize>(pub [usize; 3]);

impl<const FILL: usize> Axes<FILL> {
    /// `FILL` for each axis.
    pub const PLAIN: Axes<FILL> = Axes([FILL; 3]);

    /// From the innermost axes of a tensor that has `rank` of them, at most three; what `values` says of others is not
    /// looked at.
    pub(in crate::ops) fn innermost(values: [usize; 3], rank: usize) -> Axes<FILL> {
        Axes(std::array::from_fn(|i| if i + rank < 3 { FILL } else { values[i] }))
    }

    /// From the extents of at most three axes.
    pub(in crate::ops) fn of(extents: &[usize]) -> Axes<FILL> {
        let mut axes = Axes::PLAIN;
        axes.0[3 - extents.len()..].copy_from_slice(extents);
        axes
    }
}

impl<const FILL: usize> Deref for Axes<FILL> {
    type Target = [usize; 3];
    fn deref(&self) -> &[usize; 3] {
        &self.0
    }
}

impl<const FILL: usize> fmt::Display for Axes<FILL> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outer = self.0[..2].iter().take_while(|&&n| n == FILL).count();
        let text: Vec<String> = self.0[outer..].iter().map(usize::to_string).collect();
        f.pad(&text.join("x"))
    }
}

impl<const FILL: usize> FromStr for Axes<FILL> {
    type Err = Error;
    fn from_str(s: &str) -> Result<Axes<FILL>> {
        let extents: Result<Vec<usize>, _> = s.split('x').map(str::parse).collect();
        match extents {
            Ok(extents) if extents.len() <= 3 => Ok(Axes::of(&extents)),
            _ => Err(Error::parse("a number per axis", s, "expected one to three, like 2x3x4")),
        }
    }
}
