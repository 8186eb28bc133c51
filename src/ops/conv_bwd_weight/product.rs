//! The gradient of a weight as a product of matrices: of the gradient, and of x as the window sees it.

use super::ConvBwdWeight;
use crate::dtype::DType;
use crate::ops::activation::Activation;
use crate::ops::convolution::product::{Product, Spread, Window};

impl ConvBwdWeight {
    /// As a product of matrices.
    pub(super) fn product(&self) -> Product {
        let (window, channels) = (Window::of(&self.geometry()), self.channels_in / self.groups);
        let cols = channels * self.kernel.iter().product::<usize>();
        Product {
            padding: self.padding,
            channels,
            groups: self.groups,
            batch: self.batch,
            rows: self.channels_out / self.groups,
            cols,
            depth: self.batch * window.positions.iter().product::<usize>(),
            total: self.channels_out * cols,
            channels_out: self.channels_out,
            x: DType::F32,
            factor: DType::F32,
            out: DType::F32,
            bias: false,
            activation: Activation::None,
            spread: Spread::default(),
            // Positions lie together in both factors.
            lhs_along_depth: true,
            rhs_along_depth: true,
            out_run: cols,
            window,
        }
    }
}
