//! Matrix products with fused epilogues: the op under every linear layer.

mod cases;
mod cpu;
mod cuda;
mod grad;
mod reference;
mod wgpu;

pub use super::activation::Activation;
use super::problem::problem;
use super::{Case, Inputs, Op, Operand, Outputs, Real, Sample, Saved, first, pack_rhs, run};
use crate::autograd;
use crate::backend::{Backend, cpu::Cpu};
use crate::device::Device;
use crate::dtype::{DType, Format, PANEL_ROWS};
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::tensor::Tensor;

problem! {
    /// `out[m, n] = activation(Σ_k lhs[m, k] · rhs[n, k] + bias[n]) + residual[m, n]`, for each of `batch` pairs.
    ///
    /// Weights are [out, in] = [n, k]. With `gated`, rhs is [2n, k] and bias [2n]: a gate and then an equal matrix, and
    /// `out = activation(gate) · up + residual`. Products are exact and sums f32: a 16-bit rhs is widened, an f32 lhs is
    /// never rounded.
    ///
    /// A rhs of dtype u8 is quantised: its values are those that [`quant`](super::quant) defines, exactly. Then lhs is rounded
    /// to 15 bits and a sign, each 32 consecutive k by themselves: to q·d with d = max |lhs| / (127·254) and q = lhs / d to
    /// the nearest integer. Sums are exact within these blocks and f32 across them.
    ///
    /// Operands: lhs [m, k], rhs [n or 2n, k], bias [n or 2n] f32, residual [m, n] f32. Results: out [m, n]. With a batch
    /// above 1, lhs, residual and out have it as their first dimension, and rhs if `rhs_batch` is the same.
    pub struct Gemm("gemm") {
        /// f32, bf16 or f16.
        lhs: DType = DType::F32,
        /// f32, bf16 or f16; u8 where the format is quantised.
        rhs: DType = DType::F32,
        /// f32, bf16 or f16.
        out: DType = DType::F32,
        /// Of rhs.
        format: Format = Format::Plain,
        /// Products.
        batch: usize = 1,
        /// 1, or `batch`.
        rhs_batch: usize = 1,
        /// Rows of lhs and out.
        m: usize = 1,
        /// Columns of out.
        n: usize = 1,
        /// What is summed over.
        k: usize = 1,
        /// Whether there is a bias.
        bias: bool = false,
        /// Applied after the bias (gated: to the gate).
        activation: Activation = Activation::None,
        /// Whether there is a residual, added last.
        residual: bool = false,
        /// Whether rhs holds a gate and another matrix.
        gated: bool = false,
    }
}

impl Gemm {
    fn checked(self) -> Result<Gemm> {
        let fail = |why: String| Err(Error::problem("gemm", why));
        let quant = self.format.quant();
        let rhs = if quant.is_some() { DType::F32 } else { self.rhs };
        if let Some(d) = [self.lhs, rhs, self.out].into_iter().find(|d| !d.is_float()) {
            return fail(format!("multiplies floats, got {d}"));
        }
        if let Some(quant) = quant {
            let values = quant.block_values();
            if self.rhs != DType::U8 || !self.k.is_multiple_of(values) {
                let (rhs, format, k) = (self.rhs, self.format, self.k);
                return fail(format!("{format} is of u8 and of k in blocks of {values}, got {rhs} and k = {k}"));
            }
        }
        if self.rhs_batch != 1 && self.rhs_batch != self.batch {
            return fail(format!("rhs_batch must be 1 or the batch {}, is {}", self.batch, self.rhs_batch));
        }
        let packed = match self.format {
            Format::Plain => None,
            Format::Blocks(_) => Some((self.gated, 1, 1)),
            Format::Panels { gated, nr, kr } => Some((gated, nr, kr)),
            Format::BlockPanels { gated, .. } => Some((gated, PANEL_ROWS as u16, 1)),
        };
        if let Some((gated, nr, kr)) = packed {
            if gated != self.gated {
                return fail(format!("format {} does not fit gated={}", self.format, self.gated));
            }
            if self.rhs_batch != 1 {
                return fail("a packed or quantised rhs has no batch".into());
            }
            let grown = (self.n.checked_add(nr as usize), self.k.checked_add(kr as usize));
            let (Some(n), Some(k)) = grown else { return fail("too many elements".into()) };
            Shape::new(&[2, n, k])?;
        }
        Shape::new(&[self.batch, self.m, self.k])?;
        Shape::new(&[self.batch, self.m, self.n])?;
        Shape::new(&[self.rhs_batch, 2, self.n, self.k])?;
        match [self.batch, 2, self.m, self.n, self.k].iter().try_fold(1u64, |p, &x| p.checked_mul(2 * x.max(1) as u64))
        {
            Some(_) => Ok(self),
            None => fail("too many products".into()),
        }
    }

