//! A convolution as a product of matrices: of the weight, and of x as its window sees it.

use super::Conv;
use crate::ops::convolution::product::{Product, Spread, Window};

impl Conv {
    /// As a product of matrices.
    pub(super) fn product(&self) -> Product {
        let (window, channels) = (Window::of(&self.geometry()), self.channels_in / self.groups);
        let positions = window.positions.iter().product::<usize>();
        Product {
            padding: self.padding,
            channels,
            groups: self.groups,
            batch: self.batch,
            rows: self.channels_out / self.groups,
            cols: self.batch * positions,
            depth: channels * self.kernel.iter().product::<usize>(),
            total: self.batch * self.channels_out * positions,
            channels_out: self.channels_out,
            x: self.x,
            factor: self.weight,
            out: self.out,
            bias: self.bias,
            activation: self.activation,
            spread: Spread::default(),
            lhs_along_depth: true,
            rhs_along_depth: false,
            out_run: positions,
            window,
        }
    }
}
