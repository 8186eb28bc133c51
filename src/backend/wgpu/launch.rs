//! What a kernel says to be run: the shader with its constants, bindings, parameters and workgroups.

use super::shader::Shader;
use super::{Buffer, Device, Wgpu};
use crate::backend::{Arg, Launch};
use crate::dtype::DType;
use crate::error::Result;
use std::ops::Range;

/// One storage binding: a part of a buffer, or nothing where an optional operand is absent.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "wgpu"), allow(dead_code))] // read by the device that is not there
pub struct Bind<'a> {
    pub(super) buffer: Option<&'a Buffer>,
    /// The first element, in elements of the buffer.
    pub(super) offset: usize,
    /// Elements from there on.
    pub(super) elements: usize,
    /// Bytes of an element.
    pub(super) element_bytes: usize,
    pub(super) writes: bool,
}

impl<'a> Bind<'a> {
    /// In place of an operand that is absent: the shader must not look at it.
    pub const NONE: Bind<'static> = Bind { buffer: None, offset: 0, elements: 0, element_bytes: 4, writes: false };

    /// A whole buffer of 4-byte elements.
    pub(super) fn words(buffer: &'a Buffer, elements: usize, writes: bool) -> Bind<'a> {
        Bind { buffer: Some(buffer), offset: 0, elements, element_bytes: 4, writes }
    }

    fn of(arg: &Arg<'a, Wgpu>, writes: bool) -> Bind<'a> {
        Bind {
            buffer: Some(arg.buffer),
            offset: arg.layout.offset,
            elements: arg.elements,
            element_bytes: arg.dtype.bytes(),
            writes,
        }
    }

    /// A range of the elements (counted from the operand's first), for weights larger than a binding.
    pub fn range(self, elements: Range<usize>) -> Bind<'a> {
        Bind { offset: self.offset + elements.start, elements: elements.len(), ..self }
    }

    /// The first element, counted from the beginning of the buffer (which is aligned for every dtype).
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The same for reading, as a later dispatch of one launch does with what an earlier one wrote.
    pub fn read(self) -> Bind<'a> {
        Bind { writes: false, ..self }
    }
}

/// A dispatch in the making.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code))] // read by the device that is not there
pub struct Call<'a> {
    device: &'a Device,
    /// The kernel's name: the pipeline's label.
    pub(super) label: &'static str,
    pub(super) shader: &'static Shader,
    pub(super) entry: &'static str,
    pub(super) constants: Vec<(&'static str, f64)>,
    pub(super) bindings: Vec<Bind<'a>>,
    pub(super) params: Vec<u32>,
    /// The op that an index out of range is reported for, and the binding behind the others that takes the report.
    pub(super) faults_of: Option<&'static str>,
}

impl<'a> Call<'a> {
    pub(super) fn new(device: &'a Device, label: &'static str, shader: &'static Shader) -> Call<'a> {
        Call {
            device,
            label,
            shader,
            entry: "main",
            constants: Vec::new(),
            bindings: Vec::new(),
            params: Vec::new(),
            faults_of: None,
        }
    }

    /// A function of the module other than `main`.
    pub fn entry(self, entry: &'static str) -> Call<'a> {
        Call { entry, ..self }
    }

    /// The value of an `override` constant: a number or a `bool`.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Call<'a> {
        self.constants.push((name, value.into()));
        self
    }

    /// The value of an `override` constant that is a dtype's code.
    pub fn dtype(self, name: &'static str, dtype: DType) -> Call<'a> {
        self.constant(name, dtype.code())
    }

    /// The next storage binding.
    pub fn bind(mut self, binding: Bind<'a>) -> Call<'a> {
        self.bindings.push(binding);
        self
    }

    /// Adds, behind the bindings, the one that indexes out of range are reported in (`common/faults.wgsl`). The error
    /// comes with the next read or synchronise, as that of `op`.
    pub fn faults(self, op: &'static str) -> Call<'a> {
        Call { faults_of: Some(op), ..self }
    }

    /// The next parameter.
    pub fn param(mut self, value: usize) -> Call<'a> {
        self.params.push(value as u32);
        self
    }

    /// Several.
    pub fn params(mut self, values: &[usize]) -> Call<'a> {
        self.params.extend(values.iter().map(|&v| v as u32));
        self
    }

    /// The next parameter, an `f32`.
    pub fn param_f32(mut self, value: f32) -> Call<'a> {
        self.params.push(value.to_bits());
        self
    }

    /// Records the dispatch of so many workgroups; nothing where one of the numbers is 0.
    ///
    /// # Errors
    /// The shader does not compile, a binding or the grid is beyond the adapter's limits, or the device was lost.
    pub fn dispatch(self, workgroups: [usize; 3]) -> Result<()> {
        let grid = workgroups.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        if grid.contains(&0) { Ok(()) } else { self.device.run(&self, grid) }
    }

    /// Records the dispatch of a number of workgroups that may exceed what one dimension takes: the shader numbers them
    /// by `flat_workgroup` of `common/dtype.wgsl`, and leaves out those beyond the end.
    ///
    /// # Errors
    /// As [`dispatch`](Call::dispatch).
    pub fn dispatch_many(self, workgroups: usize) -> Result<()> {
        let most = self.device.caps().workgroups as usize;
        let rows = workgroups.div_ceil(most).max(1);
        self.dispatch([workgroups.div_ceil(rows), rows, 1])
    }

    /// Records the dispatch of a shader with `common/columns.wgsl`. Adds the constant and the parameters that the part wants.
    ///
    /// # Errors
    /// As [`dispatch`](Call::dispatch).
    pub fn dispatch_columns(self, cut: &Columns) -> Result<()> {
        let Columns { outer, len, inner, across, segment, segments } = *cut;
        let mut call = self.constant("across", across as u32);
        call.params.splice(0..0, [outer, len, inner, segment].map(|v| v as u32));
        call.dispatch_many(outer * segments * inner.div_ceil(4 * across))
    }

    /// Records the dispatch of a shader with `common/flat.wgsl`: an invocation for each 16 bytes of `out`, the binding
    /// named `out` in it, all of whose elements are computed. Adds the constant and the parameter that the part wants.
    ///
    /// # Errors
    /// As [`dispatch`](Call::dispatch).
    pub fn dispatch_flat(self, out: Bind<'_>, dtype: DType) -> Result<()> {
        if out.elements == 0 {
            return Ok(());
        }
        let per_vector = 16 / dtype.bytes();
        let vectors = (out.offset % per_vector + out.elements).div_ceil(per_vector);
        let mut call = self.dtype("out_dtype", dtype);
        call.params.insert(0, out.elements as u32);
        call.dispatch_many(vectors.div_ceil(FLAT_WORKGROUP))
    }

    /// Records the dispatch of a shader with `common/runs.wgsl`: how many runs of how many elements, and the parameters behind
    /// these two. Adds the constant and the parameters that the part wants.
    ///
    /// # Errors
    /// As [`dispatch`](Call::dispatch).
    pub fn dispatch_runs(self, [runs, len]: [usize; 2], dtype: DType, params: &[usize]) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let per_word = 4 / dtype.bytes();
        let words = len.div_ceil(per_word) + usize::from(per_word > 1);
        let call = self.dtype("out_dtype", dtype).params(&[runs, len]).params(params);
        call.dispatch_many((runs * words).div_ceil(FLAT_WORKGROUP))
    }
}

