//! Operands for checks and benches: random, reproducible, and arranged as asked.

use crate::device::Device;
use crate::dtype::{DType, Elem, Format, Quant};
use crate::error::{Error, Result};
use crate::layout::{Layout, MAX_RANK, Shape, Takes};
use crate::ops::{self, AnyOp, Fill, Operand, Results, Row};
use crate::random::{Random, fill_on_all_cores};
use crate::tensor::{Tensor, TensorMut};
use crate::with_elem;

/// How operands lie in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Arrangement {
    /// Row-major without gaps.
    #[default]
    Contiguous,
    /// Each operand as badly as the kernel's row accepts it: rows at a distance, or dimensions in reverse order, with
    /// other values in the gaps.
    Scattered(Vec<Takes>),
    /// Strides by operand, as a printed call names them.
    Strides(Vec<Option<Vec<usize>>>),
}

/// The operands of one problem.
pub struct Operands {
    /// For `run`.
    pub tensors: Vec<Option<Tensor>>,
    /// The same values in row-major order of the logical shape, for references; behind them those that results in place
    /// begin with.
    pub values: Vec<Option<Vec<f64>>>,
    /// By result: what one in place begins with.
    initial: Vec<Option<Tensor>>,
}

impl Arrangement {
    /// What a kernel is checked on: no gaps, rows at a distance, and dimensions in reverse order. (A kernel that does
    /// not take one of them gets a copy, as everywhere.)
    pub fn standard(problem: &dyn AnyOp) -> [Arrangement; 3] {
        let operands = problem.inputs().iter().count();
        [Takes::Contiguous, Takes::Rows, Takes::Strided].map(|takes| match takes {
            Takes::Contiguous => Arrangement::Contiguous,
            takes => Arrangement::Scattered(vec![takes; operands]),
        })
    }

    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Arrangement::Contiguous => "contiguous",
            Arrangement::Scattered(takes) if takes.contains(&Takes::Strided) => "strided",
            Arrangement::Scattered(_) => "rows apart",
            Arrangement::Strides(_) => "as given",
        }
    }

    /// How operand `i` of a problem lies.
    fn layout(&self, i: usize, o: &Operand) -> Result<Layout> {
        let plain = Layout::contiguous(o.shape);
        match self {
            _ if o.format != Format::Plain => Ok(plain),
            Arrangement::Contiguous => Ok(plain),
            Arrangement::Scattered(takes) => Ok(scatter(o.shape, takes.get(i).copied().unwrap_or_default())),
            Arrangement::Strides(strides) => match strides.get(i).and_then(Option::as_ref) {
                Some(strides) => strided(o, strides),
                None => Ok(plain),
            },
        }
    }
}

impl Operands {
    /// Random operands; the same for the same problem and seed.
    ///
    /// # Errors
    /// Memory is short, or strides do not fit the operand.
    pub fn random(problem: &dyn AnyOp, device: &Device, seed: u64, arrangement: &Arrangement) -> Result<Operands> {
        afford(problem, arrangement)?;
        let inputs = problem.inputs();
        let make = |place: usize, o: &Operand, layout: Layout| {
            let mut random = Random::new(seed.wrapping_mul(0x100_0003).wrapping_add(place as u64));
            match o.format.quant() {
                Some(quant) => quantised(device, o, quant, &mut random),
                None => with_elem!(o.dtype, T => operand::<T>(device, o, &mut random, layout)),
            }
        };
        let mut out = Operands { tensors: Vec::new(), values: Vec::new(), initial: Vec::new() };
        for (i, o) in inputs.iter() {
            let made = o.present.then(|| make(i, o, arrangement.layout(i, o)?)).transpose()?;
            let (tensor, values) = made.unzip();
            out.tensors.push(tensor);
            out.values.push(values);
        }
        for (i, o) in problem.outputs().iter() {
            let updated = o.present && o.in_place;
            let made = updated.then(|| make(out.tensors.len() + i, o, Layout::contiguous(o.shape))).transpose()?;
            let (tensor, values) = made.unzip();
            out.initial.push(tensor);
            if o.in_place {
                out.values.push(values);
            }
        }
        Ok(out)
    }

