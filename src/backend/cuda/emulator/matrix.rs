//! Matrix instructions: which lane and register holds which element, and the product.
//!
//! A warp's fragment is a list of registers, each the values of 32 lanes. Lanes form 8 groups of 4. With `E` elements to a
//! register (4 bytes, 2 halves, 1 tf32), register r of lane l of the left matrix holds row `l / 4 + 8 (r % 2)`, columns
//! `E (l % 4) + 4 E (r / 2)` and on; of the right matrix column `l / 4`, rows `E (l % 4) + 4 E r` and on; of the accumulator
//! row `l / 4 + 8 (r / 2)`, column `2 (l % 4) + r % 2` (PTX ISA, "Matrix fragments for mma.m16n8k16" and its siblings).

use super::float::{BF16, F16, Half, canonical};

/// A register of a warp.
pub type Lanes = [u32; 32];

/// The elements of the factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F16,
    BF16,
    TF32,
    S8,
    U8,
}

impl Element {
    /// Elements of a register.
    const fn per_register(self) -> usize {
        match self {
            Element::F16 | Element::BF16 => 2,
            Element::TF32 => 1,
            Element::S8 | Element::U8 => 4,
        }
    }

    const fn is_integer(self) -> bool {
        matches!(self, Element::S8 | Element::U8)
    }

    /// Element `i` of a register. Bytes are exact as f32 too.
    #[inline(always)]
    fn get(self, register: u32, i: usize) -> f32 {
        match self {
            Element::F16 => F16::widen((register >> (16 * i)) as u16),
            Element::BF16 => BF16::widen((register >> (16 * i)) as u16),
            // The hardware ignores the low bits.
            Element::TF32 => f32::from_bits(register & !0x1fff),
            Element::S8 => f32::from((register >> (8 * i)) as i8),
            Element::U8 => f32::from((register >> (8 * i)) as u8),
        }
    }
}

/// The elements of the accumulators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulator {
    F32,
    /// Two to a register.
    F16,
    S32,
    /// Clamped to the range of s32, where the former wraps.
    S32Saturated,
}

/// An `mma.sync.aligned.m16n8k_.row.col`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mma {
    k: usize,
    lhs: Element,
    rhs: Element,
    accumulator: Accumulator,
}

impl Mma {
    /// `None` for a combination that the emulator does not have.
    pub fn new(k: usize, lhs: Element, rhs: Element, accumulator: Accumulator) -> Option<Mma> {
        let depth_fits = match lhs {
            Element::F16 | Element::BF16 => k == 8 || k == 16,
            Element::TF32 => k == 4 || k == 8,
            Element::S8 | Element::U8 => k == 16 || k == 32,
        };
        let sums_fit = match accumulator {
            Accumulator::F32 => !lhs.is_integer(),
            Accumulator::F16 => lhs == Element::F16,
            Accumulator::S32 | Accumulator::S32Saturated => lhs.is_integer(),
        };
        let same_kind = lhs == rhs || (lhs.is_integer() && rhs.is_integer());
        (depth_fits && sums_fit && same_kind).then_some(Mma { k, lhs, rhs, accumulator })
    }

    /// Registers of the left matrix.
    pub const fn lhs_registers(&self) -> usize {
        self.k / (2 * self.lhs.per_register())
    }

    /// Registers of the right matrix.
    pub const fn rhs_registers(&self) -> usize {
        self.lhs_registers() / 2
    }

    /// Registers of an accumulator.
    pub const fn accumulator_registers(&self) -> usize {
        if matches!(self.accumulator, Accumulator::F16) { 2 } else { 4 }
    }

    /// Floating-point operations: two for each product.
    pub const fn flops(&self) -> u64 {
        2 * 16 * 8 * self.k as u64
    }

