//! Elementwise functions on the CPU.
//!
//! Layout: up to three operands of one dtype with any strides (0 where they repeat), `out` contiguous.
//!
//! Algorithm: neighbouring dimensions that every operand walks in one run are merged, so that contiguous operands become
//! one long row. The result is cut into parts of `PART` elements for the threads and those into blocks of at most
//! `BLOCK`; where rows are long a block ends with its row. Operands that are runs and have the result's dtype are read
//! where they lie; else each is fetched as f32: a run of f32 is used where it lies, everything else is converted, repeated
//! or gathered into a buffer. The function runs over two or four vectors at a time and the result is narrowed; beyond the caches
//! it is streamed (all three with AVX-512 alone: see `Simd::IS_ROOMY`). So there are two loops per function, result and instruction
//! set, not one per pair of dtypes and way of lying.
//!
//! Budget: three operand buffers and a result of 4 KiB each in L1. Bound: memory; the widest functions cost about 25
//! instructions per vector, and rounding to bf16 up to six. One vector at a time, chains of products leave the units idle. The gelus,
//! whose quotients kept the units that multiply busy (8 and 9.4 cycles a vector on Zen 5), look cubics up in tables: 5.2 cycles, where
//! a copy in L3 takes 4.5.
//!
//! Operands are asked for 4 KiB ahead, in L1: from L3, gelu of bf16 2048 x 4096 takes 1.50 ms for 2.23, of f32 2.60 for 2.66, sums
//! nothing less (Xeon, family 6, model 167, one thread). Requests for L2 do the same there, but make sums in L2 a fifth longer; lines
//! of the result asked for as well: 2.83 ms.

use super::{Elementwise, Kind};
use crate::backend::cpu::simd::{Lane, Simd, Wide, fetch_beyond, math, stream_end, widen};
use crate::backend::cpu::{Aligned, Caps, Cpu};
use crate::backend::{Backend, Kernel, Kernels, Launch};
use crate::dtype::DType;
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::walk::Walk;
use crate::ops::with_float;
use crate::{isa_rows, simd_fn};
use half::{bf16, f16};

impl Kernels<Cpu> for Elementwise {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        isa_rows![("elementwise", supports, launch).takes(&[Takes::Strided; 3])];
}

/// Elements of a part: 64 KiB of f32.
const PART: usize = 16384;
/// Elements of a block.
const BLOCK: usize = 1024;
/// Vectors under way at a time.
const WIDTH: usize = 4;
/// How far ahead operands are asked for.
const AHEAD_BYTES: usize = 4096;
/// Rows of at least this many elements are walked one at a time.
const LONG_ROW: usize = 256;

fn supports<S: Simd>(_: &Elementwise, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Elementwise>, op: &Elementwise, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.out, O => if S::IS_ROOMY && op.dtype == op.out {
        parts::<S, O, O>(s, op, l)
    } else {
        parts::<S, f32, O>(s, op, l)
    });
    Ok(())
}

