//! Holding a kernel's results against the oracle.

use super::operands::{Arrangement, Operands};
use crate::device::Device;
use crate::dtype::{DType, Elem};
use crate::error::{Error, Result};
use crate::ops::{AnyOp, Operand, Sample, Tolerance};
use crate::tensor::Tensor;
use crate::with_elem;

/// What a check found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The result that comes closest to its limit, or is farthest beyond it.
    pub result: &'static str,
    /// Its relative error in the 2-norm; for exact results the share of elements that differ.
    pub error: f64,
    /// What was allowed.
    pub allowed: f64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl Verdict {
    /// Whether every result is within its limit.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// One check of one kernel.
pub struct Checked<'a> {
    pub kernel: &'static str,
    pub arrangement: &'a Arrangement,
    /// What was found, or why the kernel did not run.
    pub outcome: Result<Verdict>,
}

impl Checked<'_> {
    /// Whether the operands, as they lie, are beyond what the device takes.
    pub fn too_large(&self) -> bool {
        matches!(self.outcome, Err(Error::TooLarge { .. }))
    }

    /// Why it failed, if it did; one that is [too large](Checked::too_large) did not.
    pub fn failure(&self) -> Option<String> {
        match &self.outcome {
            Err(Error::TooLarge { .. }) => None,
            Ok(verdict) => verdict.failure.clone(),
            Err(e) => Some(e.to_string()),
        }
    }
}

