//! Convolutions in WGSL: how products are cut and launched. `shaders/common/convolution.wgsl` says what they are.

use super::Geometry;
use super::product::{Cut, Product};
use crate::backend::Launch;
use crate::backend::wgpu::shader::{Shader, shader};
use crate::backend::wgpu::{Call, Wgpu};
use crate::error::{Result, Unsupported};

/// Columns and steps of a tile.
const TILE_COLS: usize = 64;
const TILE_DEPTH: usize = 16;
/// Workgroups of tiles, and invocations of the direct way, below which a product is split.
const ENOUGH_TILES: usize = 256;
const ENOUGH_INVOCATIONS: usize = 1 << 16;
/// The least that a split is worth: steps of tiles, channels of the direct way, positions of dot products.
const SPLIT_DEPTH: usize = 128;
const SPLIT_CHANNELS: usize = 8;
const SPLIT_POSITIONS: usize = 2048;
/// What an invocation of the direct way owns: rows at most, and positions; of dot products as many taps.
const ROWS: usize = 4;
const POSITIONS: usize = 8;
/// Invocations of a workgroup of the direct way.
const DIRECT_WORKGROUP: usize = 128;

impl Product {
    fn tiles(&self) -> Cut {
        let tiles = |lanes_rows: usize| Cut {
            rows_each: lanes_rows,
            row_blocks: self.rows.div_ceil(8 * lanes_rows),
            col_blocks: self.cols.div_ceil(TILE_COLS),
            splits: 1,
            split_depth: 0,
        };
        let count = |cut: &Cut| cut.row_blocks * cut.col_blocks * self.groups;
        // Small tiles for few rows, large ones where there are enough of them and they leave no more of themselves idle.
        let (middle, large) = (tiles(8), tiles(16));
        let cut = match self.rows {
            0..=32 => tiles(4),
            _ if middle.row_blocks == 2 * large.row_blocks && count(&large) >= ENOUGH_TILES => large,
            _ => middle,
        };
        let present = count(&cut);
        cut.split(present, ENOUGH_TILES, self.depth, TILE_DEPTH, SPLIT_DEPTH)
    }

    fn lines(&self) -> Cut {
        let rows_each = self.rows.clamp(1, ROWS);
        let cut = Cut {
            rows_each,
            row_blocks: self.rows.div_ceil(rows_each),
            col_blocks: self.window.positions[2].div_ceil(POSITIONS),
            splits: 1,
            split_depth: 0,
        };
        let present = self.invocations(&cut);
        cut.split(present, ENOUGH_INVOCATIONS, self.channels, 1, SPLIT_CHANNELS)
    }

    /// Invocations of the direct way.
    fn invocations(&self, cut: &Cut) -> usize {
        let [d, h, _] = self.window.positions;
        cut.col_blocks * d * h * cut.row_blocks * self.groups * self.batch * cut.splits
    }

    /// Bytes of the sums of splits.
    fn bytes(&self, cut: &Cut) -> usize {
        if cut.splits > 1 { cut.splits * self.total * size_of::<f32>() } else { 0 }
    }
    pub fn tiled_bytes(&self) -> usize {
        self.bytes(&self.tiles())
    }
    pub fn direct_bytes(&self) -> usize {
        self.bytes(&self.lines())
    }

    /// Launches a shader with `common/convolution_tiled.wgsl`.
    pub fn tiled(&self, name: &'static str, shader: &'static Shader, l: &Launch<'_, Wgpu>) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let cut = self.tiles();
        self.call(name, shader, l, &cut)
            .constant("lanes_rows", cut.rows_each as u32)
            .constant("lhs_along_depth", self.lhs_along_depth)
            .constant("rhs_along_depth", self.rhs_along_depth)
            .dispatch_many(cut.row_blocks * self.groups * cut.col_blocks * cut.splits)?;
        self.add_splits(name, l, &cut)
    }

    /// Launches a shader with `common/convolution_direct.wgsl`.
    pub fn direct(&self, name: &'static str, shader: &'static Shader, l: &Launch<'_, Wgpu>) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let cut = self.lines();
        self.call(name, shader, l, &cut)
            .constant("together", cut.rows_each as u32)
            .constant("slides", self.slides())
            .dispatch_many(self.invocations(&cut).div_ceil(DIRECT_WORKGROUP))?;
        self.add_splits(name, l, &cut)
    }