    /// Runs a problem with one kernel (or the one that selection picks); results in place begin with their contents.
    ///
    /// # Errors
    /// The kernel cannot run.
    pub fn run(&self, problem: &dyn AnyOp, device: &Device, row: Option<&str>) -> Result<Results> {
        match self.targets(problem, device)? {
            None => problem.run(device, row, &self.refs()),
            Some(mut targets) => {
                self.run_into(problem, device, row, &mut targets)?;
                Ok(targets)
            }
        }
    }

    /// Where a problem with results in place writes: new tensors, with the contents to begin with. `None` if it has none.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn targets(&self, problem: &dyn AnyOp, device: &Device) -> Result<Option<Results>> {
        if self.initial.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut targets = Results::default();
        for (i, o) in problem.outputs().iter().filter(|(_, o)| o.present) {
            targets[i] = Some(match &self.initial[i] {
                Some(initial) => Tensor::from_bytes(device, &initial.to_bytes()?, o.dtype, &o.shape)?,
                None => Tensor::empty(device, o.dtype, o.format, o.shape)?,
            });
        }
        Ok(Some(targets))
    }

    /// Runs a problem into [`targets`](Operands::targets).
    ///
    /// # Errors
    /// The kernel cannot run.
    pub(super) fn run_into(
        &self,
        problem: &dyn AnyOp,
        device: &Device,
        row: Option<&str>,
        targets: &mut Results,
    ) -> Result<()> {
        let mut outs: Vec<TensorMut<'_>> = targets.iter_mut().flatten().map(Tensor::as_mut).collect::<Result<_>>()?;
        problem.run_into(device, row, &self.refs(), &mut outs)
    }

    /// As `run` takes them.
    pub fn refs(&self) -> Vec<Option<&Tensor>> {
        self.tensors.iter().map(Option::as_ref).collect()
    }

    /// How they lie.
    pub fn layouts(&self) -> Vec<Option<Layout>> {
        self.tensors.iter().map(|t| t.as_ref().filter(|t| t.format() == Format::Plain).map(|t| *t.layout())).collect()
    }
}

/// Fails where a problem cannot be checked in the memory that is there: values are held in their dtype, in f64 and in
/// f32. What a text asks for is not allocated by trying.
fn afford(problem: &dyn AnyOp, arrangement: &Arrangement) -> Result<()> {
    let mut need = 0u64;
    for (i, o) in problem.inputs().iter().filter(|(_, o)| o.present) {
        let bytes = (arrangement.layout(i, o)?.span() as u64).saturating_mul(o.dtype.bytes() as u64);
        need = need.saturating_add(bytes).saturating_add(host_bytes(o));
    }
    for (_, o) in problem.outputs().iter().filter(|(_, o)| o.present) {
        // One in place is held as it begins, too.
        need = need.saturating_add(host_bytes(o).saturating_mul(1 + u64::from(o.in_place)));
    }
    if need > available_bytes() {
        let device = "the host, for operands and references".into();
        return Err(Error::Memory { device, bytes: usize::try_from(need).unwrap_or(usize::MAX) });
    }
    Ok(())
}

fn host_bytes(o: &Operand) -> u64 {
    let each = o.dtype.bytes() + size_of::<f64>() + size_of::<f32>();
    (o.elements().max(o.shape.count()) as u64).saturating_mul(each as u64)
}

/// Memory that Linux says may be had without swapping; elsewhere a guess.
fn available_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(16 << 30, |k| k << 10)
}

