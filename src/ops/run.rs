//! Checking operands, choosing a kernel, launching it, and writing the tape.

use super::problem::{Case, Class, Inputs, Operand, Outputs, Sample, Tolerance};
use super::{Op, Saved};
use crate::autograd;
use crate::backend::{Arg, Backend, Kernel, Kernels, Launch, MAX_OUT};
use crate::cost::Cost;
use crate::device::{Device, Member, Storage, with_device};
use crate::dtype::{DType, Format};
use crate::error::{Error, Result, Unsupported};
use crate::layout::{Layout, Shape};
use crate::profile::What;
use crate::tensor::{Backward, Node, Tensor, TensorMut};

/// The results of a problem, in order; those that it lacks are `None`.
pub type Results = [Option<Tensor>; MAX_OUT];

/// Computes a problem on a device: `let [out, lse, ..] = run(…)?`.
///
/// # Errors
/// An operand is not as the problem says, no kernel takes it, or the device fails.
pub fn run<O: Op>(op: &O, device: &Device, inputs: &[Option<&Tensor>]) -> Result<Results> {
    run_row(op, device, None, inputs)
}

/// As [`run`], with a kernel chosen by name.
///
/// # Errors
/// As [`run`]; or there is no such kernel, or it cannot take the problem.
pub fn run_row<O: Op>(op: &O, device: &Device, row: Option<&str>, inputs: &[Option<&Tensor>]) -> Result<Results> {
    let results = with_device!(device, |B, d| exec::<B, O>(op, device, d, row, inputs, None))?;
    record(op, inputs, results)
}