/// `I` is the operands' type, or f32 where they are none that a block reads as it lies.
fn parts<S: Simd, I: Lane, O: Lane>(s: S, op: &Elementwise, l: &mut Launch<'_, Cpu>) {
    if op.shape.count() == 0 {
        return;
    }
    let n = op.kind.operands();
    let walk = Walk::new(std::array::from_fn(|i| (i < n).then(|| *l.layout(i))));
    let sources: [Source<'_>; 3] = std::array::from_fn(|i| if i < n { source(op.dtype, l, i) } else { Source::None });
    // Operands that are runs as long as the result's rows.
    let runs: Option<[&[I]; 3]> = (op.dtype == I::DTYPE && (0..n).all(|i| walk.strides[i][walk.rank - 1] == 1))
        .then(|| std::array::from_fn(|i| if i < n { l.input::<I>(i) } else { &[] }));
    let Some(out) = l.output::<O>(0) else { return };
    let streams = Cpu::caps(l.device).streams(size_of_val(out));
    let call = Call { kind: op.kind, numbers: [op.a.0, op.b.0], streams };
    l.pool().chunks_mut(out, PART, |part, out| {
        let mut buffers = None;
        let (mut done, first) = (0, part * PART);
        while done < out.len() {
            let at = first + done;
            let (row, column) = (at / walk.inner, at % walk.inner);
            let in_row = walk.inner - column;
            // What is read where it lies needs no buffers.
            let longest = if runs.is_some() { in_row } else { in_row.min(BLOCK) };
            let len = if walk.inner >= LONG_ROW { longest } else { BLOCK }.min(out.len() - done);
            let out = &mut out[done..done + len];
            match runs.filter(|_| len <= in_row) {
                Some(runs) => {
                    let run = |i: usize| {
                        let at = walk.row(i, row) + column;
                        &runs[i][at..at + len]
                    };
                    let operands = std::array::from_fn(|i| if i < n { run(i) } else { &[] });
                    block::<S, I, O>(s, call, operands, out);
                }
                None => {
                    let mut buffers = buffers.get_or_insert(Aligned([[0f32; BLOCK]; 3])).0.iter_mut();
                    let operands = std::array::from_fn(|i| {
                        let buffer = buffers.next().expect("as many as operands");
                        sources[i].fetch(s, &walk, i, at, &mut buffer[..len])
                    });
                    block::<S, f32, O>(s, call, operands, out);
                }
            }
            done += len;
        }
        if streams {
            stream_end();
        }
    });
}

/// An operand's elements.
enum Source<'a> {
    None,
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

fn source<'a>(dtype: DType, l: &Launch<'a, Cpu>, i: usize) -> Source<'a> {
    match dtype {
        DType::F16 => Source::F16(l.input(i)),
        DType::BF16 => Source::Bf16(l.input(i)),
        _ => Source::F32(l.input(i)),
    }
}

impl<'a> Source<'a> {
    /// The elements `first..first + buffer.len()` of the result's order as f32, where they lie if possible.
    fn fetch<'b, S: Simd>(&self, s: S, walk: &Walk, i: usize, first: usize, buffer: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match *self {
            Source::None => return &[],
            Source::F32(x) => {
                let (row, column) = (first / walk.inner, first % walk.inner);
                if walk.strides[i][walk.rank - 1] == 1 && column + buffer.len() <= walk.inner {
                    let at = walk.row(i, row) + column;
                    return &x[at..at + buffer.len()];
                }
                gather(s, x, walk, i, first, buffer);
            }
            Source::F16(x) => gather(s, x, walk, i, first, buffer),
            Source::Bf16(x) => gather(s, x, walk, i, first, buffer),
        }
        buffer
    }
}

/// Fills a buffer run by run; a run lies in one row.
fn gather<S: Simd, T: Lane>(s: S, x: &[T], walk: &Walk, i: usize, first: usize, mut buffer: &mut [f32]) {
    let step = walk.strides[i][walk.rank - 1];
    let (mut row, mut column) = (first / walk.inner, first % walk.inner);
    while !buffer.is_empty() {
        let run;
        (run, buffer) = buffer.split_at_mut((walk.inner - column).min(buffer.len()));
        let at = walk.row(i, row) + column * step;
        match step {
            0 => run.fill(x[at].to_f64() as f32),
            1 => widen(s, &x[at..at + run.len()], run),
            _ => {
                for (j, v) in run.iter_mut().enumerate() {
                    *v = x[at + j * step].to_f64() as f32;
                }
            }
        }
        (row, column) = (row + 1, 0);
    }
}

/// What is done to elements, wherever they lie.
#[derive(Clone, Copy)]
struct Call {
    kind: Kind,
    numbers: [f32; 2],
    streams: bool,
}

simd_fn! {
    /// The function over a block: wide vectors, and what is left in single ones.
    fn block[S, I: Lane, O: Lane](s, call: Call, operands: [&[I]; 3], out: &mut [O]) {
        let whole = match call.kind {
            _ if !S::IS_ROOMY => 0,
            // Their tables take eight registers: with four vectors they take 12 % longer.
            Kind::GeluErf | Kind::GeluTanh => call.apply_wide::<S, I, O, 2>(s, operands, out),
            _ => call.apply_wide::<S, I, O, WIDTH>(s, operands, out),
        };
        Call { streams: false, ..call }.apply(s, operands.map(|x| &x[whole.min(x.len())..]), &mut out[whole..]);
    }
}

