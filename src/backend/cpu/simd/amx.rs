//! AMX: eight registers of up to 16 rows of 64 bytes, and an instruction that multiplies two of them as bf16 matrices into a
//! third of f32.
//!
//! The compiler's intrinsics for it are not stable, so the loop of a product is one piece of assembly. Shapes of registers are
//! state of the thread: [`Registers`] sets them, and gives the 8 KiB of state back when it is dropped, so that they are not
//! saved whenever threads change. Doing so for each product of 32 x 32 costs 7 to 20 % of it.

use super::Avx512;
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::sync::OnceLock;

#[cfg(test)]
pub use tests::Model;

/// Proof that the processor has AMX with bf16 and that the system lets this process use it.
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

/// Rows of a register, and steps (pairs of k) of one.
pub const SIDE: usize = 16;
/// Rows and columns of a [`Product`].
pub const BLOCK: usize = 2 * SIDE;

/// What the registers' shapes are: the operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Registers 0 to 3 are sums, 4 and 5 rows of lhs, 6 and 7 columns of rhs, `steps` pairs of k deep.
    fn new(steps: usize) -> Shapes {
        let (side, line, pairs) = (SIDE as u8, 64, 4 * steps as u16);
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.rows[..8].copy_from_slice(&[side, side, side, side, side, side, steps as u8, steps as u8]);
        shapes.row_bytes[..8].copy_from_slice(&[line, line, line, line, pairs, pairs, line, line]);
        shapes
    }
}

/// 32 rows of lhs, or 16, by 32 columns of rhs, or 16: `sums += Σ lhs · rhs` over groups of 16 pairs of k, or a single one of fewer.
pub struct Product<'a> {
    /// Whether there are only 16 rows; a group of lhs has places for 32 all the same.
    pub half: bool,
    /// Whether there are only 16 columns.
    pub narrow: bool,
    /// Pairs of k in a group.
    pub steps: usize,
    pub groups: usize,
    pub lhs: &'a [bf16],
    pub lies: Lies,
    /// Whether rows of lhs pass L1 by, so that rhs, which other rows will meet, stays there. For 32 columns.
    pub passes: bool,
    /// [groups, steps, columns, 2]
    pub rhs: &'a [bf16],
    /// [rows, columns]
    pub sums: &'a mut [f32],
    /// Whether they begin with those in `sums` and not with zero.
    pub adds: bool,
    /// Memory to ask for on the way, one after the other: an address, and so many lines from there on.
    pub ahead: [(*const u8, usize); 2],
}

/// How the left side of a [`Product`] lies.
#[derive(Clone, Copy)]
pub enum Lies {
    /// [groups, 32 rows, 16, 2]
    InGroups,
    /// Rows of [groups, 16, 2], so many elements apart.
    InRows(usize),
}

impl Lies {
    /// Elements from one row to the next, and from one group to the next.
    pub fn strides(self) -> [usize; 2] {
        match self {
            Lies::InGroups => [2 * SIDE, Product::GROUP],
            Lies::InRows(stride) => [stride, 2 * SIDE],
        }
    }
}

impl<'a> Product<'a> {
    /// Elements of a group of lhs.
    pub const GROUP: usize = 2 * SIDE * BLOCK;

