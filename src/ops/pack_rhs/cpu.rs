//! Packing on the CPU. A plain `rhs` [n, k] may have any strides; panels are as [`Format`] describes.
//!
//! Panels (unpacking: rows in sixteens) are spread over threads. Inside a panel, k advances in blocks of 64 so that the
//! lines of the panel (nr values per k) stay in L1 while each row is walked in order. Of quantised blocks, each row of a
//! panel is written in turn. Bound: memory, one read and one write; once per weight.

use super::PackRhs;
use crate::backend::cpu::{Caps, Cpu};
use crate::backend::{Kernel, Kernels, Launch};
use crate::dtype::{DType, Elem, Format};
use crate::error::{Result, Unsupported};
use crate::layout::Takes;
use crate::ops::panels::{pack_blocks, pack_panels, unpack_panels};

impl Kernels<Cpu> for PackRhs {
    const KERNELS: &'static [Kernel<Cpu, Self>] =
        &[Kernel::new("pack_rhs__portable", supports, launch).takes(&[Takes::Strided])];
}

fn supports(_: &PackRhs, _: &Caps) -> Result<(), Unsupported> {
    Ok(())
}

fn launch(_: &Kernel<Cpu, PackRhs>, op: &PackRhs, l: &mut Launch<'_, Cpu>) -> Result<()> {
    match op.format {
        Format::BlockPanels { quant, gated } => {
            let rhs = l.input(0);
            let Some(out) = l.output(0) else { return Ok(()) };
            pack_blocks(l.pool(), rhs, [op.n, op.k], quant, gated, out);
        }
        _ if op.dtype == DType::F32 => pack::<f32>(op, l),
        _ => pack::<u16>(op, l),
    }
    Ok(())
}

/// Elements are moved as they are, so that both 16-bit floats share code.
trait Bits: bytemuck::Pod + Send + Sync {
    fn input<'a>(l: &Launch<'a, Cpu>, dtype: DType) -> &'a [Self];
    fn output<'a>(l: &mut Launch<'a, Cpu>, dtype: DType) -> Option<&'a mut [Self]>;
}

impl Bits for f32 {
    fn input<'a>(l: &Launch<'a, Cpu>, _: DType) -> &'a [f32] {
        l.input(0)
    }
    fn output<'a>(l: &mut Launch<'a, Cpu>, _: DType) -> Option<&'a mut [f32]> {
        l.output(0)
    }
}

impl Bits for u16 {
    fn input<'a>(l: &Launch<'a, Cpu>, dtype: DType) -> &'a [u16] {
        fn of<'a, T: Elem>(l: &Launch<'a, Cpu>) -> &'a [u16] {
            bytemuck::cast_slice(l.input::<T>(0))
        }
        if dtype == DType::BF16 { of::<half::bf16>(l) } else { of::<half::f16>(l) }
    }
    fn output<'a>(l: &mut Launch<'a, Cpu>, dtype: DType) -> Option<&'a mut [u16]> {
        fn of<'a, T: Elem>(l: &mut Launch<'a, Cpu>) -> Option<&'a mut [u16]> {
            l.output::<T>(0).map(bytemuck::cast_slice_mut)
        }
        if dtype == DType::BF16 { of::<half::bf16>(l) } else { of::<half::f16>(l) }
    }
}

fn pack<T: Bits>(op: &PackRhs, l: &mut Launch<'_, Cpu>) {
    let (rhs, layout) = (T::input(l, op.dtype), *l.layout(0));
    let Some(out) = T::output(l, op.dtype) else { return };
    match op.format {
        Format::Plain => unpack_panels(l.pool(), rhs, [op.n, op.k], op.from, out),
        format => pack_panels(l.pool(), rhs, [layout.strides[0], layout.strides[1]], [op.n, op.k], format, out),
    }
}