/// As [`run`], writing into existing tensors instead of new ones.
///
/// # Errors
/// As [`run`]; or a tensor is not as the problem's result, or an operand is on the tape.
pub fn run_into<O: Op>(op: &O, device: &Device, inputs: &[Option<&Tensor>], outs: &mut [TensorMut<'_>]) -> Result<()> {
    run_row_into(op, device, None, inputs, outs)
}

/// As [`run_into`], with a kernel chosen by name.
///
/// # Errors
/// As [`run_into`]; or there is no such kernel, or it cannot take the problem.
pub fn run_row_into<O: Op>(
    op: &O,
    device: &Device,
    row: Option<&str>,
    inputs: &[Option<&Tensor>],
    outs: &mut [TensorMut<'_>],
) -> Result<()> {
    if autograd::records(inputs.iter().copied().flatten()) {
        let why = "an operand is on the tape, which needs values that do not change; use no_grad() or run()";
        return Err(Error::problem(O::NAME, why));
    }
    with_device!(device, |B, d| exec::<B, O>(op, device, d, row, inputs, Some(outs))).map(drop)
}

fn exec<B: Member, O: Op + Kernels<B>>(
    op: &O,
    device: &Device,
    dev: &B::Device,
    row: Option<&str>,
    inputs: &[Option<&Tensor>],
    outs: Option<&mut [TensorMut<'_>]>,
) -> Result<Results> {
    let (operands, wanted) = (op.inputs(), op.outputs());
    check_inputs(op, device, &operands, inputs)?;
    let layout = |i: usize| inputs.get(i).copied().flatten().map(|t| *t.layout());
    let caps = B::caps(dev);
    let Some(kernel) = select::<B, O>(op, caps, row, layout) else {
        // No row takes the operands as they lie. If one takes them contiguous, copy those that are not.
        let kernel = select::<B, O>(op, caps, row, |_| None).ok_or_else(|| no_kernel::<B, O>(op, device, caps, row))?;
        let mut copies: Vec<Option<Tensor>> = Vec::with_capacity(inputs.len());
        for (i, input) in inputs.iter().enumerate() {
            let copy = input.filter(|t| kernel.takes_layout(i, t.layout()).is_err());
            copies.push(copy.map(|t| t.detach().contiguous()).transpose()?);
        }
        let mut lying: Vec<Option<&Tensor>> = inputs.to_vec();
        for (slot, copy) in lying.iter_mut().zip(&copies) {
            if let Some(copy) = copy {
                *slot = Some(copy);
            }
        }
        return exec::<B, O>(op, device, dev, row, &lying, outs);
    };

    let mut results: Results = Default::default();
    let mut launch = Launch::<B> {
        device: dev,
        cost: op.cost(),
        inputs: std::array::from_fn(|i| {
            let tensor = inputs.get(i).copied().flatten()?;
            Some(arg::<B>(tensor.storage(), tensor.layout(), tensor.dtype(), tensor.format()))
        }),
        outputs: Default::default(),
        workspace: None,
    };
    if let Some(outs) = &outs {
        check_outs(op, device, &wanted, outs)?;
        let mut given = outs.iter();
        for (i, _) in wanted.iter().filter(|(_, o)| o.present) {
            launch.outputs[i] = given.next().map(|t| arg::<B>(t.storage(), t.layout(), t.dtype(), t.format()));
        }
    } else {
        for (i, o) in wanted.iter().filter(|(_, o)| o.present) {
            if o.in_place {
                let why = format!("`{}` is updated in place; use run_into", o.name);
                return Err(Error::Problem { op: O::NAME, why });
            }
            results[i] = Some(Tensor::empty(device, o.dtype, o.format, o.shape)?);
        }
        for (slot, tensor) in launch.outputs.iter_mut().zip(&results) {
            *slot = tensor.as_ref().map(|t| arg::<B>(t.storage(), t.layout(), t.dtype(), t.format()));
        }
    }
    let workspace_bytes = (kernel.workspace)(op, caps);
    let workspace = if workspace_bytes > 0 { Some(device.alloc(workspace_bytes)?) } else { None };
    launch.workspace = workspace.as_ref().map(|s| Arg {
        buffer: s.peel::<B>(),
        layout: Layout::contiguous(Shape::of(&[workspace_bytes])),
        dtype: DType::U8,
        elements: workspace_bytes,
    });

    let profiler = device.profiler();
    if !profiler.enabled() {
        (kernel.launch)(kernel, op, &mut launch)?;
    } else {
        let began = B::stamp(dev)?;
        (kernel.launch)(kernel, op, &mut launch)?;
        let seconds = B::seconds(dev, &began, &B::stamp(dev)?)?;
        let text = call_text(op, &operands, layout);
        profiler.record(text, What::Kernel { row: kernel.name, cost: launch.cost }, seconds);
    }
    Ok(results)
}

fn arg<'a, B: Member>(storage: &'a Storage, layout: &Layout, dtype: DType, format: Format) -> Arg<'a, B> {
    let (n, k) = layout.shape.rows();
    let elements = if format == Format::Plain { layout.span() } else { format.elements(n, k) };
    Arg { buffer: storage.peel::<B>(), layout: *layout, dtype, elements }
}

/// The row that runs a problem: the one named, else the first that can and suits, else the first that can. `layout`
/// gives how each operand lies; `None` stands for contiguous.
pub(crate) fn select<B: Backend, O: Kernels<B>>(
    op: &O,
    caps: &B::Caps,
    row: Option<&str>,
    layout: impl Fn(usize) -> Option<Layout>,
) -> Option<&'static Kernel<B, O>> {
    let mut able = None;
    for kernel in O::KERNELS {
        if row.is_some_and(|r| r != kernel.name) || fit::<B, O>(kernel, op, caps, &layout).is_err() {
            continue;
        }
        if (kernel.suits)(op, caps) {
            return Some(kernel);
        }
        able = able.or(Some(kernel));
    }
    able
}

fn fit<B: Backend, O>(
    kernel: &Kernel<B, O>,
    op: &O,
    caps: &B::Caps,
    layout: &impl Fn(usize) -> Option<Layout>,
) -> Result<(), Unsupported> {
    (kernel.supports)(op, caps)?;
    (0..crate::backend::MAX_IN).try_for_each(|i| layout(i).map_or(Ok(()), |l| kernel.takes_layout(i, &l)))
}