impl Call {
    /// What fills groups of `K` vectors; returns its length.
    #[inline(always)]
    fn apply_wide<S: Simd, I: Lane, O: Lane, const K: usize>(self, s: S, operands: [&[I]; 3], out: &mut [O]) -> usize {
        let whole = out.len() - out.len() % (K * S::LANES);
        let operands = operands.map(|x| &x[..whole.min(x.len())]);
        self.apply(Wide::<S, K>(s), operands, &mut out[..whole]);
        whole
    }

    /// The loops are a macro's and not a closure's: a closure that the compiler chose not to inline would be compiled without
    /// the instruction set.
    #[inline(always)]
    fn apply<S: Simd, I: Lane, O: Lane>(self, s: S, operands: [&[I]; 3], out: &mut [O]) {
        let Call { kind, numbers, streams } = self;
        let [x, y, z] = operands;
        let body = out.len() - out.len() % S::LANES;
        macro_rules! each {
        (|$($v:ident = $from:ident),+| $e:expr) => {{
            for at in (0..body).step_by(S::LANES) {
                $(
                    let from = &$from[at..at + S::LANES];
                    fetch_beyond(from, AHEAD_BYTES);
                    let $v = I::load(s, from);
                )+
                let out = &mut out[at..at + S::LANES];
                if streams { O::stream(s, $e, out) } else { O::store(s, $e, out) }
            }
            if body < out.len() {
                $(let $v = I::load_part(s, &$from[body..]);)+
                O::store_part(s, $e, &mut out[body..]);
            }
        }};
    }
        let (one, zero) = (s.splat(1.0), s.zero());
        let (a, b) = (s.splat(numbers[0]), s.splat(numbers[1]));
        match kind {
            Kind::Neg => each!(|v = x| s.mul(v, s.splat(-1.0))),
            Kind::Abs => each!(|v = x| s.abs(v)),
            Kind::Sqrt => each!(|v = x| s.sqrt(v)),
            Kind::Rsqrt => each!(|v = x| s.div(one, s.sqrt(v))),
            Kind::Recip => each!(|v = x| s.div(one, v)),
            Kind::Square => each!(|v = x| s.mul(v, v)),
            Kind::Exp => each!(|v = x| math::exp(s, v)),
            Kind::Ln => each!(|v = x| math::ln(s, v)),
            Kind::Sin => each!(|v = x| math::sin(s, v)),
            Kind::Cos => each!(|v = x| math::cos(s, v)),
            Kind::Tanh => each!(|v = x| math::tanh(s, v)),
            Kind::Sigmoid => each!(|v = x| math::sigmoid(s, v)),
            Kind::Relu => each!(|v = x| s.max(zero, v)),
            Kind::Silu => each!(|v = x| math::silu(s, v)),
            Kind::GeluErf => each!(|v = x| math::gelu_erf(s, v)),
            Kind::GeluTanh => each!(|v = x| math::gelu_tanh(s, v)),
            Kind::QuickGelu => each!(|v = x| math::quick_gelu(s, v)),
            Kind::Affine => each!(|v = x| s.fma(v, a, b)),
            Kind::Clamp => each!(|v = x| s.min(b, s.max(a, v))),
            Kind::Add => each!(|v = x, w = y| s.add(v, w)),
            Kind::Sub => each!(|v = x, w = y| s.sub(v, w)),
            Kind::Mul => each!(|v = x, w = y| s.mul(v, w)),
            Kind::Div => each!(|v = x, w = y| s.div(v, w)),
            Kind::Max => each!(|v = x, w = y| math::maximum(s, v, w)),
            Kind::Min => each!(|v = x, w = y| math::minimum(s, v, w)),
            Kind::MulAdd => each!(|v = x, w = y, u = z| s.fma(v, w, u)),
            Kind::IfLess => each!(|v = x, w = y, u = z| s.select_lt(v, w, u, zero)),
            Kind::SigmoidGrad => each!(|v = x, g = y| s.mul(s.mul(v, s.sub(one, v)), g)),
            Kind::TanhGrad => each!(|v = x, g = y| s.mul(s.fnma(v, v, one), g)),
            Kind::SiluGrad => each!(|v = x, g = y| s.mul(math::silu_slope(s, v), g)),
            Kind::GeluErfGrad => each!(|v = x, g = y| s.mul(math::gelu_erf_slope(s, v), g)),
            Kind::GeluTanhGrad => each!(|v = x, g = y| s.mul(math::gelu_tanh_slope(s, v), g)),
            Kind::QuickGeluGrad => each!(|v = x, g = y| s.mul(math::quick_gelu_slope(s, v), g)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::elementwise::*;
    use crate::{DType, Device, Tensor};

    #[test]
    fn operands_repeat_as_in_numpy() {
        let d = Device::cpu_with_threads(2).unwrap();
        let values = |n: usize| (0..n).map(|i| i as f32 * 0.5 - 3.0).collect::<Vec<_>>();
        for (sx, sy, out) in [
            (vec![3, 700], vec![700], vec![3, 700]),
            (vec![3, 1], vec![1, 400], vec![3, 400]),
            (vec![2, 1, 5], vec![3, 1], vec![2, 3, 5]),
            (vec![], vec![7, 3], vec![7, 3]),
            (vec![40, 300], vec![40, 1], vec![40, 300]),
            (vec![0, 3], vec![1, 3], vec![0, 3]),
        ] {
            let x = Tensor::from_slice(&d, &values(sx.iter().product()), &sx).unwrap();
            let y = Tensor::from_slice(&d, &values(sy.iter().product()), &sy).unwrap();
            let z = sub(&x, &y).unwrap();
            assert_eq!(z.shape(), out);
            let at = |t: &Tensor| t.broadcast(&out).unwrap().contiguous().unwrap().to_vec::<f32>().unwrap();
            let want: Vec<f32> = at(&x).iter().zip(at(&y)).map(|(x, y)| x - y).collect();
            assert_eq!(z.to_vec::<f32>().unwrap(), want);
        }
    }

    #[test]
    fn wrong_operands_are_refused() {
        let d = Device::cpu_with_threads(1).unwrap();
        let x = Tensor::zeros(&d, DType::F32, &[2, 3]).unwrap();
        assert!(add(&x, &Tensor::zeros(&d, DType::F32, &[2]).unwrap()).is_err());
        assert!(add(&x, &Tensor::zeros(&d, DType::BF16, &[2, 3]).unwrap()).is_err());
        assert!(neg(&Tensor::zeros(&d, DType::I32, &[2]).unwrap()).is_err());
        assert!(clamp(&x, 1.0, 0.0).is_err() && clamp(&x, f32::NAN, 0.0).is_err());
        assert!("elementwise(kind=neg,a=1)".parse::<Elementwise>().is_err());
        assert!("elementwise(shape=4294967296x4294967296)".parse::<Elementwise>().is_err());
        assert!(apply(Kind::Add, &[&x], [0.0; 2], DType::F32).is_err());
    }

    #[test]
    fn nan_stays() {
        let d = Device::cpu_with_threads(1).unwrap();
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let x = Tensor::from_slice(&d, &[nan, 1.0, inf, -inf, nan], &[5]).unwrap();
        let y = Tensor::from_slice(&d, &[1.0, nan, -inf, inf, nan], &[5]).unwrap();
        let bits = |t: Tensor| t.to_vec::<f32>().unwrap().into_iter().map(|v| v.to_string()).collect::<Vec<_>>();
        assert_eq!(bits(maximum(&x, &y).unwrap()), ["NaN", "NaN", "inf", "inf", "NaN"]);
        assert_eq!(bits(minimum(&x, &y).unwrap()), ["NaN", "NaN", "-inf", "-inf", "NaN"]);
        assert_eq!(bits(clamp(&x, -2.0, 2.0).unwrap()), ["NaN", "1", "2", "-2", "NaN"]);
        assert_eq!(bits(relu(&x).unwrap()), ["NaN", "1", "inf", "0", "NaN"]);
        assert_eq!(bits(if_less(&x, &y, &y).unwrap()), ["0", "0", "0", "inf", "0"]);
        assert_eq!(bits(if_less(&y, &x, &x).unwrap()), ["0", "0", "inf", "0", "0"]);
        let same = Tensor::from_slice(&d, &[1.0, 1.0, inf, -inf, 0.0], &[5]).unwrap();
        assert_eq!(bits(if_less(&same, &same, &same).unwrap()), ["0"; 5]);
    }
}