/// Invocations of a workgroup of `common/flat.wgsl` and `common/runs.wgsl`.
const FLAT_WORKGROUP: usize = 256;

/// How `common/columns.wgsl` cuts [outer, len, inner], of which `len` is reduced.
#[derive(Clone, Copy)]
pub struct Columns {
    outer: usize,
    len: usize,
    inner: usize,
    /// Quads of columns that a workgroup takes side by side.
    across: usize,
    /// Rows of a segment, which is what a workgroup takes of `len`.
    segment: usize,
    /// Segments, at least one.
    pub segments: usize,
}

impl Columns {
    pub fn new(outer: usize, len: usize, inner: usize) -> Columns {
        let across = inner.div_ceil(4).next_power_of_two().min(32);
        let tiles = outer * inner.div_ceil(4 * across);
        let segment = super::segment(len, 16 * COLUMNS_WORKGROUP / across, tiles);
        Columns { outer, len, inner, across, segment, segments: len.div_ceil(segment).max(1) }
    }

    /// The same columns, where all of `len` is one segment: the second pass, over what segments gave.
    pub fn whole(&self, len: usize) -> Columns {
        Columns { len, segment: len.max(1), segments: 1, ..*self }
    }
}

/// Invocations of a workgroup of `common/columns.wgsl`.
const COLUMNS_WORKGROUP: usize = 256;

impl<'a> Launch<'a, Wgpu> {
    /// Begins a dispatch of a shader for the kernel of this name.
    pub fn call(&self, label: &'static str, shader: &'static Shader) -> Call<'a> {
        Call::new(self.device, label, shader)
    }

    /// Rows of so many bytes that one binding can reach, wherever the first begins: for operands that are bound in parts.
    pub fn rows_in_binding(&self, row_bytes: usize) -> usize {
        let caps = self.device.caps();
        let most = caps.binding_bytes.saturating_sub(u64::from(caps.binding_alignment) + 16);
        (most as usize / row_bytes.max(1)).max(1)
    }

    /// Operand `i`, to be read.
    pub fn input(&self, i: usize) -> Bind<'a> {
        self.inputs[i].as_ref().map_or(Bind::NONE, |arg| Bind::of(arg, false))
    }

    /// Result `i`, to be written.
    pub fn output(&self, i: usize) -> Bind<'a> {
        self.outputs[i].as_ref().map_or(Bind { writes: true, ..Bind::NONE }, |arg| Bind::of(arg, true))
    }

    /// Whether each row of operand `i` begins at a multiple of four elements, or it is absent: then four at a time are read
    /// as one.
    pub fn in_quads(&self, i: usize) -> bool {
        self.inputs[i].as_ref().is_none_or(|arg| {
            let (layout, lead) = (&arg.layout, arg.layout.shape.len().saturating_sub(1));
            let fits = |d: usize| layout.shape[d] <= 1 || layout.strides[d].is_multiple_of(4);
            layout.offset.is_multiple_of(4) && (0..lead).all(fits)
        })
    }

    /// The workspace as 4-byte elements, to be written.
    pub fn scratch(&self) -> Bind<'a> {
        self.workspace.as_ref().map_or(Bind { writes: true, ..Bind::NONE }, |arg| Bind {
            elements: arg.elements / 4,
            element_bytes: 4,
            ..Bind::of(arg, true)
        })
    }

    /// Records an upload of words into the workspace, from word `at` on: for tables that the host makes.
    ///
    /// # Errors
    /// The device was lost.
    pub fn upload_scratch(&self, at: usize, words: &[u32]) -> Result<()> {
        self.workspace
            .as_ref()
            .map_or(Ok(()), |arg| self.device.upload(arg.buffer, at * 4, bytemuck::cast_slice(words)))
    }
}