    /// Of whole groups of words that are kept as f32, both packed, 32 rows; asks for nothing.
    #[inline(always)]
    pub fn of_words(groups: usize, lhs: &'a [f32], rhs: &'a [f32], sums: &'a mut [f32], adds: bool) -> Product<'a> {
        let (lhs, rhs) = (bytemuck::cast_slice(lhs), bytemuck::cast_slice(rhs));
        let (lies, ahead) = (Lies::InGroups, [(std::ptr::null(), 0); 2]);
        Product { half: false, narrow: false, steps: SIDE, groups, lhs, lies, passes: false, rhs, sums, adds, ahead }
    }

    fn rows(&self) -> usize {
        if self.half { SIDE } else { BLOCK }
    }

    fn columns(&self) -> usize {
        if self.narrow { SIDE } else { BLOCK }
    }

    /// # Panics
    /// Something is outside of the slices.
    pub fn check(&self) {
        let (steps, groups, [row, group]) = (self.steps, self.groups, self.lies.strides());
        assert!((1..=SIDE).contains(&steps) && groups > 0 && (steps == SIDE || groups == 1));
        let last = (self.rows() - 1).checked_mul(row).and_then(|last| last.checked_add((groups - 1) * group));
        assert!(last.is_some_and(|last| last <= self.lhs.len() && self.lhs.len() - last >= 2 * steps));
        let columns = self.columns();
        assert!(self.rhs.len() >= groups * steps * 2 * columns && self.sums.len() >= self.rows() * columns);
    }
}

/// A group of a product's left side from the columns of 32 rows: [column][pair of rows].
#[inline]
pub fn turn(_: Avx512, rows: &[&[bf16; BLOCK]; BLOCK], to: &mut [[u32; SIDE]; BLOCK]) {
    // SAFETY: an `Avx512` exists only where the processor has the features.
    unsafe { turned(rows, to) }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn turned(rows: &[&[bf16; BLOCK]; BLOCK], to: &mut [[u32; SIDE]; BLOCK]) {
    for half in 0..2 {
        let mut words = [_mm512_setzero_si512(); SIDE];
        for (rows, words) in rows.chunks_exact(2).zip(&mut words) {
            // SAFETY: a row is 64 bytes.
            let [one, other] = unsafe { [rows[0], rows[1]].map(|row| _mm512_loadu_si512(row.as_ptr().cast())) };
            // Of every eight columns the first or the last four.
            *words = if half == 0 { _mm512_unpacklo_epi16(one, other) } else { _mm512_unpackhi_epi16(one, other) };
        }
        // Columns of four words, then of sixteen.
        let mut fours = [_mm512_setzero_si512(); SIDE];
        for (words, fours) in words.chunks_exact(4).zip(fours.chunks_exact_mut(4)) {
            let [a, b] = [_mm512_unpacklo_epi32(words[0], words[1]), _mm512_unpacklo_epi32(words[2], words[3])];
            let [c, d] = [_mm512_unpackhi_epi32(words[0], words[1]), _mm512_unpackhi_epi32(words[2], words[3])];
            (fours[0], fours[1]) = (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            (fours[2], fours[3]) = (_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
        }
        for c in 0..4 {
            let [first, second, third, fourth] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
            let even = [_mm512_shuffle_i32x4::<0x88>(first, second), _mm512_shuffle_i32x4::<0x88>(third, fourth)];
            let odd = [_mm512_shuffle_i32x4::<0xdd>(first, second), _mm512_shuffle_i32x4::<0xdd>(third, fourth)];
            let columns = [
                _mm512_shuffle_i32x4::<0x88>(even[0], even[1]),
                _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]),
                _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]),
                _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]),
            ];
            for (eight, column) in columns.into_iter().enumerate() {
                // SAFETY: a row of the result is 64 bytes.
                unsafe { _mm512_storeu_si512(to[8 * eight + 4 * half + c].as_mut_ptr().cast(), column) };
            }
        }
    }
}

impl Amx {
    /// Finds out once; asks the system for the state.
    pub fn detect() -> Option<Amx> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(|| processor_has_it() && system_allows_it()).then_some(Amx(()))
    }
}

/// What multiplies tiles.
pub trait Unit: Copy + Send + Sync {
    /// What a thread holds meanwhile.
    type Turn;
    fn begin(self) -> Self::Turn;
    /// Computes a product.
    ///
    /// # Panics
    /// Something is outside of the slices.
    fn multiply(turn: &mut Self::Turn, product: Product<'_>);
}

impl Unit for Amx {
    type Turn = Registers;

    fn begin(self) -> Registers {
        let mut registers = Registers { steps: 0, of_this_thread: PhantomData };
        registers.shape(SIDE);
        registers
    }

    fn multiply(registers: &mut Registers, product: Product<'_>) {
        registers.multiply(product);
    }
}

/// The registers of a thread, in the shapes of a [`Product`].
pub struct Registers {
    /// Pairs of k that they are shaped for.
    steps: usize,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: only `Amx` makes one, so the processor has the instruction.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

impl Registers {
    fn shape(&mut self, steps: usize) {
        let shapes = Shapes::new(steps);
        // SAFETY: the processor has the instruction, see `drop`; it takes these shapes. No code of the compiler's uses the
        // registers, so what they hold is ours until the release.
        unsafe { asm!("ldtilecfg [{shapes}]", shapes = in(reg) &shapes, options(readonly, nostack, preserves_flags)) };
        self.steps = steps;
    }

