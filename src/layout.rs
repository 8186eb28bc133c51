//! Shapes, strides and what kernels accept of them. Strides and offsets are in elements.

use crate::error::{Error, Result, Unsupported};
use std::fmt;
use std::ops::{Deref, Range};
use std::str::FromStr;

/// The highest rank.
pub const MAX_RANK: usize = 6;

/// Extents of up to six dimensions, outermost first, kept inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape from its extents.
    ///
    /// # Errors
    /// More than six dimensions, or a product that does not fit `isize`.
    pub fn new(dims: &[usize]) -> Result<Shape> {
        if dims.len() > MAX_RANK {
            return Err(Error::View {
                view: "shape",
                shape: format!("{dims:?}"),
                why: format!("rank is at most {MAX_RANK}"),
            });
        }
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if count.is_none_or(|n| n > isize::MAX as usize / 8) {
            return Err(Error::View { view: "shape", shape: format!("{dims:?}"), why: "too many elements".into() });
        }
        Ok(Shape::of(dims))
    }

    /// As [`new`](Shape::new), for extents already known to be sound (at most six, a product that fits).
    pub(crate) fn of(dims: &[usize]) -> Shape {
        let mut s = Shape { dims: [0; MAX_RANK], rank: dims.len() as u8 };
        s.dims[..dims.len()].copy_from_slice(dims);
        s
    }

    /// The number of elements; 1 for a scalar.
    pub fn count(&self) -> usize {
        self.iter().product()
    }

    /// The product of all extents but the last, and the last: how row operations see a tensor.
    pub fn rows(&self) -> (usize, usize) {
        let last = self.last().copied().unwrap_or(1);
        (self[..self.len().saturating_sub(1)].iter().product(), last)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}
/// `2x3x4`; `scalar` for rank 0.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.pad("scalar");
        }
        let text: Vec<String> = self.iter().map(usize::to_string).collect();
        f.pad(&text.join("x"))
    }
}
impl FromStr for Shape {
    type Err = Error;
    fn from_str(s: &str) -> Result<Shape> {
        if s == "scalar" {
            return Ok(Shape::default());
        }
        let dims: Result<Vec<usize>, _> = s.split('x').map(str::parse).collect();
        Shape::new(&dims.map_err(|e| Error::parse("a shape", s, format!("{e}; expected extents like 2x3x4")))?)
    }
}

/// Where the elements of a tensor lie in its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The extents.
    pub shape: Shape,
    /// The distance between neighbours of each dimension, in elements; 0 in a broadcast one.
    pub strides: [usize; MAX_RANK],
    /// The first element's place in the storage, in elements.
    pub offset: usize,
}

impl Layout {
    /// Row-major, starting at 0.
    pub fn contiguous(shape: Shape) -> Layout {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for i in (0..shape.len()).rev() {
            strides[i] = step;
            step *= shape[i];
        }
        Layout { shape, strides, offset: 0 }
    }