    /// `lhs · rhs + addend`. Products are exact; sums are f32 (one rounding each, k ascending, beginning with the addend) or
    /// exact integers. The slices have as many registers as this says; so has the result, and zeros behind.
    pub fn multiply(&self, lhs: &[&Lanes], rhs: &[&Lanes], addend: &[&Lanes]) -> [Lanes; 4] {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the feature is there.
            return unsafe { self.multiply_avx2(lhs, rhs, addend) };
        }
        self.multiply_any(lhs, rhs, addend)
    }

    /// The same operations, so the same bits, on vectors of eight. (The loops are too long to get into `simd::widest`.)
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn multiply_avx2(&self, lhs: &[&Lanes], rhs: &[&Lanes], addend: &[&Lanes]) -> [Lanes; 4] {
        self.multiply_any(lhs, rhs, addend)
    }

    #[inline(always)]
    fn multiply_any(&self, lhs: &[&Lanes], rhs: &[&Lanes], addend: &[&Lanes]) -> [Lanes; 4] {
        // Element and depth are constants inside of each, so that the loops unroll and unpacking has no branches.
        match (self.lhs, self.k) {
            (Element::F16, 16) => self.multiply_floats::<16>(Element::F16, lhs, rhs, addend),
            (Element::F16, _) => self.multiply_floats::<8>(Element::F16, lhs, rhs, addend),
            (Element::BF16, 16) => self.multiply_floats::<16>(Element::BF16, lhs, rhs, addend),
            (Element::BF16, _) => self.multiply_floats::<8>(Element::BF16, lhs, rhs, addend),
            (Element::TF32, 8) => self.multiply_floats::<8>(Element::TF32, lhs, rhs, addend),
            (Element::TF32, _) => self.multiply_floats::<4>(Element::TF32, lhs, rhs, addend),
            (Element::S8 | Element::U8, 16) => self.multiply_integers::<16>(lhs, rhs, addend),
            (Element::S8 | Element::U8, _) => self.multiply_integers::<32>(lhs, rhs, addend),
        }
    }

    #[inline(always)]
    fn multiply_floats<const K: usize>(
        &self,
        element: Element,
        lhs: &[&Lanes],
        rhs: &[&Lanes],
        addend: &[&Lanes],
    ) -> [Lanes; 4] {
        let (a, b) = (unpack_lhs::<K>(element, lhs), unpack_rhs::<K>(element, rhs));
        let half = self.accumulator == Accumulator::F16;
        let mut sums = [[0f32; 8]; 16];
        each_accumulator(|row, column, register, lane| {
            sums[row][column] = if half {
                F16::widen((addend[register / 2][lane] >> (16 * (register % 2))) as u16)
            } else {
                f32::from_bits(addend[register][lane])
            };
        });
        // Four rows at a time: their sums stay in registers and hide each other's latency.
        for (a, sums) in a.as_chunks::<4>().0.iter().zip(sums.as_chunks_mut::<4>().0) {
            let mut tile = *sums;
            for k in 0..K {
                for (sums, a) in tile.iter_mut().zip(a) {
                    for (sum, b) in sums.iter_mut().zip(&b[k]) {
                        *sum += a[k] * b;
                    }
                }
            }
            *sums = tile;
        }
        let mut out = [[0; 32]; 4];
        each_accumulator(|row, column, register, lane| {
            if half {
                out[register / 2][lane] |= u32::from(F16::narrow(sums[row][column])) << (16 * (register % 2));
            } else {
                out[register][lane] = canonical(sums[row][column]).to_bits();
            }
        });
        out
    }

    #[inline(always)]
    fn multiply_integers<const K: usize>(&self, lhs: &[&Lanes], rhs: &[&Lanes], addend: &[&Lanes]) -> [Lanes; 4] {
        let (a, b) = (unpack_lhs::<K>(self.lhs, lhs), unpack_rhs::<K>(self.rhs, rhs));
        let mut out = [[0; 32]; 4];
        each_accumulator(|row, column, register, lane| {
            let addend = addend[register][lane] as i32;
            // At most 32 products of 16 bits: exact in f32.
            let sum = (0..K).map(|k| a[row][k] * b[k][column]).sum::<f32>() as i32;
            let saturated = self.accumulator == Accumulator::S32Saturated;
            out[register][lane] = if saturated { addend.saturating_add(sum) } else { addend.wrapping_add(sum) } as u32;
        });
        out
    }
}

/// The left matrix.
#[inline(always)]
fn unpack_lhs<const K: usize>(element: Element, registers: &[&Lanes]) -> [[f32; K]; 16] {
    let per = element.per_register();
    let mut matrix = [[0.0; K]; 16];
    for (r, register) in registers.iter().enumerate().take(K / (2 * per)) {
        for i in 0..per {
            let mut values = [0.0; 32];
            values.iter_mut().zip(*register).for_each(|(value, &bits)| *value = element.get(bits, i));
            for (lane, value) in values.into_iter().enumerate() {
                matrix[lane / 4 + 8 * (r % 2)][per * (lane % 4) + 4 * per * (r / 2) + i] = value;
            }
        }
    }
    matrix
}

/// The right matrix.
#[inline(always)]
fn unpack_rhs<const K: usize>(element: Element, registers: &[&Lanes]) -> [[f32; 8]; K] {
    let per = element.per_register();
    let mut matrix = [[0.0; 8]; K];
    for (r, register) in registers.iter().enumerate().take(K / (4 * per)) {
        for i in 0..per {
            let mut values = [0.0; 32];
            values.iter_mut().zip(*register).for_each(|(value, &bits)| *value = element.get(bits, i));
            for (lane, value) in values.into_iter().enumerate() {
                matrix[per * (lane % 4) + 4 * per * r + i][lane / 4] = value;
            }
        }
    }
    matrix
}

