//! From pixels to tokens: patch embedding, class token, position table.

use super::{Linear, Scope};
use crate::ops::concat::concat;
use crate::ops::interpolate::{self, Mode, interpolate};
use crate::ops::{elementwise, patchify};
use crate::{Error, Result, Tensor};

/// A convolution whose kernel equals its stride: patches as rows, times a matrix.
pub struct PatchEmbedding {
    projection: Linear,
    patch: [usize; 2],
    channels: usize,
}

impl PatchEmbedding {
    /// `weight` [width, channels, height, width of a patch] and, if asked for, `bias` [width].
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn load(scope: &Scope, width: usize, channels: usize, patch: [usize; 2], bias: bool) -> Result<PatchEmbedding> {
        let weight = scope.matrix("weight", &[width, channels, patch[0], patch[1]])?;
        let weight = weight.reshape(&[width, channels * patch[0] * patch[1]])?;
        let bias = if bias { Some(scope.vector("bias", &[width])?) } else { None };
        Ok(PatchEmbedding { projection: Linear::new(&weight, bias, scope.precision().compute)?, patch, channels })
    }

    /// The rows and columns of patches of a picture [batch, channels, height, width]; a remainder is dropped.
    ///
    /// # Errors
    /// Not such a tensor, or smaller than a patch.
    pub fn grid(&self, pixel_values: &Tensor) -> Result<[usize; 2]> {
        match *pixel_values.shape() {
            [_, channels, height, width]
                if channels == self.channels && height >= self.patch[0] && width >= self.patch[1] =>
            {
                Ok([height / self.patch[0], width / self.patch[1]])
            }
            _ => Err(Error::Config(format!(
                "pixel_values must be [batch, {}, height, width] with sides of at least {:?}, got {:?}",
                self.channels,
                self.patch,
                pixel_values.shape()
            ))),
        }
    }

    /// Pixels [batch, channels, height, width] to tokens [batch, rows·columns, width].
    ///
    /// # Errors
    /// As [`grid`](PatchEmbedding::grid).
    pub fn forward(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.grid(pixel_values)?;
        let [height, width] = self.patch;
        self.projection.forward(&patchify::patchify(pixel_values, (height, width), 1)?)
    }
}

/// Puts a class token [width] before the tokens [batch, n, width] of each picture.
///
/// # Errors
/// The widths differ.
pub fn with_class_token(class: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let [batch, _, width] = *tokens.shape() else {
        return Err(Error::Config(format!("tokens must be [batch, n, width], got {:?}", tokens.shape())));
    };
    let class = class.reshape(&[1, 1, width])?.broadcast(&[batch, 1, width])?;
    concat(&[&class, tokens], 1)
}

/// Learnt positions: one row for the class token, then a grid.
pub struct PositionTable {
    table: Tensor,
    grid: [usize; 2],
}

impl PositionTable {
    /// From a table [1 + rows·columns, width].
    ///
    /// # Errors
    /// The number of rows is another one.
    pub fn new(table: Tensor, grid: [usize; 2]) -> Result<PositionTable> {
        let [rows, _] = *table.shape() else { return Err(Error::Config("a position table is [rows, width]".into())) };
        if rows != 1 + grid[0] * grid[1] {
            return Err(Error::Config(format!("a position table for {grid:?} patches has {rows} rows")));
        }
        Ok(PositionTable { table, grid })
    }

    /// Rows and columns.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// Adds positions to tokens [batch, 1 + rows·columns, width].
    ///
    /// # Errors
    /// The grid is not the table's; see [`resampled`](PositionTable::resampled).
    pub fn add(&self, tokens: &Tensor, grid: [usize; 2]) -> Result<Tensor> {
        if grid != self.grid {
            return Err(Error::Config(format!(
                "the picture has {grid:?} patches, the position table {:?}; resize it or interpolate positions",
                self.grid
            )));
        }
        elementwise::add(tokens, &self.table)
    }

    /// The table for another grid: its rows seen as a picture and resampled bicubically (a = -0.75, no antialiasing,
    /// borders clamped), as PyTorch does it. The class token's row stays.
    ///
    /// # Errors
    /// Memory is short.
    pub fn resampled(&self, grid: [usize; 2]) -> Result<PositionTable> {
        let [rows, width] = [self.table.shape()[0], self.table.shape()[1]];
        let [from, to] = [self.grid, grid];
        let picture = self.table.slice(0, 1..rows)?.reshape(&[1, from[0], from[1], width])?;
        let options = interpolate::Options { mode: Mode::Bicubic, channels_last: true, ..Default::default() };
        let picture = interpolate(&picture, (to[0], to[1]), &options)?.reshape(&[to[0] * to[1], width])?;
        PositionTable::new(concat(&[&self.table.slice(0, 0..1)?, &picture], 0)?, grid)
    }
}
