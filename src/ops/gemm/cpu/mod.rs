//! Matrix products on the CPU.
//!
//! Layouts: lhs [m, k] with any strides; rhs [n, k] plain with any strides, or in panels of nr = 2 vectors; out
//! contiguous. (So the products of gradients need no transposed copies.)
//!
//! Algorithm (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"), see `blocked.rs`:
//! 1. A plain rhs is packed into panels in the workspace; a prepared one is read where it lies.
//! 2. Rows of lhs are read where they lie if L1 can hold them side by side and their values are what tiles multiply. Others are
//!    copied (and widened) by the block of the result that wants them. Those whose values are no neighbours are packed beforehand,
//!    k in blocks of KC, into tiles of mr rows whose values of one k are neighbours.
//! 3. Work is cut into blocks of the result. A block walks k; for each KC, each rhs panel meets each tile of rows in
//!    mr x nr registers (`tile.rs`, `bf16.rs`, `amx.rs`), whose sums lie in L2 between KCs.
//! 4. After the last KC the tile passes once through the epilogue (`epilogue.rs`).
//!
//! Few rows take dot products with a plain rhs (`dot.rs`), or a sweep over k where its rows are not contiguous (`sweep.rs`), and
//! prepared panels one by one (`few.rs`): nothing is packed, the rhs is read once. A quantised rhs has kernels of its own (`quant/`).
//!
//! Bound: arithmetic for m above about 16, memory (the rhs, read once) below.

mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod blocked;
mod dot;
mod epilogue;
mod few;
mod quant;
mod sweep;
mod tile;

use super::Gemm;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::simd::{Avx2, Avx512};
use crate::backend::cpu::simd::{Isa, Portable, Simd};
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Format};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::with_float;
use quant::Dot;

const TAKES: &[Takes] = &[Takes::Strided, Takes::Strided];
/// Of kernels that read rows of lhs where they lie.
const TAKES_ROWS: &[Takes] = &[Takes::Rows, Takes::Strided];

impl Kernels<Cpu> for Gemm {
    const KERNELS: &'static [Kernel<Cpu, Self>] = &[
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        dot_row::<Avx512>("gemm_dot__avx512"),
        #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
        dot_row::<Avx2>("gemm_dot__avx2"),
        #[cfg(not(any(all(target_arch = "x86_64", one_isa), no_isa)))]
        dot_row::<Portable>("gemm_dot__portable"),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        sweep_row::<Avx512>("gemm_sweep__avx512"),
        #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
        sweep_row::<Avx2>("gemm_sweep__avx2"),
        #[cfg(not(any(all(target_arch = "x86_64", one_isa), no_isa)))]
        sweep_row::<Portable>("gemm_sweep__portable"),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        few_row::<Avx512>("gemm_few_panels32__avx512"),
        #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
        few_row::<Avx2>("gemm_few_panels16__avx2"),
        #[cfg(not(any(all(target_arch = "x86_64", one_isa), no_isa)))]
        few_row::<Portable>("gemm_few_panels16__portable"),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        Kernel::new("gemm_bf16_panels32x2__amx_mr32", amx::supports, amx::launch)
            .takes(TAKES)
            .tunables(&[("mr", 32), ("nr", 32), ("kr", 2), ("kc", 2 * amx::KC as u32)])
            .workspace(amx::workspace),
        #[cfg(all(target_arch = "x86_64", not(no_isa), test))]
        amx::row(),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        Kernel::new("gemm_bf16_panels32x2__avx512bf16_mr14", bf16::supports, bf16::launch)
            .takes(TAKES)
            .tunables(&[("mr", 14), ("nr", 32), ("kr", 2), ("kc", 2 * blocked::KC as u32)])
            .suits(|op, caps| caps.bf16_dot_is_fast || op.format != Format::Plain)
            .workspace(bf16::workspace),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        tiled_row::<Avx512>("gemm_f32_panels32__avx512_mr14", &[("mr", 14), ("nr", 32), ("kc", blocked::KC as u32)]),
        #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
        tiled_row::<Avx2>("gemm_f32_panels16__avx2_mr6", &[("mr", 6), ("nr", 16), ("kc", blocked::KC as u32)]),
        #[cfg(not(any(all(target_arch = "x86_64", one_isa), no_isa)))]
        tiled_row::<Portable>("gemm_f32_panels16__portable_mr4", &[("mr", 4), ("nr", 16), ("kc", blocked::KC as u32)]),
        #[cfg(all(target_arch = "x86_64", not(no_isa)))]
        quant_row::<quant::x86::Vnni512>("gemm_quant__avx512vnni_mr4"),
        #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
        quant_row::<quant::x86::Vnni256>("gemm_quant__avxvnni_mr2"),
        #[cfg(all(target_arch = "x86_64", not(any(one_isa, no_isa, test))))]
        quant_row::<Avx2>("gemm_quant__avx2_mr2"),
        #[cfg(not(any(all(target_arch = "x86_64", one_isa), no_isa)))]
        quant_row::<Portable>("gemm_quant__portable_mr2"),
    ];
}