/// Calls with row, column, register and lane of each element of an accumulator, as if of one element to a register.
#[inline(always)]
fn each_accumulator(mut visit: impl FnMut(usize, usize, usize, usize)) {
    for register in 0..4 {
        for lane in 0..32 {
            visit(lane / 4 + 8 * (register / 2), 2 * (lane % 4) + register % 2, register, lane);
        }
    }
}

/// What `ldmatrix` gives: the first `count` registers, where lane l holds the elements 2 (l % 4) and the next of row l / 4 of
/// the register's matrix, or of its column when `transposed`.
///
/// `rows[w][l]` is word w of the 16 bytes at lane l's address; lane `8 j + i` addresses row i of matrix j.
pub fn distribute(rows: &[Lanes; 4], count: usize, transposed: bool) -> [Lanes; 4] {
    let mut out = [[0; 32]; 4];
    for (matrix, out) in out.iter_mut().enumerate().take(count) {
        for (lane, out) in out.iter_mut().enumerate() {
            let (major, minor) = (lane / 4, lane % 4);
            *out = if transposed {
                let half = |row: usize| rows[major / 2][8 * matrix + row] >> (16 * (major % 2)) & 0xffff;
                half(2 * minor) | half(2 * minor + 1) << 16
            } else {
                rows[minor][8 * matrix + major]
            };
        }
    }
    out
}

/// What `stmatrix` stores, the inverse of [`distribute`]: word w of the 16 bytes for lane l's address.
pub fn collect(registers: &[&Lanes], transposed: bool) -> [Lanes; 4] {
    let mut rows = [[0; 32]; 4];
    for (matrix, register) in registers.iter().enumerate() {
        let register = if transposed { &transpose(register) } else { *register };
        for (lane, &value) in register.iter().enumerate() {
            rows[lane % 4][8 * matrix + lane / 4] = value;
        }
    }
    rows
}