    fn call<'a>(&self, name: &'static str, shader: &'static Shader, l: &Launch<'a, Wgpu>, cut: &Cut) -> Call<'a> {
        let (w, s) = (&self.window, &self.spread);
        let all = |axes: &[usize; 3]| axes.iter().product::<usize>();
        let axis = |values: &[usize; 3], scalar: usize| [values[0], values[1], values[2], scalar];
        // As i32 they are read back negative.
        let before = w.before.map(|n| n as usize);
        let plain =
            |&axis: &usize| w.size[axis] == 1 && w.taps[axis] == 1 && w.positions[axis] == 1 && before[axis] == 0;
        let spreads = |&axis: &usize| s.phases[axis] > 1 || s.out_size[axis] > 1;
        let outer = (0..2).take_while(|axis| plain(axis) && !spreads(axis)).count();
        let x = l.layout(0).strides;
        l.call(name, shader)
            .dtype("x_dtype", self.x)
            .dtype("factor_dtype", self.factor)
            .dtype("out_dtype", self.out)
            .constant("axes", 3 - outer as u32)
            .constant("padding", self.padding as u32)
            .constant("has_bias", self.bias)
            .constant("activation", self.activation as u32)
            .constant("split", cut.splits > 1)
            .bind(l.input(0))
            .bind(l.input(1))
            .bind(l.input(2))
            .bind(l.output(0))
            .bind(l.scratch())
            .params(&axis(&w.size, self.groups))
            .params(&axis(&w.positions, all(&w.positions)))
            .params(&axis(&w.taps, all(&w.taps)))
            .params(&axis(&w.stride, self.channels))
            .params(&axis(&w.dilation, self.rows))
            .params(&axis(&before, self.cols))
            .params(&x[..4])
            .params(&[self.depth, cut.row_blocks, cut.col_blocks, cut.split_depth])
            .params(&axis(&s.tap_step, cut.splits))
            .params(&axis(&s.every, self.total))
            .params(&axis(&s.phases, all(&s.phases)))
            .params(&axis(&s.kernel, all(&s.kernel)))
            .params(&axis(&s.out_size, all(&s.out_size)))
            .params(&s.lead)
    }

    fn dot_products(&self) -> Cut {
        let [d, h, w] = self.window.positions;
        let cut = Cut {
            rows_each: 1,
            row_blocks: self.rows,
            col_blocks: self.window.taps[2].div_ceil(POSITIONS),
            splits: 1,
            split_depth: 0,
        };
        let present = self.dot_blocks(&cut);
        cut.split(present, ENOUGH_TILES, self.batch * d * h, 1, SPLIT_POSITIONS.div_ceil(w))
    }

    pub fn dots_bytes(&self) -> usize {
        self.bytes(&self.dot_products())
    }

    /// Launches a shader that gives each workgroup 8 taps of a line, and lines of positions, as
    /// `conv_bwd_weight_direct.wgsl` does.
    pub fn dots(&self, name: &'static str, shader: &'static Shader, l: &Launch<'_, Wgpu>) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        let cut = self.dot_products();
        self.call(name, shader, l, &cut).constant("slides", self.slides()).dispatch_many(self.dot_blocks(&cut))?;
        self.add_splits(name, l, &cut)
    }

    /// Adds the splits, if there are several.
    fn add_splits(&self, name: &'static str, l: &Launch<'_, Wgpu>, cut: &Cut) -> Result<()> {
        if cut.splits == 1 {
            return Ok(());
        }
        let out = l.output(0);
        let channels = self.channels_out.max(1);
        l.call(name, shader!("conv_splits", "dtype", "math", "activation", "flat"))
            .constant("has_bias", self.bias)
            .constant("activation", self.activation as u32)
            .bind(l.scratch().read())
            .bind(l.input(2))
            .bind(out)
            .params(&[cut.splits, self.total / channels / self.batch.max(1), channels])
            .dispatch_flat(out, self.out)
    }
}

/// Whether the shaders can count so many points along each axis: in 32 bits with a sign.
pub(in crate::ops) fn supports(points: [usize; 3]) -> Result<(), Unsupported> {
    Unsupported::at_most("points along an axis", points.into_iter().fold(0, usize::max), 1usize << 30)
}

/// The same of a window over x.
pub(in crate::ops) fn supports_window(g: &Geometry) -> Result<(), Unsupported> {
    supports(std::array::from_fn(|i| g.size[i] + g.before[i] + g.after[i]))
}
