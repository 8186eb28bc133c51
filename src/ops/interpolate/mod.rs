//! Resampling of pictures, feature maps and tables of positions, as PyTorch's `interpolate` does it.

mod axis;
mod cases;
mod cpu;
mod cuda;
mod reference;
mod wgpu;

use super::problem::{choice, problem};
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, Tolerance, first, run};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

choice! {
    /// What stands between the given points.
    pub enum Mode {
        /// The value at ⌊i · in/out⌋.
        Nearest = "nearest",
        /// A straight line.
        Bilinear = "bilinear",
        /// Keys' cubic (1981, eq. 15), with a = -0.75 as PyTorch has it, and a = -0.5, as Pillow has it, with `antialias`.
        Bicubic = "bicubic",
    }
}

problem! {
    /// Every plane `[in_h, in_w]` of `x` resampled to `[out_h, out_w]`, height and width by themselves.
    ///
    /// Output i of an axis lies at the source coordinate `(i + ½)·(in/out) - ½`, with `align_corners` at
    /// `i·(in - 1)/(out - 1)`; taps beyond a border are the border's value. With `antialias` the filter is as wide as the
    /// output's spacing where that is the wider one, and weights are those of the taps inside, divided by their sum.
    pub struct Interpolate("interpolate") {
        /// Planes' samples.
        batch: usize = 1,
        /// Planes of a sample.
        channels: usize = 1,
        /// Rows given.
        in_h: usize = 1,
        /// Columns given.
        in_w: usize = 1,
        /// Rows wanted.
        out_h: usize = 1,
        /// Columns wanted.
        out_w: usize = 1,
        /// What stands between the given points.
        mode: Mode = Mode::Bilinear,
        /// Whether shrinking averages over all that is left out.
        antialias: bool = false,
        /// Whether the corners' centres stay in place.
        align_corners: bool = false,
        /// Whether `x` is `[batch, in_h, in_w, channels]` instead of `[batch, channels, in_h, in_w]`; the result likewise.
        channels_last: bool = false,
        /// Whether the transposed map is applied, which is the gradient: `x` has the wanted size and the result the given one.
        adjoint: bool = false,
    }
}

impl Interpolate {
    fn checked(self) -> Result<Interpolate> {
        let fail = |why: &str| Err(Error::problem("interpolate", why));
        if self.mode == Mode::Nearest && (self.antialias || self.align_corners) {
            return fail("mode nearest has neither antialias nor align_corners");
        }
        if (self.in_h == 0) != (self.out_h == 0) || (self.in_w == 0) != (self.out_w == 0) {
            return fail("an empty axis stays empty, and no other becomes so");
        }
        if [self.in_h, self.in_w, self.out_h, self.out_w].into_iter().any(|n| n > 1 << 24) {
            return fail("an axis has at most 2^24 points");
        }
        Shape::new(&[self.batch, self.channels, self.in_h, self.in_w])?;
        Shape::new(&[self.batch, self.channels, self.out_h, self.out_w])?;
        Ok(self)
    }

    /// Rows and columns of `x`.
    fn given(&self) -> [usize; 2] {
        if self.adjoint { [self.out_h, self.out_w] } else { [self.in_h, self.in_w] }
    }

    /// Rows and columns of the result.
    fn wanted(&self) -> [usize; 2] {
        if self.adjoint { [self.in_h, self.in_w] } else { [self.out_h, self.out_w] }
    }

    fn shape(&self, [h, w]: [usize; 2]) -> [usize; 4] {
        if self.channels_last { [self.batch, h, w, self.channels] } else { [self.batch, self.channels, h, w] }
    }

    /// Most taps of an output along an axis.
    fn taps(&self, inputs: usize, outputs: usize) -> usize {
        axis::taps(self, inputs, outputs)
    }
}

impl Op for Interpolate {
    const NAME: &'static str = "interpolate";

    fn inputs(&self) -> Inputs {
        [Operand::new("x", DType::F32, &self.shape(self.given()))].into()
    }
    fn outputs(&self) -> Outputs {
        [Operand::new("out", DType::F32, &self.shape(self.wanted()))].into()
    }
    /// A multiplication and an addition per tap of each axis, columns of the rows wanted first.
    fn flops(&self) -> u64 {
        if self.mode == Mode::Nearest {
            return 0;
        }
        let down = self.taps(self.in_h, self.out_h) as u64 * self.in_w as u64;
        let across = self.taps(self.in_w, self.out_w) as u64 * self.out_w as u64;
        let planes = (self.batch * self.channels) as u64;
        planes.saturating_mul(self.out_h as u64).saturating_mul(2 * (down + across))
    }
    fn tolerance(&self) -> Tolerance {
        if self.mode == Mode::Nearest && !self.adjoint { Tolerance::Exact } else { Tolerance::Plain(3.0) }
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::interpolate(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        (0, 0)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let back = Interpolate { adjoint: !saved.op.adjoint, ..saved.op }.checked()?;
        let gradient = |g: &Tensor| run(&back, g.device(), &[Some(g)]).map(first);
        Ok(vec![grads[0].as_ref().map(gradient).transpose()?])
    }
}

/// How to resample.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What stands between the given points.
    pub mode: Mode,
    /// Whether shrinking averages over all that is left out.
    pub antialias: bool,
    /// Whether the corners' centres stay in place.
    pub align_corners: bool,
    /// Whether channels are the last dimension.
    pub channels_last: bool,
}