fn no_kernel<B: Backend, O: Op + Kernels<B>>(op: &O, device: &Device, caps: &B::Caps, row: Option<&str>) -> Error {
    let reasons = <O as Kernels<B>>::KERNELS.iter().filter_map(|k| Some((k.name, (k.supports)(op, caps).err()?)));
    match row {
        None => Error::NoKernel { problem: op.to_string(), device: device.backend().into(), rows: reasons.collect() },
        Some(row) => {
            let why = reasons.into_iter().find(|(name, _)| *name == row).map(|(_, why)| why.to_string());
            Error::Row {
                problem: op.to_string(),
                row: row.into(),
                device: device.backend().into(),
                why: why.unwrap_or_else(|| "there is no such kernel; see `lapidary explain`".into()),
            }
        }
    }
}

fn check_inputs<O: Op>(op: &O, device: &Device, operands: &Inputs, inputs: &[Option<&Tensor>]) -> Result<()> {
    for (i, o) in operands.iter() {
        let fail =
            |want: String, have: String| Err(Error::Operand { problem: op.to_string(), operand: o.name, want, have });
        match inputs.get(i).copied().flatten() {
            None if o.present => return fail(describe(o), "nothing".into()),
            None => {}
            Some(t) if !o.present => return fail("absent".into(), t.to_string()),
            Some(t) if t.device() != device => {
                return fail(
                    format!("on the device {device:?} that runs the problem"),
                    format!("{t} of another handle"),
                );
            }
            Some(t) if *t.shape() != *o.shape || t.dtype() != o.dtype || t.format() != o.format => {
                return fail(describe(o), t.to_string());
            }
            Some(_) => {}
        }
    }
    let extra = inputs.iter().skip(operands.iter().count()).any(Option::is_some);
    if extra { Err(Error::problem(O::NAME, "more operands than the op has")) } else { Ok(()) }
}

