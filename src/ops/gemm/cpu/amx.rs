//! The bf16 tile of AMX: 32 x 32 sums in four registers, 16 pairs of k at a time.
//!
//! Rhs is in the panels of the other bf16 tile, whose rows of pairs are what the instruction reads; lhs is packed, [group of
//! 16 pairs][row][pair], or read where its rows lie. Pairs that are left behind the last whole group are a product of their own. A tile
//! has 32 rows, the last one 16 if there are no more, whatever rows there are: shapes of registers are set once for a block of the
//! result. What lies beyond is never stored.
//!
//! Registers: 4 for sums, 2 for rows, 2 for columns: for each group four loads of a kilobyte and four products of 16 cycles.
//! Bound: products, and what they wait for. Loops in C take 71 cycles for a group in L1, and 64 more to store four tiles of sums, 90 to
//! load them: with 8 groups 76 % of the peak, 55 % where one side comes from L2 (a kilobyte takes 21 cycles), 40 % where rhs comes from
//! an L3 of 29 GB/s. In ns: a group 23 with rhs in L1, 38 with both sides from L2; with requests for lines of L3 and results that go
//! there 43 to 50, however k and the result are cut. All of these lines pass through 16 buffers of L1; one from L3 holds its own for
//! some 80 ns.
//!
//! Blocking: with up to ten tiles of rows (320), 128 pairs of k and 512 columns a piece of rhs takes 16 KiB of L1 and meets all tiles,
//! whose rows (16 KiB each) come from L2, as sums do (640 KiB). Of L3 that wants a byte in 320 operations; blocks of 96 rows and 512 pairs
//! of k, which this was before, three times as many, all that it gives: 2048^3 took 18.2 ms, now 14.3, 197x3072x768 1.12, now 0.84
//! (Xeon, family 6, model 167, one thread, 3.7 TFLOP/s by the probe); blocks of 256 rows take the same. The next rows of lhs are asked
//! for as those of rhs are: 577x4096x1024 takes 4.1 ms for 4.6, 2048^3 14.9 for 15.3.
//! - A k of up to 256 pairs is one block, whose sums never leave L1: 512^3 takes 0.179 ms for 0.218, 577x1024x512 0.482 for 0.565. Its
//!   piece of rhs is most of L1, so rows of lhs pass by (`tileloaddt1`): 0.17 ms for 0.20, on two threads 0.096 for 0.150. With shorter
//!   blocks that costs: 577x4096x1024 on two threads 2.20 ms for 2.03, one picture through ViT-B/16 30.1 for 28.4 at the median.
//! - With fewer than three tiles of rows rhs is read at the rate of memory, and blocks of k are as long as they may be: 32x4096x4096 takes
//!   1.40 ms for 1.52, 64x4096x4096 1.92 for 2.21; 96 rows would take longer.
//!
//! Where rows of lhs are read: packing takes up to a sixth of a product of few columns; rows that lie where they are share sets of L1,
//! push rhs out of some, and products take up to a tenth longer. In turn, ms, packed / lying, on one thread and on two: 512^3 0.200 / 0.165,
//! 0.125 / 0.095; 1024^3 1.54 / 1.42, 0.84 / 0.78; 197x3072x768 0.675 / 0.630; but 577x4096x1024 3.47 / 3.69. Hence
//! [`LYING_COLS`](blocked::LYING_COLS).
//!
//! Tried and lost, there, one thread:
//! - 256 pairs of a larger k in a block: 577x4096x1024 and 2048^3 10 % longer; 320 pairs that are all of it: 577x1024x640 3 %, on two
//!   threads 18 %;
//! - all of a larger k in a block, so that sums are never loaded (in C): the same. Registers that were not stored for 2048 cycles take
//!   300 ns longer to store; a store every 16 groups avoids that in C, but 32x4096x4096 takes 11 % longer with it;
//! - sums of the last block of k that end in L1, as those of a single block do: nothing;
//! - rows that a block copies for itself, as those of other tiles: 512^3 0.195 ms for 0.219, but 2048^3 16.5 for 11.8;
//! - rows of the next block of k packed a few before each tile, as soon as they have been asked for, so that packing waits for nothing:
//!   what it moves is in the way of tiles; 1024^3 1.96 ms for 1.89, 577x4096x1024 4.89 for 3.94, 2048^3 16.2 for 13.9, 512^3 0.207 for
//!   0.189, on two threads 0.155 for 0.094;
//! - lines of the result asked for in all blocks of k instead of the last: within 2 %;
//! - lines of the result asked for a few with each group: a list of requests takes longer to write than it gains, 512^3 and
//!   197x3072x768 10 %; not asked for at all: eight pictures through ViT-B 9 % longer, on two threads 4 to 8 % less.
//!
//! What is left, by leaving parts out (one thread, a slow phase, ms): 1024^3 takes 1.98, without results 1.78, with the same rhs for all
//! columns as well 1.65, from packed rows that nobody packs 1.51; 577x4096x1024 5.15, without results 4.30, without packing 4.14, with
//! the same rhs as well 4.01. That is 1.21 to 1.42 TFLOP/s, where the loop in C with operands in L2 had 1.52.
//!
//! Measured before, on another shared Xeon (2.3 TFLOP/s by the probe, one thread; the unit is shared with the core's other thread, so rates
//! double and halve by phases) in a loop of products alone, 512^3 to 2048^3: rows of lhs where they lie 0.80 to 0.88 of packed
//! ones, all loads before the products 0.91 to 0.97.

use super::ahead::Ahead;
use super::blocked::{self, Lhs, Sums, Tile};
use super::{Gemm, bf16};
use crate::backend::cpu::simd::amx::{Amx, BLOCK, Lies, Product, SIDE, Unit};
use crate::backend::cpu::simd::{Avx512, Simd, pack_pairs};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Launch};
use crate::error::{Result, Unsupported};

