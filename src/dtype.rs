//! Element types on devices, and how a tensor's bytes are arranged.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Element types that exist on devices. Others (i64, bool, f64) exist in files and on the host only and are cast,
/// with a range check, on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F32,
    F16,
    BF16,
    I32,
    U32,
    U8,
}

impl DType {
    /// All of them.
    pub const ALL: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8];

    /// The size of an element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// The dtype as kernels of GPUs know it: `shaders/common/dtype.wgsl` and `kernels/common/base.cuh` have the same codes.
    pub const fn code(self) -> u32 {
        match self {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
            DType::U8 => 3,
            DType::I32 => 4,
            DType::U32 => 5,
        }
    }

    /// Whether it is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The relative spacing of values around one: half an ulp is the error of a rounding. Zero for integers.
    pub const fn epsilon(self) -> f64 {
        match self {
            DType::F32 => 1.1920928955078125e-7,
            DType::F16 => 9.765625e-4,
            DType::BF16 => 7.8125e-3,
            _ => 0.0,
        }
    }

    /// The name as text: `f32`, `bf16`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;
    fn from_str(s: &str) -> Result<DType> {
        let found = DType::ALL.into_iter().find(|d| d.name() == s);
        found.ok_or_else(|| Error::parse("a dtype", s, "known are f32, f16, bf16, i32, u32, u8"))
    }
}

/// A Rust type that is the element of a device dtype.
pub trait Elem: bytemuck::Pod + Send + Sync + PartialEq + fmt::Debug {
    /// The dtype.
    const DTYPE: DType;
    /// The value in f64, exactly.
    fn to_f64(self) -> f64;
    /// The nearest value (floats: round to nearest even; integers: saturating).
    fn from_f64(x: f64) -> Self;
}

/// An f32 that rounds on to a 16-bit float as the f64 itself would: rounded to odd, so that no second rounding sees a tie
/// that was none. (`half` looks at the upper half of an f64 only.)
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if !near.is_finite() || f64::from(near) == x {
        return near;
    }
    let below = if f64::from(near).abs() > x.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(below | 1)
}

macro_rules! elem {
    ($($t:ty, $d:ident, $x:ident => $to:expr, $y:ident => $from:expr;)*) => {$(
        impl Elem for $t {
            const DTYPE: DType = DType::$d;
            #[inline(always)]
            fn to_f64(self) -> f64 { let $x = self; $to }
            #[inline(always)]
            fn from_f64($y: f64) -> Self { $from }
        }
    )*};
}
elem! {
    f32, F32, x => x as f64, y => y as f32;
    half::f16, F16, x => x.to_f64(), y => half::f16::from_f32(to_odd(y));
    half::bf16, BF16, x => x.to_f64(), y => half::bf16::from_f32(to_odd(y));
    i32, I32, x => x as f64, y => y as i32;
    u32, U32, x => x as f64, y => y as u32;
    u8, U8, x => x as f64, y => y as u8;
}

/// Runs an expression with a type name bound to the element type of a dtype.
#[macro_export]
#[doc(hidden)]
macro_rules! with_elem {
    ($dtype:expr, $T:ident => $e:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $e
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $e
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $e
            }
            $crate::DType::I32 => {
                type $T = i32;
                $e
            }
            $crate::DType::U32 => {
                type $T = u32;
                $e
            }
            $crate::DType::U8 => {
                type $T = u8;
                $e
            }
        }
    };
}

/// Quantised blocks: some consecutive values of a row stored as small integers with common factors. The layouts are those
/// of GGUF (ggml's `ggml-common.h`); `ops::quant` has the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)] // the names by which everybody knows them
pub enum Quant {
    /// 32 values: f16 d, 32 i8; x = d·q.
    Q8_0,
    /// 32 values: f16 d, 32 nibbles; x = d·(q - 8).
    Q4_0,
    /// 32 values: f16 d, f16 m, 32 nibbles; x = d·q + m.
    Q4_1,
    /// 256 values in 8 groups: f16 d, f16 dmin, 8 + 8 six-bit factors, 256 nibbles; x = d·scale·q - dmin·min.
    Q4_K,
    /// 256 values in 16 groups: 256 four-bit and 256 two-bit parts, 16 i8 scales, f16 d; x = d·scale·(q - 32).
    Q6_K,
}

impl Quant {
    /// All of them.
    pub const ALL: [Quant; 5] = [Quant::Q8_0, Quant::Q4_0, Quant::Q4_1, Quant::Q4_K, Quant::Q6_K];