fn check_outs<O: Op>(op: &O, device: &Device, wanted: &Outputs, outs: &[TensorMut<'_>]) -> Result<()> {
    let present: Vec<&Operand> = wanted.iter().map(|(_, o)| o).filter(|o| o.present).collect();
    if present.len() != outs.len() {
        return Err(Error::problem(O::NAME, format!("has {} results, got {} to write", present.len(), outs.len())));
    }
    for (o, t) in present.iter().zip(outs) {
        let same = *t.shape() == *o.shape && t.dtype() == o.dtype && t.format() == o.format;
        if !same || t.storage().device != *device || !t.layout().is_contiguous() {
            return Err(Error::Operand {
                problem: op.to_string(),
                operand: o.name,
                want: format!("{}, contiguous, on the device that runs the problem", describe(o)),
                have: format!("{} {}, strides {:?}", t.dtype(), t.layout().shape, t.layout().strides()),
            });
        }
    }
    Ok(())
}

fn describe(o: &Operand) -> String {
    let format = if o.format == Format::Plain { String::new() } else { format!(" {}", o.format) };
    format!("{} {}{format}", o.dtype, o.shape)
}

/// A call as text: the problem, and the strides of operands that are not contiguous.
fn call_text(op: &impl Op, operands: &Inputs, layout: impl Fn(usize) -> Option<Layout>) -> String {
    let mut text = op.to_string();
    for (i, o) in operands.iter() {
        if let Some(l) = layout(i).filter(|l| o.format == Format::Plain && !l.is_contiguous()) {
            let strides: Vec<String> = l.strides().iter().map(usize::to_string).collect();
            text.push_str(&format!(" {}:strides={}", o.name, strides.join("x")));
        }
    }
    text
}

/// What the tape holds of a step.
struct Recorded<O>(Saved<O>);

impl<O: Op> Backward for Recorded<O> {
    fn backward(&self, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        O::grad(&self.0, grads)
    }
}

fn record<O: Op>(op: &O, inputs: &[Option<&Tensor>], results: Results) -> Result<Results> {
    if !autograd::records(inputs.iter().copied().flatten()) {
        return Ok(results);
    }
    let parents: Vec<_> = inputs.iter().map(|t| t.and_then(|t| t.node().cloned())).collect();
    let needs = parents.iter().enumerate().fold(0, |mask, (i, parent)| mask | u32::from(parent.is_some()) << i);
    let (keep_in, keep_out) = op.keeps_for(needs);
    let kept = |mask: u32, i: usize, t: Option<&Tensor>| t.filter(|_| mask >> i & 1 == 1).map(Tensor::detach);
    let saved = Saved {
        op: op.clone(),
        inputs: inputs.iter().enumerate().map(|(i, t)| kept(keep_in, i, *t)).collect(),
        outputs: results.iter().enumerate().map(|(i, t)| kept(keep_out, i, t.as_ref())).collect(),
        needs,
    };
    let node = Node::step(parents, MAX_OUT as u8, Recorded(saved));
    let mut i = 0;
    Ok(results.map(|t| {
        i += 1;
        t.map(|t| t.with_node(node.clone(), i - 1))
    }))
}

/// The default gradient of a fused op: its composition is run again on the tape, and walked back.
pub(super) fn grad_of_composition<O: Op>(saved: &Saved<O>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let leaf =
        |(i, t): (usize, &Option<Tensor>)| t.as_ref().map(|t| if saved.needs(i) { t.with_grad() } else { t.clone() });
    let leaves: Vec<Option<Tensor>> = saved.inputs.iter().enumerate().map(leaf).collect();
    let composed = autograd::enabled(|| saved.op.compose(&leaves))
        .ok_or_else(|| Error::NotSupported(format!("the gradient of {}", saved.op)))??;
    let roots = composed.into_iter().zip(grads).filter_map(|(t, g)| Some((t, g.clone()?)));
    let found = autograd::backward(roots.filter(|(t, _)| t.has_node()), super::elementwise::add)?;
    Ok(leaves.iter().map(|leaf| leaf.as_ref().and_then(|l| found.get(l).cloned())).collect())
}

/// A kernel as `explain` shows it.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub tunables: &'static [(&'static str, u32)],
    /// Why it cannot take the problem.
    pub unsupported: Option<Unsupported>,
    /// Whether the table prefers it for such a problem.
    pub suits: bool,
    /// Whether it is the one that runs.
    pub selected: bool,
}

/// Every kernel that a device's backend has for a problem's op: which one runs, and why each other does not.
pub fn explain<O: Op>(op: &O, device: &Device, layouts: &[Option<Layout>]) -> Vec<Row> {
    with_device!(device, |B, d| {
        let caps = B::caps(d);
        let layout = |i: usize| layouts.get(i).copied().flatten();
        let chosen = select::<B, O>(op, caps, None, layout).map(|k| k.name);
        let row = |k: &'static Kernel<B, O>| Row {
            name: k.name,
            tunables: k.tunables,
            unsupported: fit(k, op, caps, &layout).err(),
            suits: (k.suits)(op, caps),
            selected: chosen == Some(k.name),
        };
        <O as Kernels<B>>::KERNELS.iter().map(row).collect()
    })
}