pub(super) fn supports(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    Unsupported::require("a processor with AMX for bf16, and a system that allows it", caps.amx)?;
    bf16::supports(op, caps)
}

pub(super) fn workspace(op: &Gemm, caps: &Caps) -> usize {
    blocked::workspace_bytes::<AmxTile<Amx>>(op, bf16::panels(op.gated), caps)
}

pub(super) fn launch(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    run(Amx::detect().expect("supports() has checked it"), op, l)
}

fn run<U: Unit>(unit: U, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = Avx512::detect().expect("supports() has checked it");
    blocked::run(AmxTile { s, unit }, op, bf16::panels(op.gated), l);
    Ok(())
}

/// Steps of k in a block, in one that is all of k, and in those of fewer than so many tiles of rows.
pub(super) const KC: usize = 128;
const KC_ALONE: usize = 256;
const KC_OF_FEW: usize = 2048;
const FEW_TILES: usize = 3;

/// Vectors are for what comes after the sums.
struct AmxTile<U> {
    s: Avx512,
    unit: U,
}

impl<U: Unit> Tile for AmxTile<U> {
    type S = Avx512;
    type Source = half::bf16;
    type Step = u32;
    type Rhs = half::bf16;
    type Value = half::bf16;
    type Turn = U::Turn;
    const KR: usize = 2;
    const MR: usize = BLOCK;
    const GROUP: usize = SIDE;
    const WHOLE: bool = true;
    const STORES: bool = false;
    const BLOCK_ROWS: usize = 320;

    fn steps(tiles: usize, steps: usize) -> usize {
        match tiles {
            0..FEW_TILES => KC_OF_FEW,
            _ if steps <= KC_ALONE => KC_ALONE,
            _ => KC,
        }
    }

    fn simd(&self) -> Avx512 {
        self.s
    }

    fn begin(&self) -> U::Turn {
        self.unit.begin()
    }

    fn pack_row(&self, row: &[half::bf16], out: &mut [u32]) {
        match (<&[half::bf16; 2 * SIDE]>::try_from(row), bytemuck::cast_slice_mut(out).first_chunk_mut()) {
            // A whole group, of known length: not a call.
            (Ok(row), Some(out)) => *out = *row,
            _ => pack_pairs(row, out),
        }
    }

    fn piece<'a>(&self, rhs: &'a [half::bf16], _: &'a mut [f32]) -> &'a [half::bf16] {
        rhs
    }

    fn multiply(
        &self,
        turn: &mut U::Turn,
        rows: usize,
        lhs: Lhs<'_, u32>,
        rhs: &[half::bf16],
        ahead: &mut Ahead,
        sums: Sums<'_>,
    ) {
        let (lhs, lies) = match lhs {
            Lhs::Packed(lhs) => (lhs, Lies::InGroups),
            Lhs::Rows(lhs, stride) => (lhs, Lies::InRows(2 * stride)),
        };
        let [_, group] = lies.strides();
        let Sums { acc, mut adds, to: None } = sums else { unreachable!("this tile does not store, see `STORES`") };
        let steps = ahead.steps;
        if steps == 0 && !adds {
            acc.fill(0.0);
        }
        let lhs: &[half::bf16] = bytemuck::cast_slice(lhs);
        let (whole, left) = (steps / SIDE, steps % SIDE);
        // A longer piece of rhs is most of L1.
        let passes = steps > KC;
        let mut at = 0;
        for (groups, steps) in [(whole, SIDE), (1, left)].into_iter().filter(|&(groups, steps)| groups * steps > 0) {
            let (lhs, rhs) = (&lhs[at * group..], &rhs[at * Product::GROUP..]);
            let ahead = if at == 0 { ahead.first_rows() } else { [(std::ptr::null(), 0); 2] };
            U::multiply(
                turn,
                Product {
                    half: rows <= SIDE,
                    narrow: false,
                    steps,
                    groups,
                    lhs,
                    lies,
                    passes,
                    rhs,
                    sums: &mut *acc,
                    adds,
                    ahead,
                },
            );
            (at, adds) = (at + groups, true);
        }
    }
}

#[cfg(test)]
pub(super) use tests::row;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::backend::Backend;
    use crate::backend::cpu::simd::amx::Model;
    use crate::bench::check_kernel;

    const NAME: &str = "gemm_bf16_panels32x2__model_mr32";

    /// For the table of kernels while the library is tested; by name only.
    pub const fn row() -> Kernel<Cpu, Gemm> {
        Kernel::new(NAME, bf16::supports, |_, op, l| run(Model, op, l))
            .takes(super::super::TAKES)
            .suits(|_, _| false)
            .workspace(workspace)
    }

    #[test]
    fn cases_agree_with_the_reference() {
        // Several blocks of k, the last of them with pairs left over, and an odd k; few rows after many; rows read where they lie,
        // but for those of a last tile that is not full.
        let more = [
            "m=70,n=70,k=2130",
            "m=33,n=40,k=1035,batch=2",
            "m=4040,n=33,k=300",
            "m=100,n=70,k=352",
            "m=96,n=70,k=416,batch=2",
        ]
        .map(|of| format!("gemm({of},lhs=bf16,rhs=bf16)"));
        let checked = check_kernel("gemm", NAME, &more.each_ref().map(String::as_str));
        let device = Device::cpu().unwrap();
        let runs = bf16::supports(&"gemm(lhs=bf16,rhs=bf16)".parse().unwrap(), Cpu::caps(device.as_cpu().unwrap()));
        assert_eq!(checked > 0, runs.is_ok());
    }
}
