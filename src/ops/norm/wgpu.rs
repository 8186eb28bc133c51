//! Row normalisations in WGSL: `shaders/norm.wgsl`.

use super::{BIAS, Norm, OUT, RESIDUAL, SCALE, SHIFT, SUM, WEIGHT, X};
use crate::backend::Launch;
use crate::backend::wgpu::{Wgpu, row_lanes, shader::rows_shader};
use crate::error::Result;

/// Launches the row of this name.
pub fn launch<const SUBGROUPS: bool>(name: &'static str, n: &Norm, l: &Launch<'_, Wgpu>) -> Result<()> {
    if n.cols == 0 {
        return Ok(());
    }
    let shader = rows_shader!(SUBGROUPS, "norm", "dtype", "row_out");
    l.call(name, shader)
        .dtype("x_dtype", n.dtype)
        .dtype("out_dtype", n.out)
        .constant("centred", n.centred)
        .constant("has_weight", n.weight)
        .constant("has_bias", n.bias)
        .constant("has_residual", n.residual)
        .constant("modulated", n.modulated)
        .constant("quads", l.in_quads(X) && l.in_quads(RESIDUAL))
        .constant("lanes", row_lanes(n.cols.div_ceil(4)))
        .bind(l.input(X))
        .bind(l.input(WEIGHT))
        .bind(l.input(BIAS))
        .bind(l.input(RESIDUAL))
        .bind(l.input(SCALE))
        .bind(l.input(SHIFT))
        .bind(l.output(OUT))
        .bind(l.output(SUM))
        .params(&[n.rows, n.cols, n.rows / n.groups])
        .param_f32(n.eps.0)
        .params(&[X, RESIDUAL, SCALE, SHIFT].map(|i| l.row_stride(i)))
        .dispatch_many(n.rows)
}