/// Runs every kernel that takes a problem (or the one named) on operands in every arrangement given, and tells each
/// result.
///
/// # Errors
/// There is no memory for the operands. What a kernel does wrong is told, not an error.
pub fn check_rows(
    problem: &dyn AnyOp,
    device: &Device,
    row: Option<&str>,
    arrangements: &[Arrangement],
    tell: &mut dyn FnMut(Checked<'_>),
) -> Result<()> {
    let mut rows = problem.explain(device, &[]);
    rows.retain(|r| r.unsupported.is_none() && row.is_none_or(|name| name == r.name));
    if rows.is_empty() {
        return Ok(());
    }
    let mut expected = None;
    for arrangement in arrangements {
        let operands = Operands::random(problem, device, 7, arrangement)?;
        let expected = expected.get_or_insert_with(|| Expected::new(problem, &operands.values));
        for row in &rows {
            let outcome = check(problem, device, Some(row.name), &operands, expected);
            tell(Checked { kernel: row.name, arrangement, outcome });
        }
    }
    Ok(())
}

/// Holds a kernel, by its name, against the reference: in the small cases of its op, and in some more problems. Gives how often.
#[cfg(test)]
pub fn check_kernel(op: &str, kernel: &str, more: &[&str]) -> usize {
    use super::{Call, Pattern, cases, parse_call};
    let of_op = Pattern::new(op, |name| name == op);
    let mut calls: Vec<Call> = cases(&of_op, &Pattern::any()).unwrap().into_iter().map(Call::from).collect();
    calls.retain(|call| call.problem.cost().flops < 10_000_000);
    calls.extend(more.iter().map(|problem| parse_call(problem).unwrap()));
    let (device, mut checked) = (Device::cpu().unwrap(), 0);
    for Call { problem, .. } in calls {
        let standard = Arrangement::standard(&*problem);
        check_rows(&*problem, &device, Some(kernel), &standard, &mut |done| {
            assert_eq!(done.failure(), None, "{}, {}", problem.text(), done.arrangement.name());
            checked += 1;
        })
        .unwrap();
    }
    checked
}

/// Floating-point operations that a reference may cost; larger problems are checked on a sample of their rows.
const REFERENCE_FLOPS: u64 = 150_000_000;

/// What a problem's results should be, for given values of its operands; serves every kernel and arrangement.
pub struct Expected {
    rows: Sample,
    /// By the f64 reference.
    want: Vec<Vec<f64>>,
    /// By the same loops in f32; empty where results must be exact.
    plain: Vec<Vec<f32>>,
}

impl Expected {
    /// Computes the reference, on a sample of the rows where all would take too long.
    pub fn new(problem: &dyn AnyOp, values: &[Option<Vec<f64>>]) -> Expected {
        let rows = Sample::one_in((problem.cost().flops / REFERENCE_FLOPS) as usize);
        let narrow = |v: &Vec<f64>| v.iter().map(|&x| x as f32).collect();
        let plain = match problem.tolerance() {
            Tolerance::Exact => Vec::new(),
            Tolerance::Plain(_) => {
                let values: Vec<Option<Vec<f32>>> = values.iter().map(|v| v.as_ref().map(narrow)).collect();
                problem.plain(&values, rows)
            }
        };
        Expected { rows, want: problem.reference(values, rows), plain }
    }
}

/// Runs a problem with one kernel (or the one that selection picks) and compares every result with the reference.
///
/// # Errors
/// The kernel cannot run; a wrong result is a [`Verdict`], not an error.
pub fn check(
    problem: &dyn AnyOp,
    device: &Device,
    row: Option<&str>,
    operands: &Operands,
    expected: &Expected,
) -> Result<Verdict> {
    let results = operands.run(problem, device, row)?;
    let mut worst: Option<Verdict> = None;
    for (i, o) in problem.outputs().iter().filter(|(_, o)| o.present) {
        let Some(tensor) = &results[i] else { continue };
        let plain = expected.plain.get(i).map(Vec::as_slice);
        let verdict = compare(o, problem.tolerance(), &values(tensor)?, &expected.want[i], plain, expected.rows);
        let worse = worst.as_ref().is_none_or(|w| {
            (verdict.failure.is_some(), verdict.error / verdict.allowed) > (w.failure.is_some(), w.error / w.allowed)
        });
        if worse {
            worst = Some(verdict);
        }
    }
    Ok(worst.expect("every op has a result"))
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    fn read<T: Elem>(tensor: &Tensor) -> Result<Vec<f64>> {
        Ok(tensor.to_vec::<T>()?.into_iter().map(T::to_f64).collect())
    }
    with_elem!(tensor.dtype(), T => read::<T>(tensor))
}

fn compare(
    o: &Operand,
    tolerance: Tolerance,
    got: &[f64],
    want: &[f64],
    plain: Option<&[f32]>,
    rows: Sample,
) -> Verdict {
    let mut verdict = Verdict { result: o.name, error: 0.0, allowed: 0.0, failure: None };
    if got.len() != want.len() {
        verdict.failure = Some(format!("`{}` has {} elements, the reference {}", o.name, got.len(), want.len()));
        return verdict;
    }
    let by_row = o.format == crate::Format::Plain && o.shape.len() > 1;
    let cols = if by_row { o.shape.rows().1.max(1) } else { 1 };
    // Where rows were sampled, a reference of NaN says that the element was not computed; integers have no other mark.
    let sampled = rows != Sample::ALL;
    let wanted = |i: &usize| match sampled && !o.dtype.is_float() {
        true => !want[*i].is_nan(),
        false => rows.wants(i / cols) && !(sampled && want[*i].is_nan()),
    };
    let factor = match tolerance {
        Tolerance::Plain(factor) if o.dtype.is_float() => factor,
        _ => {
            let differing: Vec<usize> =
                (0..got.len()).filter(wanted).filter(|&i| round(want[i], o.dtype) != got[i]).collect();
            verdict.error = differing.len() as f64 / got.len().max(1) as f64;
            verdict.failure = differing.first().map(|&i| {
                format!("`{}` differs at {} places, first at {i}: {} for {}", o.name, differing.len(), got[i], want[i])
            });
            return verdict;
        }
    };
    let (mut error, mut plain_error, mut norm) = (0.0, 0.0, 0.0);
    for i in (0..got.len()).filter(wanted) {
        // Infinities and NaN must be where the reference has them; a value beyond the dtype's range is an infinity.
        let expected = round(want[i], o.dtype);
        if !expected.is_finite() || !got[i].is_finite() {
            if expected != got[i] && !(expected.is_nan() && got[i].is_nan()) {
                verdict.failure = Some(format!("`{}` at {i}: {} for {}", o.name, got[i], want[i]));
                verdict.error = f64::INFINITY;
                return verdict;
            }
            continue;
        }
        let p = plain.map_or(want[i], |p| round(f64::from(p[i]), o.dtype));
        error += (got[i] - want[i]).powi(2);
        plain_error += (p - want[i]).powi(2);
        norm += want[i] * want[i];
    }
    let scale = if norm > 0.0 { norm.sqrt() } else { 1.0 };
    verdict.error = error.sqrt() / scale;
    // The floor is one rounding of the result: the plain computation may happen to be exact where another is not.
    verdict.allowed = factor * plain_error.sqrt() / scale + o.dtype.epsilon();
    if verdict.error > verdict.allowed {
        verdict.failure = Some(format!("`{}`: error {:.2e}, allowed {:.2e}", o.name, verdict.error, verdict.allowed));
    }
    verdict
}

fn round(x: f64, dtype: DType) -> f64 {
    // By the trait's name: the 16-bit types have a method of their own, which rounds wrongly.
    with_elem!(dtype, T => if dtype.is_float() { Elem::to_f64(<T as Elem>::from_f64(x)) } else { x })
}