fn operand<T: Elem>(device: &Device, o: &Operand, random: &mut Random, layout: Layout) -> Result<(Tensor, Vec<f64>)> {
    let logical = filled::<T>(o, random);
    let values = logical.iter().map(|v| v.to_f64()).collect();
    let tensor = place(device, &logical, layout)?;
    Ok((if o.format == Format::Plain { tensor } else { ops::pack_rhs::pack(&tensor, o.format)? }, values))
}

/// Quantised blocks of uniform integers, and what they stand for.
fn quantised(device: &Device, o: &Operand, quant: Quant, random: &mut Random) -> Result<(Tensor, Vec<f64>)> {
    let (rows, k) = o.shape.rows();
    let mut bytes = vec![0u8; rows * quant.row_bytes(k)];
    bytes.iter_mut().for_each(|b| *b = (random.next() >> 56) as u8);
    // Where each block has its f16 factors, and of what size they are for values of mean 0 and deviation 1.
    let factors: &[(usize, f64)] = match quant {
        Quant::Q8_0 => &[(0, 1.0 / 74.0)],
        Quant::Q4_0 => &[(0, 1.0 / 4.6)],
        Quant::Q4_1 => &[(0, 1.0 / 4.6), (2, -7.5 / 4.6)],
        Quant::Q4_K => &[(0, 1.0 / 4.6 / 32.0), (2, 7.5 / 4.6 / 32.0)],
        Quant::Q6_K => &[(208, 1.0 / 18.5 / 74.0)],
    };
    for block in bytes.chunks_exact_mut(quant.block_bytes()) {
        for &(at, size) in factors {
            let factor = half::f16::from_f64(size * (0.75 + 0.5 * random.unit()));
            block[at..at + 2].copy_from_slice(&factor.to_le_bytes());
        }
    }
    let values = match o.fill {
        Fill::Bytes => bytes.iter().map(|&b| f64::from(b)).collect(),
        _ => {
            let mut values = vec![0f32; rows * k];
            ops::quant::dequantise(quant, &bytes, &mut values);
            values.into_iter().map(f64::from).collect()
        }
    };
    let mut dims = o.shape.to_vec();
    if let Some(last) = dims.last_mut() {
        *last = quant.row_bytes(k);
    }
    let blocks = Tensor::from_bytes(device, &bytes, DType::U8, &dims)?.as_blocks(quant)?;
    Ok((if o.format == Format::Blocks(quant) { blocks } else { ops::pack_rhs::pack(&blocks, o.format)? }, values))
}

fn filled<T: Elem>(o: &Operand, random: &mut Random) -> Vec<T> {
    let count = o.shape.count();
    match o.fill {
        Fill::Normal | Fill::Bytes if T::DTYPE == DType::U8 => {
            drawn(count, 1, random, |random| T::from_f64((random.next() >> 56) as f64))
        }
        Fill::Normal | Fill::Bytes => drawn(count, 2, random, |random| T::from_f64(random.normal())),
        Fill::Affine { scale, offset } => {
            drawn(count, 2, random, |random| T::from_f64(random.normal() * scale as f64 + offset as f64))
        }
        Fill::Below(limit) => drawn(count, 1, random, |random| T::from_f64(random.below(limit) as f64)),
        Fill::Ascending(limit) => {
            let (rows, cols) = o.shape.rows();
            let ascending = |_| {
                let mut row: Vec<u32> = (0..cols).map(|_| random.below(limit)).collect();
                row.sort_unstable();
                row.into_iter().map(|v| T::from_f64(v as f64))
            };
            (0..rows).flat_map(ascending).collect()
        }
    }
}

/// Values that take `draws` numbers of the stream each.
fn drawn<T: Elem>(count: usize, draws: usize, random: &mut Random, value: impl Fn(&mut Random) -> T + Sync) -> Vec<T> {
    let mut out = vec![T::from_f64(0.0); count];
    let stream = random.clone();
    *random = stream.after((count * draws) as u64);
    fill_on_all_cores(&mut out, |start, part| {
        let mut stream = stream.after((start * draws) as u64);
        part.iter_mut().for_each(|x| *x = value(&mut stream));
    });
    out
}