/// `movmatrix.sync.aligned.m8n8.trans.b16`: the matrix of a register, transposed.
pub fn transpose(register: &Lanes) -> Lanes {
    std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        let half = |other: usize| register[4 * other + row / 2] >> (16 * (row % 2)) & 0xffff;
        half(column) | half(column + 1) << 16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, so that every sum is exact in every type.
    fn number(i: usize, j: usize, salt: usize) -> i32 {
        ((i * 7 + j * 13 + salt * 5) % 11) as i32 - 5
    }

    fn encode(element: Element, value: i32) -> u32 {
        match element {
            Element::F16 => F16::narrow(value as f32).into(),
            Element::BF16 => BF16::narrow(value as f32).into(),
            Element::TF32 => (value as f32).to_bits() | 0x7, // what the hardware ignores
            Element::S8 | Element::U8 => u32::from(value as u8),
        }
    }

    /// Fills fragments by the tables of the PTX ISA, written out per shape rather than by the rule of this file.
    fn lhs_place(element: Element, k: usize, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane / 4, lane % 4);
        match (element, k) {
            (Element::F16 | Element::BF16, 16) => {
                let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
                (row, thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
            }
            (Element::F16 | Element::BF16, _) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
            (Element::TF32, 8) => (if i & 1 == 0 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 }),
            (Element::TF32, _) => (if i == 0 { group } else { group + 8 }, thread),
            (_, 16) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
            _ => {
                let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
                (row, thread * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
            }
        }
    }

    fn rhs_place(element: Element, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane / 4, lane % 4);
        let row = match element {
            Element::F16 | Element::BF16 => thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 },
            Element::TF32 => thread + 4 * i,
            Element::S8 | Element::U8 => thread * 4 + (i & 3) + if i >= 4 { 16 } else { 0 },
        };
        (row, group)
    }

    fn fill(
        element: Element,
        registers: usize,
        salt: usize,
        place: impl Fn(usize, usize) -> (usize, usize),
    ) -> Vec<Lanes> {
        let per = element.per_register();
        (0..registers)
            .map(|r| {
                std::array::from_fn(|lane| {
                    (0..per).fold(0, |bits, i| {
                        let (row, column) = place(lane, r * per + i);
                        let value = number(row, column, salt);
                        let value = if element == Element::U8 { value.abs() } else { value };
                        bits | encode(element, value) << (32 / per * i)
                    })
                })
            })
            .collect()
    }

    #[test]
    fn products_of_every_shape() {
        use Accumulator as A;
        use Element as E;
        let shapes = [
            (16, E::F16, E::F16, A::F32),
            (16, E::F16, E::F16, A::F16),
            (8, E::F16, E::F16, A::F32),
            (16, E::BF16, E::BF16, A::F32),
            (8, E::BF16, E::BF16, A::F32),
            (8, E::TF32, E::TF32, A::F32),
            (4, E::TF32, E::TF32, A::F32),
            (16, E::S8, E::S8, A::S32),
            (32, E::S8, E::U8, A::S32),
            (32, E::U8, E::S8, A::S32Saturated),
        ];
        for (k, left, right, accumulator) in shapes {
            let mma = Mma::new(k, left, right, accumulator).unwrap();
            let lhs = fill(left, mma.lhs_registers(), 1, |lane, i| lhs_place(left, k, lane, i));
            let rhs = fill(right, mma.rhs_registers(), 2, |lane, i| rhs_place(right, lane, i));
            let encode = |value: i32| match accumulator {
                A::F32 => (value as f32).to_bits(),
                A::F16 => F16::narrow(value as f32).into(),
                A::S32 | A::S32Saturated => value as u32,
            };
            let mut addend = vec![[0; 32]; mma.accumulator_registers()];
            let mut want = [[0; 32]; 4];
            for lane in 0..32 {
                for i in 0..4 {
                    let (row, column) = (lane / 4 + if i < 2 { 0 } else { 8 }, 2 * (lane % 4) + (i & 1));
                    let sign = |element, value: i32| if element == E::U8 { value.abs() } else { value };
                    let sum: i32 =
                        (0..k).map(|j| sign(left, number(row, j, 1)) * sign(right, number(j, column, 2))).sum();
                    let (register, shift) = if accumulator == A::F16 { (i / 2, 16 * (i % 2)) } else { (i, 0) };
                    addend[register][lane] |= encode(number(row, column, 3)) << shift;
                    want[register][lane] |= encode(sum + number(row, column, 3)) << shift;
                }
            }
            let (lhs, rhs): (Vec<_>, Vec<_>) = (lhs.iter().collect(), rhs.iter().collect());
            let got = mma.multiply(&lhs, &rhs, &addend.iter().collect::<Vec<_>>());
            assert_eq!(got, want, "{mma:?}");
        }
        assert_eq!(Mma::new(8, E::S8, E::S8, A::S32), None);
        assert_eq!(Mma::new(16, E::BF16, E::BF16, A::F16), None);
        assert_eq!(Mma::new(16, E::F16, E::BF16, A::F32), None);
    }

    #[test]
    fn sums_of_integers_clamp_only_when_asked() {
        let (ones, most) = ([0x0101_0101; 32], [i32::MAX as u32; 32]);
        for (accumulator, want) in [(Accumulator::S32, i32::MIN + 15), (Accumulator::S32Saturated, i32::MAX)] {
            let mma = Mma::new(16, Element::S8, Element::S8, accumulator).unwrap();
            let got = mma.multiply(&[&ones; 2], &[&ones], &[&most; 4]);
            assert_eq!(got, [[want as u32; 32]; 4]);
        }
    }

    #[test]
    fn matrices_come_from_rows_and_go_back() {
        // Element (row, column) of matrix j is 256 j + 16 row + column.
        let rows: [Lanes; 4] = std::array::from_fn(|w| {
            std::array::from_fn(|lane| {
                let first = (256 * (lane / 8) + 16 * (lane % 8) + 2 * w) as u32;
                first | (first + 1) << 16
            })
        });
        let plain = distribute(&rows, 4, false);
        let transposed = distribute(&rows, 4, true);
        for (j, lane) in (0..4).flat_map(|j| (0..32).map(move |lane| (j, lane))) {
            let element = |row: usize, column: usize| (256 * j + 16 * row + column) as u32;
            let (major, minor) = (lane / 4, 2 * (lane % 4));
            assert_eq!(plain[j][lane], element(major, minor) | element(major, minor + 1) << 16);
            assert_eq!(transposed[j][lane], element(minor, major) | element(minor + 1, major) << 16);
            assert_eq!(transpose(&plain[j]), transposed[j]);
        }
        assert_eq!(collect(&plain.each_ref(), false), rows);
        assert_eq!(collect(&transposed.each_ref(), true), rows);
        assert_eq!(distribute(&rows, 2, false)[2..], [[0; 32]; 2]);
    }

    #[test]
    #[ignore = "prints a time"]
    fn speed() {
        let mma = Mma::new(16, Element::BF16, Element::BF16, Accumulator::F32).unwrap();
        let x: Lanes = std::array::from_fn(|i| 0x3f80_3f80 + i as u32);
        let mut sum = [[0; 32]; 4];
        let start = std::time::Instant::now();
        for _ in 0..1_000_000 {
            sum = mma.multiply(&[&x; 4], &[&x; 2], &sum.each_ref());
        }
        println!("m16n8k16: {} ns, {:x}", start.elapsed().as_nanos() / 1_000_000, sum[0][0]);
    }
}