    /// Whether its gradient needs what the activation was applied to.
    fn is_curved(&self) -> bool {
        self.activation != Activation::None || self.gated
    }

    /// Rows of rhs.
    fn rhs_rows(&self) -> usize {
        if self.gated { 2 * self.n } else { self.n }
    }
}

/// [rows, cols], or with a batch above 1 [batch, rows, cols].
fn matrices(name: &'static str, dtype: DType, batch: usize, rows: usize, cols: usize) -> Operand {
    if batch == 1 { Operand::new(name, dtype, &[rows, cols]) } else { Operand::new(name, dtype, &[batch, rows, cols]) }
}

impl Op for Gemm {
    const NAME: &'static str = "gemm";

    fn inputs(&self) -> Inputs {
        let rows = self.rhs_rows();
        [
            matrices("lhs", self.lhs, self.batch, self.m, self.k),
            matrices("rhs", self.rhs, self.rhs_batch, rows, self.k).format(self.format),
            Operand::new("bias", DType::F32, &[rows]).only_if(self.bias),
            matrices("residual", DType::F32, self.batch, self.m, self.n).only_if(self.residual),
        ]
        .into()
    }
    fn outputs(&self) -> Outputs {
        [matrices("out", self.out, self.batch, self.m, self.n)].into()
    }
    fn flops(&self) -> u64 {
        2 * (self.batch * self.m * self.rhs_rows() * self.k) as u64
    }
    fn cases() -> Vec<Case<Self>> {
        cases::cases()
    }
    /// Panels are the CPU's.
    fn for_device(&self, device: &Device) -> Self {
        let format = match self.format {
            format if device.as_cpu().is_some() => format,
            Format::Panels { .. } => Format::Plain,
            Format::BlockPanels { quant, .. } => Format::Blocks(quant),
            format => format,
        };
        Gemm { format, ..*self }
    }
    fn prepared(&self, device: &Device) -> Self {
        let Some(cpu) = device.as_cpu().filter(|_| matches!(self.format, Format::Panels { .. })) else {
            return self.for_device(device);
        };
        let format = cpu::wanted_format(Cpu::caps(cpu), self.lhs, self.rhs, self.format, self.gated);
        Gemm { format, ..*self }
    }
    fn reference<T: Real>(&self, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
        reference::gemm(self, inputs, rows)
    }
    fn keeps(&self) -> (u32, u32) {
        self.keeps_for(!0)
    }
    fn keeps_for(&self, needs: u32) -> (u32, u32) {
        grad::keeps(self, needs)
    }
    fn grad(saved: &Saved<Self>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        grad::grad(saved, grads)
    }
    fn compose(&self, inputs: &[Option<Tensor>]) -> Option<Result<Vec<Tensor>>> {
        Some(grad::compose(self, inputs).map(|out| vec![out]))
    }
}

/// What follows a product.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// [n] f32 (gated: [2n]).
    pub bias: Option<&'a Tensor>,
    /// Applied after the bias.
    pub activation: Activation,
    /// Of the result's shape, f32; added last.
    pub residual: Option<&'a Tensor>,
    /// Whether the weight holds a gate and another matrix.
    pub gated: bool,
    /// The dtype of the result.
    pub out: DType,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { bias: None, activation: Activation::None, residual: None, gated: false, out: DType::F32 }
    }
}

/// `x` [..., k] times a weight [n, k] (plain, packed or quantised), plus a bias [n]: [..., n] in f32.
///
/// # Errors
/// Shapes or dtypes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_with(x, weight, &Epilogue { bias, ..Default::default() })
}