/// The worst layout that a kernel accepts.
fn scatter(shape: Shape, takes: Takes) -> Layout {
    let mut layout = Layout::contiguous(shape);
    let rank = shape.len();
    match takes {
        Takes::Contiguous => {}
        Takes::Rows if rank > 1 => {
            let mut step = shape[rank - 1] + 3;
            for d in (0..rank - 1).rev() {
                layout.strides[d] = step;
                step = step * shape[d].max(1) + 1;
            }
            layout.offset = 5;
        }
        Takes::Rows => layout.offset = 5,
        Takes::Strided => {
            let mut step = 2;
            for (d, &n) in shape.iter().enumerate() {
                layout.strides[d] = step;
                step *= n.max(1);
            }
            layout.offset = 3;
        }
    }
    layout
}

fn strided(o: &Operand, strides: &[usize]) -> Result<Layout> {
    let fail = |why: &str| Error::Parse { what: "strides", text: format!("{}:{strides:?}", o.name), why: why.into() };
    if strides.len() != o.shape.len() {
        return Err(fail("as many strides as dimensions are needed"));
    }
    let mut layout = Layout { shape: o.shape, strides: [0; MAX_RANK], offset: 0 };
    layout.strides[..strides.len()].copy_from_slice(strides);
    let span =
        o.shape.iter().zip(strides).try_fold(1usize, |n, (&d, &s)| n.checked_add(d.saturating_sub(1).checked_mul(s)?));
    if span.is_none_or(|n| n > 1 << 32) {
        return Err(fail("they reach too far"));
    }
    Ok(layout)
}

/// A tensor with the values in the places that the layout gives them, and a value that spoils any sum in all others.
fn place<T: Elem>(device: &Device, values: &[T], layout: Layout) -> Result<Tensor> {
    if layout.is_contiguous() && layout.offset == 0 {
        return Tensor::from_slice(device, values, &layout.shape);
    }
    let mut all = vec![T::from_f64(f64::NAN); layout.offset + layout.span()];
    let mut index = [0usize; MAX_RANK];
    for &v in values {
        let at: usize = index.iter().zip(layout.strides).map(|(i, s)| i * s).sum();
        all[layout.offset + at] = v;
        for d in (0..layout.shape.len()).rev() {
            index[d] += 1;
            if index[d] < layout.shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    let len = all.len();
    Ok(Tensor::from_slice(device, &all, &[len])?.with_layout(layout))
}

/// A problem with the arrangement of its operands, as a profile prints it.
pub struct Call {
    /// The name shared with other libraries' benches, or nothing.
    pub case: &'static str,
    pub problem: Box<dyn AnyOp>,
    pub arrangement: Arrangement,
    /// A problem whose first operand is this one's first result, timed with it: two launches here, one call elsewhere.
    pub then: Option<Box<dyn AnyOp>>,
}

impl Call {
    /// How the operands lie; `None` for those that are absent or packed.
    ///
    /// # Errors
    /// Strides do not fit an operand.
    pub fn layouts(&self) -> Result<Vec<Option<Layout>>> {
        let inputs = self.problem.inputs();
        let plain = |o: &Operand| o.present && o.format == Format::Plain;
        inputs.iter().map(|(i, o)| plain(o).then(|| self.arrangement.layout(i, o)).transpose()).collect()
    }

    /// The call as text.
    ///
    /// # Errors
    /// As [`layouts`](Call::layouts).
    pub fn text(&self) -> Result<String> {
        let then = self.then.as_ref().map_or(String::new(), |then| format!(" then {}", then.text()));
        Ok(self.problem.call_text(&self.layouts()?) + &then)
    }

    /// The name of the dtype that the call goes by, as other libraries' benches have it: that of quantised weights, else the
    /// first operand's.
    pub fn dtype(&self) -> &'static str {
        let inputs = self.then.as_ref().unwrap_or(&self.problem).inputs();
        let quant = inputs[1].filter(|o| o.present).and_then(|o| o.format.quant());
        quant.map_or_else(|| inputs[0].map_or(DType::F32, |o| o.dtype).name(), Quant::name)
    }

    /// The kernel that runs: the one named, or the one that selection picks (where none takes the operands as they lie,
    /// the one that runs after a copy). Of two problems that of the second.
    ///
    /// # Errors
    /// There is none.
    pub fn kernel(&self, device: &Device, row: Option<&str>) -> Result<&'static str> {
        let (runs, layouts) = match &self.then {
            Some(then) => (then, Vec::new()),
            None => (&self.problem, self.layouts()?),
        };
        let problem = runs.text();
        let rows = runs.explain(device, &[]);
        if let Some(name) = row {
            let fail = |why: String| {
                Err(Error::Row { problem: problem.clone(), row: name.into(), device: device.backend().into(), why })
            };
            return match rows.iter().find(|r| r.name == name) {
                None => fail(format!("there is no such kernel; known are {}", names(&rows))),
                Some(Row { unsupported: Some(why), .. }) => fail(why.to_string()),
                Some(row) => Ok(row.name),
            };
        }
        let lying = runs.explain(device, &layouts);
        let chosen = lying.iter().find(|r| r.selected).or(rows.iter().find(|r| r.selected));
        let unable = |r: &Row| Some((r.name, r.unsupported?));
        chosen.map(|r| r.name).ok_or_else(|| Error::NoKernel {
            problem,
            device: device.backend().into(),
            rows: rows.iter().filter_map(unable).collect(),
        })
    }
}