impl Default for Options {
    /// Bilinear, nothing else.
    fn default() -> Self {
        Options { mode: Mode::Bilinear, antialias: false, align_corners: false, channels_last: false }
    }
}

/// `x`, f32 `[batch, channels, h, w]` (channels last: `[batch, h, w, channels]`), resampled to `size`, height and width.
///
/// # Errors
/// Another rank or dtype, an empty size, or options that exclude each other.
pub fn interpolate(x: &Tensor, (out_h, out_w): (usize, usize), o: &Options) -> Result<Tensor> {
    let [batch, a, b, c] = *x.shape() else {
        return Err(Error::problem("interpolate", format!("takes four dimensions, got {x}")));
    };
    let [channels, in_h, in_w] = if o.channels_last { [c, a, b] } else { [a, b, c] };
    let Options { mode, antialias, align_corners, channels_last } = *o;
    let sizes = Interpolate { batch, channels, in_h, in_w, out_h, out_w, ..Interpolate::default() };
    let op = Interpolate { mode, antialias, align_corners, channels_last, ..sizes };
    Ok(first(run(&op.checked()?, x.device(), &[Some(x)])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    /// PyTorch 2's `interpolate` of sin(0..30) as a picture of 5 rows and 6 columns.
    const PUBLISHED: &[(&str, [usize; 2], &[f32])] = &[
        ("mode=nearest", [2, 3], &[0.000000, 0.909297, -0.756802, -0.536573, 0.990607, -0.287903]),
        (
            "mode=nearest",
            [7, 4],
            &[
                0.000000, 0.841471, 0.141120, -0.756802, 0.000000, 0.841471, 0.141120, -0.756802, -0.279415, 0.656987,
                0.412118, -0.544021, -0.536573, 0.420167, 0.650288, -0.287903, -0.536573, 0.420167, 0.650288,
                -0.287903, -0.750987, 0.149877, 0.836656, -0.008851, -0.905578, -0.132352, 0.956376, 0.270906,
            ],
        ),
        ("mode=bilinear", [2, 3], &[0.246773, 0.656856, -0.793470, -0.355158, 0.870967, -0.369743]),
        (
            "mode=bilinear",
            [7, 4],
            &[
                0.210368, 0.892341, -0.083361, -0.908394, 0.064263, 0.900298, 0.063179, -0.895596, -0.117336, 0.889617,
                0.242414, -0.859434, -0.297388, 0.847997, 0.415740, -0.793024, -0.460519, 0.758127, 0.565411,
                -0.681491, -0.605700, 0.643601, 0.693734, -0.548216, -0.712272, 0.538831, 0.785008, -0.429999,
            ],
        ),
        ("mode=bilinear,align_corners=true", [2, 3], &[0.000000, 0.525209, -0.958924, -0.905578, 0.859467, -0.663634]),
        (
            "mode=bilinear,align_corners=true",
            [7, 4],
            &[
                0.000000, 0.886689, -0.158187, -0.958924, -0.186277, 0.881275, 0.009541, -0.986302, -0.365135,
                0.852532, 0.174789, -0.987126, -0.536573, 0.800461, 0.337558, -0.961397, -0.679516, 0.705880, 0.482399,
                -0.884613, -0.802518, 0.593811, 0.612509, -0.785358, -0.905578, 0.464255, 0.727886, -0.663634,
            ],
        ),
        ("mode=bilinear,antialias=true", [2, 3], &[0.295138, 0.523708, -0.585963, -0.124306, 0.654364, -0.239076]),
        (
            "mode=bilinear,antialias=true",
            [7, 4],
            &[
                0.315552, 0.801336, -0.072834, -0.883129, 0.176228, 0.808818, 0.058810, -0.852199, 0.000441, 0.799635,
                0.219780, -0.794669, -0.177795, 0.762647, 0.375371, -0.708837, -0.345915, 0.682265, 0.509604,
                -0.582673, -0.499930, 0.579689, 0.624605, -0.438339, -0.615618, 0.485790, 0.706351, -0.313181,
            ],
        ),
        (
            "mode=bilinear,antialias=true,align_corners=true",
            [2, 3],
            &[0.277947, 0.205977, -0.739783, -0.018668, 0.427663, -0.495638],
        ),
        (
            "mode=bilinear,antialias=true,align_corners=true",
            [7, 4],
            &[
                0.360630, 0.723519, -0.445347, -0.918500, 0.241265, 0.755371, -0.343906, -0.913648, 0.080493, 0.787388,
                -0.205432, -0.895113, -0.085135, 0.788051, -0.057301, -0.840382, -0.245722, 0.757319, 0.091637,
                -0.752723, -0.399785, 0.706478, 0.238142, -0.645076, -0.539313, 0.626704, 0.376540, -0.510396,
            ],
        ),
        ("mode=bicubic", [2, 3], &[0.244199, 0.760110, -0.895578, -0.451842, 1.028252, -0.429322]),
        (
            "mode=bicubic",
            [7, 4],
            &[
                0.209295, 1.004271, -0.158810, -0.945832, 0.060619, 1.014538, 0.001358, -0.945633, -0.166777, 0.994523,
                0.243992, -0.912175, -0.339866, 0.930895, 0.425513, -0.841792, -0.502853, 0.839598, 0.594387,
                -0.746388, -0.677243, 0.674399, 0.770658, -0.581643, -0.776666, 0.549763, 0.869161, -0.459452,
            ],
        ),
        ("mode=bicubic,align_corners=true", [2, 3], &[0.000000, 0.615748, -0.958924, -0.905578, 1.007628, -0.663634]),
        (
            "mode=bicubic,align_corners=true",
            [7, 4],
            &[
                0.000000, 1.020046, -0.215684, -0.958924, -0.162878, 1.017904, -0.049717, -0.991350, -0.379507,
                0.977106, 0.179043, -0.998802, -0.536573, 0.901990, 0.354534, -0.961397, -0.680596, 0.804948, 0.521407,
                -0.900623, -0.823478, 0.640182, 0.701440, -0.775942, -0.905578, 0.502249, 0.814034, -0.663634,
            ],
        ),
        ("mode=bicubic,antialias=true", [2, 3], &[0.312991, 0.620371, -0.719323, -0.228534, 0.800145, -0.295547]),
        (
            "mode=bicubic,antialias=true",
            [7, 4],
            &[
                0.308153, 0.920323, -0.128158, -0.941695, 0.164379, 0.928849, 0.017886, -0.921540, -0.043813, 0.915413,
                0.224287, -0.867673, -0.231761, 0.859955, 0.402084, -0.777568, -0.410182, 0.769149, 0.563354,
                -0.655501, -0.584465, 0.629891, 0.710926, -0.487867, -0.696157, 0.519376, 0.801311, -0.360076,
            ],
        ),
        (
            "mode=bicubic,antialias=true,align_corners=true",
            [2, 3],
            &[0.300187, 0.227138, -0.930158, -0.126371, 0.546538, -0.611526],
        ),
        (
            "mode=bicubic,antialias=true,align_corners=true",
            [7, 4],
            &[
                0.387794, 0.810851, -0.473830, -1.002428, 0.267045, 0.849104, -0.368642, -1.017282, 0.073603, 0.891979,
                -0.197448, -1.020376, -0.102917, 0.892479, -0.035602, -0.979758, -0.274785, 0.861200, 0.126604,
                -0.904485, -0.441004, 0.796100, 0.288557, -0.792490, -0.595614, 0.697226, 0.444780, -0.645219,
            ],
        ),
    ];

    #[test]
    fn values_are_those_of_pytorch() {
        let device = Device::cpu_with_threads(1).unwrap();
        let x: Vec<f32> = (0..30).map(|i| (i as f32).sin()).collect();
        for &(options, [out_h, out_w], want) in PUBLISHED {
            let text = format!("interpolate(in_h=5,in_w=6,out_h={out_h},out_w={out_w},{options})");
            let op: Interpolate = text.parse().unwrap();
            let o = Options {
                mode: op.mode(),
                antialias: op.antialias(),
                align_corners: op.align_corners(),
                channels_last: false,
            };
            let x = Tensor::from_slice(&device, &x, &[1, 1, 5, 6]).unwrap();
            let got = interpolate(&x, (out_h, out_w), &o).unwrap().to_vec::<f32>().unwrap();
            let close = got.iter().zip(want).all(|(g, w)| (g - w).abs() < 3e-6);
            assert!(close && got.len() == want.len(), "{text}: {got:?} for {want:?}");
            let last = Options { channels_last: true, ..o };
            let x = x.reshape(&[1, 5, 6, 1]).unwrap();
            assert_eq!(interpolate(&x, (out_h, out_w), &last).unwrap().to_vec::<f32>().unwrap(), got);
        }
    }
}