    /// Values of a block.
    pub const fn block_values(self) -> usize {
        match self {
            Quant::Q8_0 | Quant::Q4_0 | Quant::Q4_1 => 32,
            Quant::Q4_K | Quant::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Quant::Q8_0 => 34,
            Quant::Q4_0 => 18,
            Quant::Q4_1 => 20,
            Quant::Q4_K => 144,
            Quant::Q6_K => 210,
        }
    }

    /// Bytes that the blocks of [`PANEL_ROWS`] rows take in [`Format::BlockPanels`].
    pub const fn panel_block_bytes(self) -> usize {
        match self {
            // The six-bit factors of Q4_K become bytes.
            Quant::Q4_K => PANEL_ROWS * (self.block_bytes() + 4),
            _ => PANEL_ROWS * self.block_bytes(),
        }
    }

    /// Bytes of a row of `k` values, a multiple of [`block_values`](Quant::block_values).
    pub const fn row_bytes(self, k: usize) -> usize {
        k / self.block_values() * self.block_bytes()
    }

    /// The name as text: `q8_0`, `q4_k`, …
    pub const fn name(self) -> &'static str {
        match self {
            Quant::Q8_0 => "q8_0",
            Quant::Q4_0 => "q4_0",
            Quant::Q4_1 => "q4_1",
            Quant::Q4_K => "q4_k",
            Quant::Q6_K => "q6_k",
        }
    }
}

/// Rows of a panel of [`Format::BlockPanels`].
pub const PANEL_ROWS: usize = 16;

/// How a tensor's elements are arranged in its bytes; part of every problem that cares.
///
/// `Panels` is what the CPU's matrix kernels read: the matrix `[n, k]` (a weight as `[out, in]`) is cut into
/// panels of `nr` rows; a panel stores, for each group of `kr` consecutive k, the `kr` values of its first row, of
/// its second row, … , so that a kernel walks it front to back. The last panel and the last group are filled with
/// zeros: a tensor of shape `[n, k]` holds `ceil(n/nr)·nr · ceil(k/kr)·kr` elements.
///
/// With `gated`, the matrix is a pair of `[n/2, k]` stacked: the first half of each panel's `nr` rows comes from the
/// gate and the second half from the same rows of the other matrix, so that one tile holds both.
///
/// `BlockPanels` is the same for quantised blocks, without loss: a panel is 16 rows ([`PANEL_ROWS`]), the last one filled
/// up with rows of blocks of zero bytes. A panel stores, for each block along k, one after the other:
/// - the f16 `d` of each row; of Q4_1 also `m`, of Q4_K also `dmin` of each row;
/// - Q4_K: for each of 8 groups the byte `scale` of each row, then for each group `min` of each row; Q6_K: for each of 16
///   groups `scale + 128` of each row;
/// - for each 32 values, the integers in 64-byte vectors of four consecutive values of the first row, of the second row, …
///   Q8_0: eight vectors of `q + 128`. The others: four vectors of nibbles, of which the low ones of vector j are values
///   4j to 4j + 3 and the high ones values 16 + 4j to 16 + 4j + 3. Q6_K (whose nibbles are the low parts): then two vectors of
///   two-bit parts, of which the bits 2f and 2f + 1 of vector j are those of values 8f + 4j to 8f + 4j + 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Row-major, as the layout says.
    #[default]
    Plain,
    /// Packed panels.
    Panels { nr: u16, kr: u16, gated: bool },
    /// Rows of quantised blocks, one behind the other as GGUF files have them; the dtype is u8.
    Blocks(Quant),
    /// Packed panels of quantised blocks; the dtype is u8.
    BlockPanels { quant: Quant, gated: bool },
}

impl Format {
    /// The kind of blocks, of a quantised format.
    pub const fn quant(self) -> Option<Quant> {
        match self {
            Format::Blocks(quant) | Format::BlockPanels { quant, .. } => Some(quant),
            Format::Plain | Format::Panels { .. } => None,
        }
    }

