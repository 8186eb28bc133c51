//! Walking in WGSL: views of `common/view.wgsl`.

use super::Walk;
use crate::backend::Launch;
use crate::backend::wgpu::{Wgpu, shader::Shader};
use crate::dtype::DType;
use crate::error::Result;

/// Launches a shader with `common/view.wgsl`, `common/walk.wgsl` and `common/flat.wgsl`: operand 0, with any strides and of
/// dtype `from`, to result 0 of dtype `to`.
pub fn launch_view(
    name: &'static str,
    shader: &'static Shader,
    l: &Launch<'_, Wgpu>,
    from: DType,
    to: DType,
) -> Result<()> {
    let walk = Walk::new([Some(*l.layout(0)), None, None]);
    let out = l.output(0);
    l.call(name, shader)
        .dtype("x_dtype", from)
        .constant("x_run", walk.is_run(0, l.layout(0).offset) && out.offset().is_multiple_of(4))
        .constant("walk_quads", walk.has_quads(out.offset()))
        .bind(l.input(0))
        .bind(out)
        .params(&[walk.rank, 0, 0])
        .params(&walk.dims)
        .params(&walk.strides[0])
        .dispatch_flat(out, to)
}