    /// The strides of the dimensions that exist.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.len()]
    }

    /// Whether elements lie in row-major order without gaps (extents of 1 may have any stride).
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for i in (0..self.shape.len()).rev() {
            if self.shape[i] != 1 {
                if self.strides[i] != step {
                    return self.shape.count() == 0;
                }
                step *= self.shape[i];
            }
        }
        true
    }

    /// Whether each row of the last dimension is without gaps.
    pub fn has_rows(&self) -> bool {
        self.shape.last().is_none_or(|&n| n <= 1 || self.strides[self.shape.len() - 1] == 1) || self.shape.count() == 0
    }

    /// The elements from the first to one past the last: what a kernel may touch, from `offset` on.
    pub fn span(&self) -> usize {
        if self.shape.count() == 0 {
            return 0;
        }
        1 + self.shape.iter().zip(self.strides()).map(|(&n, &s)| (n - 1) * s).sum::<usize>()
    }

    /// The same elements under other extents.
    ///
    /// # Errors
    /// The number of elements differs, or the strides do not allow it (copy first).
    pub fn reshape(&self, dims: &[usize]) -> Result<Layout> {
        let shape = Shape::new(dims)?;
        let fail = |why: &str| Error::View {
            view: "reshape",
            shape: format!("{} strides {:?} to {shape}", self.shape, self.strides()),
            why: why.into(),
        };
        if shape.count() != self.shape.count() {
            return Err(fail("the number of elements differs"));
        }
        if self.is_contiguous() {
            return Ok(Layout { offset: self.offset, ..Layout::contiguous(shape) });
        }
        // Walk both shapes from the back, matching groups of dimensions with equal products; inside a group the
        // old strides must be those of one run.
        let mut strides = [0; MAX_RANK];
        let (mut old, mut new) = (self.shape.len(), shape.len());
        while old > 0 {
            old -= 1;
            if self.shape[old] == 1 {
                continue;
            }
            let base = self.strides[old];
            let (mut have, mut want) = (self.shape[old], 1);
            let mut step = base;
            loop {
                if want < have {
                    if new == 0 {
                        return Err(fail("the number of elements differs"));
                    }
                    new -= 1;
                    strides[new] = step;
                    step *= shape[new];
                    want *= shape[new];
                } else if want == have {
                    break;
                } else {
                    if old == 0 {
                        return Err(fail("the number of elements differs"));
                    }
                    old -= 1;
                    if self.shape[old] != 1 && self.strides[old] != base * have {
                        return Err(fail("the strides do not allow it; make a contiguous copy first"));
                    }
                    have *= self.shape[old];
                }
            }
        }
        Ok(Layout { shape, strides, offset: self.offset })
    }

    /// Dimensions in another order.
    ///
    /// # Errors
    /// `order` is not a permutation of the dimensions.
    pub fn permute(&self, order: &[usize]) -> Result<Layout> {
        let rank = self.shape.len();
        let mut seen = [false; MAX_RANK];
        let sound = order.len() == rank && order.iter().all(|&d| d < rank && !std::mem::replace(&mut seen[d], true));
        if !sound {
            return Err(Error::View {
                view: "permute",
                shape: self.shape.to_string(),
                why: format!("{order:?} is not a permutation of its dimensions"),
            });
        }
        let mut out = *self;
        for (i, &d) in order.iter().enumerate() {
            out.shape.dims[i] = self.shape[d];
            out.strides[i] = self.strides[d];
        }
        Ok(out)
    }

    /// A range of one dimension.
    ///
    /// # Errors
    /// No such dimension, or the range does not lie inside it.
    pub fn slice(&self, dim: usize, range: Range<usize>) -> Result<Layout> {
        if dim >= self.shape.len() || range.start > range.end || range.end > self.shape[dim] {
            return Err(Error::View {
                view: "slice",
                shape: self.shape.to_string(),
                why: format!("{range:?} of dimension {dim} does not exist"),
            });
        }
        let mut out = *self;
        out.shape.dims[dim] = range.len();
        out.offset += range.start * self.strides[dim];
        Ok(out)
    }

    /// Repeats extents of 1, and adds dimensions in front, without copying.
    ///
    /// # Errors
    /// An extent is neither 1 nor the wanted one.
    pub fn broadcast(&self, dims: &[usize]) -> Result<Layout> {
        let shape = Shape::new(dims)?;
        let lead = shape.len().checked_sub(self.shape.len());
        let fits = lead.is_some_and(|l| self.shape.iter().zip(&shape[l..]).all(|(&a, &b)| a == b || a == 1));
        let Some(lead) = lead.filter(|_| fits) else {
            return Err(Error::View {
                view: "broadcast",
                shape: self.shape.to_string(),
                why: format!("it does not repeat to {shape}"),
            });
        };
        let mut strides = [0; MAX_RANK];
        for i in 0..self.shape.len() {
            strides[lead + i] = if self.shape[i] == shape[lead + i] { self.strides[i] } else { 0 };
        }
        Ok(Layout { shape, strides, offset: self.offset })
    }
}

/// What a kernel accepts of an operand's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Takes {
    /// Row-major without gaps.
    #[default]
    Contiguous,
    /// The last dimension without gaps; the others with any stride.
    Rows,
    /// Any strides.
    Strided,
}

impl Takes {
    /// Whether a layout is accepted.
    pub fn check(self, layout: &Layout) -> Result<(), Unsupported> {
        match self {
            Takes::Contiguous => Unsupported::require("contiguous operands", layout.is_contiguous()),
            Takes::Rows => Unsupported::require("operands whose last dimension is contiguous", layout.has_rows()),
            Takes::Strided => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(l: &Layout, index: &[usize]) -> usize {
        l.offset + index.iter().zip(l.strides()).map(|(i, s)| i * s).sum::<usize>()
    }

    #[test]
    fn views_address_the_elements_they_name() {
        let l = Layout::contiguous(Shape::of(&[2, 3, 4]));
        let t = l.permute(&[2, 0, 1]).unwrap();
        assert_eq!(*t.shape, [4, 2, 3]);
        assert_eq!(at(&t, &[3, 1, 2]), at(&l, &[1, 2, 3]));
        assert!(!t.is_contiguous());
        let s = l.slice(1, 1..3).unwrap();
        assert_eq!(at(&s, &[1, 0, 2]), at(&l, &[1, 1, 2]));
        assert_eq!(s.span(), 12 + 4 + 4);
        let b = Layout::contiguous(Shape::of(&[3, 1])).broadcast(&[2, 3, 5]).unwrap();
        assert_eq!(at(&b, &[1, 2, 4]), 2);
    }

    #[test]
    fn reshape_splits_strided_dimensions_and_refuses_what_needs_a_copy() {
        let l = Layout::contiguous(Shape::of(&[5, 6, 8])).slice(2, 0..4).unwrap();
        let r = l.reshape(&[5, 2, 3, 2, 2]).unwrap();
        assert_eq!(at(&r, &[4, 1, 2, 1, 1]), at(&l, &[4, 5, 3]));
        assert!(l.reshape(&[5, 24]).is_err());
        assert!(l.reshape(&[30, 4]).is_ok());
        assert!(l.reshape(&[7]).is_err());
    }

    #[test]
    fn hostile_shapes_are_refused() {
        assert!(Shape::new(&[1 << 40, 1 << 40]).is_err());
        assert!(Shape::new(&[1; 7]).is_err());
        assert!(Layout::contiguous(Shape::of(&[3])).slice(0, 2..5).is_err());
        assert!(Layout::contiguous(Shape::of(&[3])).permute(&[1]).is_err());
    }
}
