//! A transposed convolution as a product of matrices: an ordinary convolution with a row for each phase.

use super::ConvTranspose;
use crate::ops::activation::Activation;
use crate::ops::convolution::Padding;
use crate::ops::convolution::product::{Product, Spread, Window};

impl ConvTranspose {
    /// As a product of matrices.
    pub(super) fn product(&self) -> Product {
        let out_size = self.outputs();
        let mut window = Window {
            size: *self.size,
            positions: [1; 3],
            taps: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            before: [0; 3],
        };
        let mut spread = Spread { kernel: *self.kernel, out_size, ..Spread::default() };
        for (i, size) in out_size.into_iter().enumerate() {
            let (stride, before) = (self.stride[i], self.before[i]);
            // One tap has no distance from another.
            let dilation = if self.kernel[i] > 1 { self.dilation[i] } else { 1 };
            // Points of out before the cut, and the first and last j.
            let end = before + size;
            let (first, last) = (before / stride, (end - 1) / stride);
            spread.phases[i] = stride.min(end);
            spread.lead[i] = before - stride * first;
            // From one t to the next one: points of x, and of out in units of `every`, the distance of taps.
            (window.dilation[i], spread.tap_step[i], spread.every[i]) = match dilation.is_multiple_of(stride) {
                true if stride == 1 => (dilation, 1, 1),
                true => (dilation / stride, dilation, dilation),
                false => (1, stride, dilation),
            };
            window.positions[i] = last - first + 1;
            window.taps[i] = match dilation.is_multiple_of(stride) {
                true => self.kernel[i],
                false => (self.kernel[i] - 1) * dilation / stride + 1,
            };
            window.before[i] = ((window.taps[i] - 1) * window.dilation[i]) as isize - first as isize;
        }
        let (channels, phases) = (self.channels_in / self.groups, spread.phases.iter().product::<usize>());
        Product {
            padding: Padding::Zeros,
            channels,
            groups: self.groups,
            batch: self.batch,
            rows: self.channels_out / self.groups * phases,
            cols: self.batch * window.positions.iter().product::<usize>(),
            depth: channels * window.taps.iter().product::<usize>(),
            total: self.out_shape().iter().product(),
            channels_out: self.channels_out,
            x: self.x,
            factor: self.weight,
            out: self.out,
            bias: self.bias,
            activation: Activation::None,
            // Phases lie together in the weight, without them taps.
            lhs_along_depth: phases == 1,
            rhs_along_depth: false,
            out_run: 1,
            spread,
            window,
        }
    }
}