    fn multiply(&mut self, product: Product<'_>) {
        product.check();
        if self.steps != product.steps {
            self.shape(product.steps);
        }
        // SAFETY: it has passed, and registers are shaped for it.
        match (product.narrow, product.passes) {
            (true, _) => unsafe { self.multiply_checked::<false, false>(product) },
            (false, false) => unsafe { self.multiply_checked::<true, false>(product) },
            (false, true) => unsafe { self.multiply_checked::<true, true>(product) },
        }
    }

    /// # Safety
    /// The product has passed `check` and is narrow if not `WIDE`; registers are shaped for its steps.
    #[inline(always)]
    unsafe fn multiply_checked<const WIDE: bool, const PASSES: bool>(&mut self, product: Product<'_>) {
        // Each group asks for as many lines, if for those that it has just read.
        let [(ahead, lines), (after, more)] = match product.ahead {
            [(_, 0), (_, 0)] => [(product.lhs.as_ptr().cast(), 0); 2],
            [(_, 0), only] | [only, (_, 0)] => [only, (only.0.wrapping_add(64 * only.1), 0)],
            both => both,
        };
        let [row, group] = product.lies.strides().map(|elements| elements * size_of::<bf16>());
        // The lower half of its rows; nowhere if there is none.
        let low = if product.half { std::ptr::null() } else { product.lhs.as_ptr().wrapping_byte_add(SIDE * row) };
        let each = (lines + more).div_ceil(product.groups).max(1);
        // SAFETY: the processor has the instructions, see `drop`. `check` has found all that is read and written inside of the
        // slices: registers are shaped for as many pairs as a group has. Requests for memory never fault.
        unsafe {
            asm!(
                "test {count}, {count}",
                "jnz 2f",
                "tilezero tmm0",
                "tilezero tmm2",
                ".if {wide}",
                "tilezero tmm1",
                "tilezero tmm3",
                ".endif",
                "jmp 3f",
                "2:",
                "tileloadd tmm0, [{sums} + 1*{line}]",
                ".if {wide}",
                "tileloadd tmm1, [{sums} + 1*{line} + 64]",
                ".endif",
                "test {low}, {low}",
                "jz 3f",
                "tileloadd tmm2, [{sums} + 1*{line} + {lower}]",
                ".if {wide}",
                "tileloadd tmm3, [{sums} + 1*{line} + {lower} + 64]",
                ".endif",
                "3:",
                "tileloadd tmm6, [{rhs} + 1*{line}]",
                ".if {passes}",
                "tileloaddt1 tmm4, [{lhs} + 1*{row}]",
                ".else",
                "tileloadd tmm4, [{lhs} + 1*{row}]",
                ".endif",
                "tdpbf16ps tmm0, tmm4, tmm6",
                ".if {wide}",
                "tileloadd tmm7, [{rhs} + 1*{line} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                ".endif",
                "test {low}, {low}",
                "jz 5f",
                ".if {passes}",
                "tileloaddt1 tmm5, [{low} + 1*{row}]",
                ".else",
                "tileloadd tmm5, [{low} + 1*{row}]",
                ".endif",
                "tdpbf16ps tmm2, tmm5, tmm6",
                ".if {wide}",
                "tdpbf16ps tmm3, tmm5, tmm7",
                ".endif",
                "add {low}, {group}",
                "5:",
                "add {lhs}, {group}",
                "add {rhs}, {lower}",
                "mov {count}, {each}",
                "4:",
                "prefetcht1 [{ahead}]",
                "add {ahead}, 64",
                "dec {count}",
                "jg 4b",
                "dec {turns}",
                "cmovz {ahead}, {after}",
                "dec {groups}",
                "jnz 3b",
                "tilestored [{sums} + 1*{line}], tmm0",
                ".if {wide}",
                "tilestored [{sums} + 1*{line} + 64], tmm1",
                ".endif",
                "test {low}, {low}",
                "jz 6f",
                "tilestored [{sums} + 1*{line} + {lower}], tmm2",
                ".if {wide}",
                "tilestored [{sums} + 1*{line} + {lower} + 64], tmm3",
                ".endif",
                "6:",
                wide = const WIDE as usize,
                passes = const PASSES as usize,
                // Bytes of 16 rows of sums, and of a group of rhs, which has 16 as well.
                lower = const if WIDE { 4 * BLOCK * SIDE } else { 4 * SIDE * SIDE },
                sums = in(reg) product.sums.as_mut_ptr(),
                line = in(reg) 4 * product.columns(),
                row = in(reg) row,
                group = in(reg) group,
                lhs = inout(reg) product.lhs.as_ptr() => _,
                low = inout(reg) low => _,
                rhs = inout(reg) product.rhs.as_ptr() => _,
                groups = inout(reg) product.groups => _,
                ahead = inout(reg) ahead => _,
                each = in(reg) each,
                // Groups that ask for the first.
                turns = inout(reg) lines.div_ceil(each) => _,
                after = in(reg) after,
                count = inout(reg) usize::from(product.adds) => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// Floating-point operations of a round of [`spin`](Registers::spin).
    pub const ROUND_FLOPS: usize = 4 * 2 * SIDE * SIDE * 2 * SIDE;

    /// Products of registers alone, for the limit of the processor: at least one round of four.
    pub fn spin(&mut self, rounds: usize) {
        // 0x3c00 is a small bf16.
        let values = [bf16::from_bits(0x3c00); Product::GROUP / 2];
        self.shape(SIDE);
        // SAFETY: the processor has the instructions, see `drop`; each register is loaded with the kilobyte of `values`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{values} + 1*{line}]",
                "tileloadd tmm5, [{values} + 1*{line}]",
                "tileloadd tmm6, [{values} + 1*{line}]",
                "tileloadd tmm7, [{values} + 1*{line}]",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                values = in(reg) values.as_ptr(),
                line = in(reg) 4 * SIDE,
                rounds = inout(reg) rounds.max(1) => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(readonly, nostack),
            );
        }
    }
}

/// AMX-TILE and AMX-BF16, and that the system saves their state (bits 17 and 18 of XCR0).
fn processor_has_it() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const STATE: u32 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & BF16_AND_TILE != BF16_AND_TILE {
        return false;
    }
    let saved: u32;
    // SAFETY: OSXSAVE says that the instruction is there.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") saved, out("edx") _, options(nomem, nostack, preserves_flags)) };
    saved & STATE == STATE
}

/// Linux gives a process the large state only when it is asked to.
fn system_allows_it() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: isize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let result: isize;
        // SAFETY: the call reads and writes no memory of this process.
        unsafe {
            asm!(
                "syscall",
                inout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                out("rcx") _, out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::Simd;

    /// The instruction in plain Rust: with it, what uses the unit is tested on any processor with AVX-512.
    #[derive(Clone, Copy)]
    pub struct Model;

    impl Unit for Model {
        type Turn = ();

        fn begin(self) {}

        fn multiply((): &mut (), product: Product<'_>) {
            product.check();
            let (rows, columns, [row, group]) = (product.rows(), product.columns(), product.lies.strides());
            let Product { steps, groups, lhs, rhs, sums, adds, .. } = product;
            for (i, sum) in sums[..rows * columns].iter_mut().enumerate() {
                let (r, c) = (i / columns, i % columns);
                let mut total = if adds { *sum } else { 0.0 };
                for (g, p) in (0..groups).flat_map(|g| (0..2 * steps).map(move |p| (g, p))) {
                    let x = lhs[g * group + r * row + p].to_f32();
                    total += x * rhs[((g * steps + p / 2) * columns + c) * 2 + p % 2].to_f32();
                }
                *sum = total;
            }
        }
    }

    #[test]
    fn columns_become_rows() {
        let Some(s) = Avx512::detect() else { return };
        let value = |row: usize, column: usize| bf16::from_bits((row * BLOCK + column) as u16);
        let rows: [[bf16; BLOCK]; BLOCK] = std::array::from_fn(|row| std::array::from_fn(|column| value(row, column)));
        let mut turned = [[0; SIDE]; BLOCK];
        turn(s, &rows.each_ref(), &mut turned);
        for (column, words) in turned.iter().enumerate() {
            let values: &[bf16] = bytemuck::cast_slice(words);
            assert!(values.iter().enumerate().all(|(row, &v)| v == value(row, column)), "column {column}");
        }
    }
}