/// `x` [..., k] times a weight [n, k] (plain, packed or quantised; gated: [2n, k]), and what follows: [..., n].
///
/// On the tape an activation or gate is a step of its own, so that its operand is kept and not computed twice. (With a
/// weight in gated panels, which is not trained, it is computed again: unpacking it would cost its size in memory.)
///
/// # Errors
/// Shapes or dtypes do not fit.
pub fn linear_with(x: &Tensor, weight: &Tensor, epilogue: &Epilogue<'_>) -> Result<Tensor> {
    let (m, k) = x.layout().shape.rows();
    let [rows, _] = *weight.shape() else {
        return Err(Error::problem("gemm", format!("a weight is a matrix [n, k], got {weight}")));
    };
    let n = if epilogue.gated { rows / 2 } else { rows };
    let op = Gemm {
        lhs: x.dtype(),
        rhs: weight.dtype(),
        out: epilogue.out,
        format: weight.format(),
        m,
        n,
        k,
        bias: epilogue.bias.is_some(),
        activation: epilogue.activation,
        residual: epilogue.residual.is_some(),
        gated: epilogue.gated,
        ..Gemm::default()
    }
    .checked()?;
    let flat = match x.reshape(&[m, k]) {
        Ok(flat) => flat,
        Err(_) => x.contiguous()?.reshape(&[m, k])?,
    };
    let residual = epilogue.residual.map(|r| r.reshape(&[m, n])).transpose()?;
    let operands = [Some(&flat), Some(weight), epilogue.bias, residual.as_ref()];
    let recorded = autograd::recording() && operands.iter().flatten().any(|t| t.has_node());
    let paired = matches!(op.format, Format::Panels { gated: true, .. } | Format::BlockPanels { gated: true, .. });
    let out = if recorded && op.is_curved() && !paired {
        grad::compose(&op, &operands.map(|t| t.cloned()))?
    } else {
        first(run(&op, x.device(), &operands)?)
    };
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    out.reshape(&shape)
}

/// `a` [..., m, k] times `b` [..., k, n], with equal leading dimensions (or none for `b`): [..., m, n] in f32.
///
/// # Errors
/// Shapes or dtypes do not fit.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let fail = || Error::problem("gemm", format!("cannot multiply {a} by {b}"));
    let (ra, rb) = (a.shape().len(), b.shape().len());
    if ra < 2 || rb < 2 || (rb != 2 && a.shape()[..ra - 2] != b.shape()[..rb - 2]) {
        return Err(fail());
    }
    let lead = &a.shape()[..ra - 2];
    let batch: usize = lead.iter().product();
    let ([m, k], n) = ([a.shape()[ra - 2], a.shape()[ra - 1]], b.shape()[rb - 1]);
    let rhs_batch = if rb == 2 { 1 } else { batch };
    let op = Gemm { lhs: a.dtype(), rhs: b.dtype(), batch, rhs_batch, m, n, k, ..Gemm::default() }.checked()?;
    let folded = |t: &Tensor, batch: usize, rows: usize, cols: usize| -> Result<Tensor> {
        let dims = [batch, rows, cols];
        let dims = if batch == 1 { &dims[1..] } else { &dims[..] };
        t.reshape(dims).or_else(|_| t.contiguous()?.reshape(dims))
    };
    let lhs = folded(a, batch, m, k)?;
    let rhs = folded(b, rhs_batch, b.shape()[rb - 2], n)?;
    let last = rhs.shape().len() - 1;
    let rhs = rhs.transpose(last - 1, last)?;
    let mut shape = lead.to_vec();
    shape.extend([m, n]);
    first(run(&op, a.device(), &[Some(&lhs), Some(&rhs), None, None])?).reshape(&shape)
}

/// A weight [n, k] (gated: [2n, k]) in the format that the device's kernels want for activations of dtype `lhs`: packed,
/// or itself where they take it as it is. Quantised blocks stay quantised.
///
/// # Errors
/// Not a matrix of floats or of quantised blocks, or memory is short.
pub fn prepare(weight: &Tensor, lhs: DType, gated: bool) -> Result<Tensor> {
    match wanted_format(weight.device(), lhs, weight, gated) {
        Format::Plain => weight.contiguous(),
        format if format == weight.format() => Ok(weight.clone()),
        format => pack_rhs::pack(weight, format),
    }
}

/// The rhs format of the first kernel that takes packed operands of these dtypes.
fn wanted_format(device: &Device, lhs: DType, weight: &Tensor, gated: bool) -> Format {
    match device.as_cpu() {
        Some(cpu) => cpu::wanted_format(Cpu::caps(cpu), lhs, weight.dtype(), weight.format(), gated),
        None => weight.format(),
    }
}
