//! What `conv`, `conv_transpose`, `conv_bwd_weight` and `pad` share: axes, padding, the checks of their sizes, and the CPU's
//! implicit products. They stay ops of the catalog; this is no op.
//!
//! A convolution of one or two dimensions is one of three whose outer axes have one point.

mod axes;
pub(super) mod cpu;
pub(super) mod cuda;
pub(super) mod product;
#[cfg(test)]
mod tests;
pub(super) mod wgpu;

pub use axes::Axes;

use super::problem::choice;
use crate::error::{Error, Result};
use crate::layout::Shape;

choice! {
    /// What stands beyond the ends of an axis, as PyTorch's padding modes have it.
    pub enum Padding {
        /// Zeros.
        Zeros = "zeros",
        /// The points mirrored at the first and the last, which do not repeat: less than the axis' extent.
        Reflect = "reflect",
        /// The first and the last point.
        Replicate = "replicate",
        /// The axis again: at most its extent.
        Circular = "circular",
    }
}

impl Padding {
    /// The point of an axis of `size` points whose value stands at place `at`; `None` where that is zero.
    #[inline]
    pub(in crate::ops) fn source(self, at: isize, size: usize) -> Option<usize> {
        let last = size as isize - 1;
        let point = match self {
            Padding::Zeros => at,
            Padding::Reflect if at < 0 => -at,
            Padding::Reflect if at > last => 2 * last - at,
            Padding::Reflect => at,
            Padding::Replicate => at.clamp(0, last),
            Padding::Circular => at.rem_euclid(size as isize),
        };
        (0..=last).contains(&point).then_some(point as usize)
    }

    /// Whether this many points can stand before and after each axis.
    pub(in crate::ops) fn check(
        self,
        op: &'static str,
        size: &[usize; 3],
        before: &[usize; 3],
        after: &[usize; 3],
    ) -> Result<()> {
        for axis in 0..3 {
            let widest = before[axis].max(after[axis]);
            let most = match self {
                Padding::Reflect => size[axis] - 1,
                Padding::Circular => size[axis],
                Padding::Zeros | Padding::Replicate => usize::MAX,
            };
            if widest > most {
                let why = format!("{self} padding of an axis of {} points is at most {most}, got {widest}", size[axis]);
                return Err(Error::problem(op, why));
            }
        }
        Ok(())
    }
}

/// How a kernel meets positions, on each axis: output o reads points `o · stride + k · dilation - before` for each tap k.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Points of the input.
    pub size: [usize; 3],
    /// Taps.
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub before: [usize; 3],
    pub after: [usize; 3],
    pub padding: Padding,
}

impl Geometry {
    /// Checks what a convolution needs: at least one output along each axis, and places that can be counted.
    pub fn check(&self, op: &'static str) -> Result<()> {
        check_positive(op, &[("size", self.size), ("kernel", self.kernel), ("stride", self.stride)])?;
        check_positive(op, &[("dilation", self.dilation)])?;
        self.padding.check(op, &self.size, &self.before, &self.after)?;
        for axis in 0..3 {
            let reach = reach(op, self.kernel[axis], self.dilation[axis])?;
            let padded =
                [self.before[axis], self.after[axis]].into_iter().try_fold(self.size[axis], usize::checked_add);
            let padded = padded.ok_or_else(|| Error::problem(op, "too much padding"))?;
            Shape::new(&[padded])?;
            if reach > padded {
                let why = format!("a kernel that reaches over {reach} points does not fit into {padded}");
                return Err(Error::problem(op, why));
            }
        }
        Shape::new(&self.kernel)?;
        Shape::new(&self.outputs()).map(drop)
    }

    /// Outputs along each axis.
    pub fn outputs(&self) -> [usize; 3] {
        std::array::from_fn(|axis| {
            let padded = self.size[axis] + self.before[axis] + self.after[axis];
            (padded - (self.kernel[axis] - 1) * self.dilation[axis] - 1) / self.stride[axis] + 1
        })
    }

    /// Along one axis, the point that each output (inner) reads for each tap (outer).
    pub fn sources(&self, axis: usize) -> Vec<Vec<Option<usize>>> {
        let point = |o: usize, k: usize| {
            let at = o * self.stride[axis] + k * self.dilation[axis];
            self.padding.source(at as isize - self.before[axis] as isize, self.size[axis])
        };
        let outputs = self.outputs()[axis];
        (0..self.kernel[axis]).map(|k| (0..outputs).map(|o| point(o, k)).collect()).collect()
    }
}

/// The most points along an axis, and from one to another.
const FARTHEST: usize = isize::MAX as usize / 8;

/// Every number is at least 1, and small enough to count with.
pub(super) fn check_positive(op: &'static str, fields: &[(&str, [usize; 3])]) -> Result<()> {
    match fields.iter().find(|(_, values)| !values.iter().all(|n| (1..=FARTHEST).contains(n))) {
        Some((name, _)) => Err(Error::problem(op, format!("{name} is at least 1 along each axis"))),
        None => Ok(()),
    }
}

/// The points from a kernel's first tap to its last, both included.
pub(super) fn reach(op: &'static str, kernel: usize, dilation: usize) -> Result<usize> {
    let reach = (kernel - 1).checked_mul(dilation).and_then(|n| n.checked_add(1));
    let reach = reach.filter(|&n| n <= FARTHEST);
    reach.ok_or_else(|| Error::problem(op, "the kernel reaches too far"))
}

/// Groups divide the channels of both sides.
pub(super) fn check_groups(op: &'static str, groups: usize, channels_in: usize, channels_out: usize) -> Result<()> {
    if groups == 0 || !channels_in.is_multiple_of(groups) || !channels_out.is_multiple_of(groups) {
        let why = format!("{groups} groups do not divide {channels_in} channels in and {channels_out} out");
        return Err(Error::problem(op, why));
    }
    Ok(())
}

/// Twice the product of these extents, if it can be counted: multiply-adds as operations.
pub(super) fn products(op: &'static str, extents: &[usize]) -> Result<u64> {
    let count = extents.iter().try_fold(2u64, |n, &x| n.checked_mul(x as u64));
    count.ok_or_else(|| Error::problem(op, "too many products"))
}

/// The extents `[outer, channels, d, h, w]` of a tensor `[outer, channels, …]` with one to three more dimensions, and how
/// many those are.
pub(super) fn five(op: &'static str, name: &str, shape: &[usize]) -> Result<([usize; 5], usize)> {
    match *shape {
        [a, b, w] => Ok(([a, b, 1, 1, w], 1)),
        [a, b, h, w] => Ok(([a, b, 1, h, w], 2)),
        [a, b, d, h, w] => Ok(([a, b, d, h, w], 3)),
        _ => Err(Error::problem(op, format!("{name} has three to five dimensions, got {shape:?}"))),
    }
}