fn names(rows: &[Row]) -> String {
    rows.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")
}

/// Reads a call, or two that are joined by ` then `; the second takes what the first gives, and has no strides.
///
/// # Errors
/// As [`parse_call`].
pub fn parse_calls(text: &str) -> Result<Call> {
    let Some((first, then)) = text.split_once(" then ") else { return parse_call(text) };
    let then = parse_call(then)?;
    match then.arrangement {
        Arrangement::Contiguous => Ok(Call { then: Some(then.problem), ..parse_call(first)? }),
        _ => Err(Error::parse("a second problem", text, "its operands have no strides")),
    }
}

/// Reads `op(field=value,…) operand:strides=…x… …`.
///
/// # Errors
/// Unknown op, field or operand, or a value that does not parse or contradicts the others.
pub fn parse_call(text: &str) -> Result<Call> {
    let end = text.find(')').map_or(text.len(), |i| i + 1);
    let (head, tail) = text.split_at(end);
    let problem = ops::parse(head)?;
    let inputs = problem.inputs();
    let mut strides: Vec<Option<Vec<usize>>> = vec![None; inputs.iter().count()];
    for word in tail.split_whitespace() {
        let fail = |why: &str| Error::parse("an operand's strides", word, why);
        let (name, list) = word.split_once(":strides=").ok_or_else(|| fail("expected operand:strides=4096x1"))?;
        let place = inputs.iter().find(|(_, o)| o.name == name && o.present);
        let (i, o) = place.ok_or_else(|| fail("the problem has no such operand"))?;
        let list: std::result::Result<Vec<usize>, _> = list.split('x').map(str::parse).collect();
        let list = list.map_err(|_| fail("strides are numbers joined by x"))?;
        strided(o, &list)?;
        strides[i] = Some(list);
    }
    let arrangement =
        if strides.iter().all(Option::is_none) { Arrangement::Contiguous } else { Arrangement::Strides(strides) };
    Ok(Call { case: "", problem, arrangement, then: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_operands_are_the_stream_in_order() {
        let (mut random, mut serial) = (Random::new(3), Random::new(3));
        let values = filled::<f32>(&Operand::new("x", DType::F32, &[3, 20_001]), &mut random);
        assert!(values.iter().all(|&x| x == serial.normal() as f32));
        assert_eq!(random.next(), serial.next());
    }
}