/// A problem of some op, for code that walks the catalog.
pub trait AnyOp: Send + Sync {
    fn name(&self) -> &'static str;
    fn text(&self) -> String;
    fn inputs(&self) -> Inputs;
    fn outputs(&self) -> Outputs;
    fn cost(&self) -> Cost;
    fn tolerance(&self) -> Tolerance;
    fn explain(&self, device: &Device, layouts: &[Option<Layout>]) -> Vec<Row>;
    fn run(&self, device: &Device, row: Option<&str>, inputs: &[Option<&Tensor>]) -> Result<Results>;
    fn run_into(
        &self,
        device: &Device,
        row: Option<&str>,
        inputs: &[Option<&Tensor>],
        outs: &mut [TensorMut<'_>],
    ) -> Result<()>;
    /// The same problem with its operands in the formats that a device's kernels read.
    fn for_device(&self, device: &Device) -> Box<dyn AnyOp>;
    /// The same problem with its operands as a model on that device would prepare them.
    fn prepared(&self, device: &Device) -> Box<dyn AnyOp>;
    /// The oracle.
    fn reference(&self, inputs: &[Option<Vec<f64>>], rows: Sample) -> Vec<Vec<f64>>;
    /// The plain computation in f32.
    fn plain(&self, inputs: &[Option<Vec<f32>>], rows: Sample) -> Vec<Vec<f32>>;
    /// The problem's text with the strides of operands that are not contiguous.
    fn call_text(&self, layouts: &[Option<Layout>]) -> String;
}

impl<O: Op> AnyOp for O {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn text(&self) -> String {
        self.to_string()
    }
    fn inputs(&self) -> Inputs {
        Op::inputs(self)
    }
    fn outputs(&self) -> Outputs {
        Op::outputs(self)
    }
    fn cost(&self) -> Cost {
        Op::cost(self)
    }
    fn tolerance(&self) -> Tolerance {
        Op::tolerance(self)
    }
    fn explain(&self, device: &Device, layouts: &[Option<Layout>]) -> Vec<Row> {
        explain(self, device, layouts)
    }
    fn run(&self, device: &Device, row: Option<&str>, inputs: &[Option<&Tensor>]) -> Result<Results> {
        run_row(self, device, row, inputs)
    }
    fn run_into(
        &self,
        device: &Device,
        row: Option<&str>,
        inputs: &[Option<&Tensor>],
        outs: &mut [TensorMut<'_>],
    ) -> Result<()> {
        run_row_into(self, device, row, inputs, outs)
    }
    fn for_device(&self, device: &Device) -> Box<dyn AnyOp> {
        Box::new(Op::for_device(self, device))
    }
    fn prepared(&self, device: &Device) -> Box<dyn AnyOp> {
        Box::new(Op::prepared(self, device))
    }
    fn reference(&self, inputs: &[Option<Vec<f64>>], rows: Sample) -> Vec<Vec<f64>> {
        Op::reference(self, inputs, rows)
    }
    fn plain(&self, inputs: &[Option<Vec<f32>>], rows: Sample) -> Vec<Vec<f32>> {
        Op::reference(self, inputs, rows)
    }
    fn call_text(&self, layouts: &[Option<Layout>]) -> String {
        call_text(self, &Op::inputs(self), |i| layouts.get(i).copied().flatten())
    }
}

/// A case of some op.
pub type AnyCase = Case<Box<dyn AnyOp>>;

/// An op of the catalog.
pub struct Entry {
    pub name: &'static str,
    pub cases: fn() -> Vec<AnyCase>,
    /// Reads a problem; ends in the op's own checks.
    pub parse: fn(&str) -> Result<Box<dyn AnyOp>>,
    /// The kernels of each backend: its name and the rows' names.
    pub kernels: fn() -> [(&'static str, Vec<&'static str>); 3],
}

pub(super) const fn entry<O: Op>() -> Entry {
    Entry {
        name: O::NAME,
        cases: || {
            let any = |c: Case<O>| -> AnyCase {
                let Case { class, name, problem } = c;
                Case { class, name, problem: Box::new(problem) }
            };
            O::cases().into_iter().map(any).collect()
        },
        parse: |text| Ok(Box::new(text.parse::<O>()?)),
        kernels: || {
            use crate::backend::{cpu::Cpu, cuda::Cuda, wgpu::Wgpu};
            fn names<B: Backend, O: Kernels<B>>() -> (&'static str, Vec<&'static str>) {
                (B::NAME, O::KERNELS.iter().map(|k| k.name).collect())
            }
            [names::<Cpu, O>(), names::<Wgpu, O>(), names::<Cuda, O>()]
        },
    }
}

impl AnyCase {
    /// Whether the case belongs into a run that affords this many floating-point operations (or bytes) per case.
    pub fn within(&self, budget: u64) -> bool {
        let cost = self.problem.cost();
        self.class == Class::Edge || cost.flops.max(cost.bytes()) <= budget
    }
}