    /// The elements that a matrix of `n` rows and `k` columns takes in this format.
    pub const fn elements(self, n: usize, k: usize) -> usize {
        match self {
            Format::Plain => n * k,
            Format::Blocks(quant) => n * quant.row_bytes(k),
            Format::BlockPanels { quant, gated } => {
                let panels = if gated { (n / 2).div_ceil(PANEL_ROWS / 2) } else { n.div_ceil(PANEL_ROWS) };
                panels * (k / quant.block_values()) * quant.panel_block_bytes()
            }
            Format::Panels { nr, kr, gated } => {
                let (nr, kr) = (nr as usize, kr as usize);
                let panels = if gated { (n / 2).div_ceil(nr / 2) } else { n.div_ceil(nr) };
                panels * nr * k.div_ceil(kr) * kr
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Plain => f.write_str("plain"),
            Format::Blocks(quant) => f.write_str(quant.name()),
            Format::Panels { nr, kr, gated } => write!(f, "panels{nr}x{kr}{}", if *gated { "g" } else { "" }),
            Format::BlockPanels { quant, gated } => {
                write!(f, "{}x{PANEL_ROWS}{}", quant.name(), if *gated { "g" } else { "" })
            }
        }
    }
}

impl FromStr for Format {
    type Err = Error;
    fn from_str(s: &str) -> Result<Format> {
        let panels = || -> Option<Format> {
            let rest = s.strip_prefix("panels")?;
            let (rest, gated) = rest.strip_suffix('g').map_or((rest, false), |r| (r, true));
            let (nr, kr) = rest.split_once('x')?;
            let (nr, kr) = (nr.parse().ok()?, kr.parse().ok()?);
            (nr > 0 && nr <= 256 && kr > 0 && kr <= 64 && (!gated || nr % 2 == 0)).then_some(Format::Panels {
                nr,
                kr,
                gated,
            })
        };
        if s == "plain" {
            return Ok(Format::Plain);
        }
        for quant in Quant::ALL {
            let packed = |gated| Format::BlockPanels { quant, gated };
            let forms = [Format::Blocks(quant), packed(false), packed(true)];
            if let Some(format) = forms.into_iter().find(|f| f.to_string() == s) {
                return Ok(format);
            }
        }
        panels().ok_or_else(|| {
            let known = "known are plain, panels<nr>x<kr>[g] such as panels32x1, and q8_0, q4_0, q4_1, q4_k, q6_k, with x16 \
                         or x16g behind where packed";
            Error::parse("a format", s, known)
        })
    }
}

/// An f32 that is compared and hashed by its bits, and whose text parses back to the same bits.
#[derive(Clone, Copy)]
pub struct Scalar(pub f32);

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Scalar {}
impl std::hash::Hash for Scalar {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl FromStr for Scalar {
    type Err = Error;
    fn from_str(s: &str) -> Result<Scalar> {
        s.parse().map(Scalar).map_err(|e: std::num::ParseFloatError| Error::parse("a number", s, e.to_string()))
    }
}
impl From<f32> for Scalar {
    fn from(x: f32) -> Scalar {
        Scalar(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bit_floats_are_rounded_once() {
        // Just beyond the middle of two bf16, by less than f64's upper half, or f32, can tell.
        let middle = 0.767578125;
        for beyond in [6e-8, 1e-12] {
            assert_eq!(half::bf16::from_f64(middle).to_f64(), <half::bf16 as Elem>::from_f64(middle).to_f64());
            assert_eq!(<half::bf16 as Elem>::from_f64(middle + beyond).to_f64(), 0.76953125);
            assert_eq!(<half::bf16 as Elem>::from_f64(-middle - beyond).to_f64(), -0.76953125);
            assert_eq!(<half::bf16 as Elem>::from_f64(middle - beyond).to_f64(), 0.765625);
        }
        let middle = 1.0 + 1.0 / 2048.0;
        assert_eq!(<half::f16 as Elem>::from_f64(middle + 1e-13).to_f64(), 1.0 + 1.0 / 1024.0);
        assert_eq!(<half::f16 as Elem>::from_f64(middle).to_f64(), 1.0);
    }

    #[test]
    fn texts_parse_back() {
        for format in ["plain", "panels32x1", "panels32x2g", "q4_k", "q8_0x16", "q4_1x16g"] {
            assert_eq!(format.parse::<Format>().unwrap().to_string(), format);
        }
        for bad in ["panels", "panels0x1", "panels33x1g", "panelsx", "q9", "q4_0x32", "q4_0g"] {
            assert!(bad.parse::<Format>().is_err(), "{bad}");
        }
        let x: Scalar = "0.1".parse().unwrap();
        assert_eq!(x.to_string().parse::<Scalar>().unwrap(), x);
    }
}