const fn dot_row<S: Simd>(name: &'static str) -> Kernel<Cpu, Gemm> {
    Kernel::new(name, dot::supports::<S>, dot::launch::<S>).takes(&[Takes::Rows, Takes::Rows]).suits(dot::suits)
}

const fn sweep_row<S: Simd>(name: &'static str) -> Kernel<Cpu, Gemm> {
    Kernel::new(name, sweep::supports::<S>, sweep::launch::<S>).takes(TAKES)
}

const fn few_row<S: Simd>(name: &'static str) -> Kernel<Cpu, Gemm> {
    Kernel::new(name, few::supports::<S>, few::launch::<S>).takes(TAKES_ROWS).workspace(few::workspace)
}

const fn tiled_row<S: Simd>(name: &'static str, tunables: &'static [(&'static str, u32)]) -> Kernel<Cpu, Gemm> {
    Kernel::new(name, supports::<S>, launch::<S>).takes(TAKES).tunables(tunables).workspace(workspace::<S>)
}

const fn quant_row<D: Dot>(name: &'static str) -> Kernel<Cpu, Gemm> {
    Kernel::new(name, quant::supports::<D>, quant::launch::<D>).takes(TAKES_ROWS).workspace(quant::workspace)
}

/// The format of the panels that the f32 tiles of an instruction set read.
fn panels<S: Simd>(gated: bool) -> Format {
    Format::Panels { nr: 2 * S::LANES as u16, kr: 1, gated }
}

/// The format that this processor's best kernel reads.
pub(super) fn wanted_format(caps: &Caps, lhs: DType, rhs: DType, format: Format, gated: bool) -> Format {
    if let Some(quant) = format.quant() {
        return Format::BlockPanels { quant, gated };
    }
    #[cfg(target_arch = "x86_64")]
    match caps.isa {
        Isa::Avx512 if (caps.bf16_dot_is_fast || caps.amx) && lhs == DType::BF16 && rhs == DType::BF16 => {
            return bf16::panels(gated);
        }
        Isa::Avx512 => return panels::<Avx512>(gated),
        Isa::Avx2 => return panels::<Avx2>(gated),
        Isa::Portable => {}
    }
    let _ = (caps, lhs, rhs);
    panels::<Portable>(gated)
}

fn supports<S: Simd>(op: &Gemm, caps: &Caps) -> Result<(), Unsupported> {
    caps.has(S::ISA)?;
    let own = op.format == Format::Plain || op.format == panels::<S>(op.gated);
    Unsupported::require("rhs plain or in panels of this kernel's width (nr) and kr = 1", own)
}

fn workspace<S: Simd>(op: &Gemm, caps: &Caps) -> usize {
    blocked::workspace_bytes::<tile::F32Tile<S, f32, f32>>(op, panels::<S>(op.gated), caps)
}

fn launch<S: Simd>(_: &Kernel<Cpu, Gemm>, op: &Gemm, l: &mut Launch<'_, Cpu>) -> Result<()> {
    let s = S::detect().expect("supports() has checked it");
    with_float!(op.lhs, L => with_float!(op.rhs, R => {
        blocked::run(tile::F32Tile::<S, L, R>::new(s), op, panels::<S>(op.gated), l)
    }));
    Ok(())
}
