//! Quantised blocks to numbers: the definition that kernels and references share. No op.

use crate::dtype::Quant;
use half::f16;

/// The values of one block: `block` holds [`Quant::block_bytes`], `out` gets [`Quant::block_values`].
///
/// # Panics
/// A slice is shorter than that.
#[inline(always)] // into functions that are compiled for an instruction set
pub fn dequantise_block(quant: Quant, block: &[u8], out: &mut [f32]) {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    match quant {
        Quant::Q8_0 => {
            let d = half(0);
            for (x, &q) in out[..32].iter_mut().zip(&block[2..34]) {
                *x = d * f32::from(q as i8);
            }
        }
        Quant::Q4_0 => {
            let d = half(0);
            nibbles(&block[2..18], &mut out[..32], |q| d * (q - 8.0));
        }
        Quant::Q4_1 => {
            let (d, m) = (half(0), half(2));
            nibbles(&block[4..20], &mut out[..32], |q| d * q + m);
        }
        Quant::Q4_K => {
            let (d, dmin) = (half(0), half(2));
            for (pair, q) in block[16..144].chunks_exact(32).enumerate() {
                for (group, shift) in [(2 * pair, 0), (2 * pair + 1, 4)] {
                    let (scale, min) = q4_k_factors(&block[4..16], group);
                    let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
                    for (x, &q) in out[32 * group..32 * group + 32].iter_mut().zip(q) {
                        *x = d * f32::from(q >> shift & 15) - m;
                    }
                }
            }
        }
        Quant::Q6_K => {
            let d = half(208);
            for (i, x) in out[..256].iter_mut().enumerate() {
                let scale = block[192 + i / 16] as i8;
                *x = d * f32::from(scale) * f32::from(i16::from(q6_k_value(block, i)) - 32);
            }
        }
    }
}

/// Low nibbles make the first half, high nibbles the second.
#[inline(always)]
fn nibbles(packed: &[u8], out: &mut [f32], value: impl Fn(f32) -> f32) {
    let (low, high) = out.split_at_mut(packed.len());
    for ((&q, low), high) in packed.iter().zip(low).zip(high) {
        (*low, *high) = (value(f32::from(q & 15)), value(f32::from(q >> 4)));
    }
}

/// Scale and minimum of group 0 to 7 of a [`Quant::Q4_K`] block, from its 12 bytes of six-bit numbers.
pub(crate) fn q4_k_factors(packed: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => {
            let (low, a, b) = (packed[group + 4], packed[group - 4], packed[group]);
            (low & 15 | a >> 6 << 4, low >> 4 | b >> 6 << 4)
        }
    }
}

/// The six bits of value `i` of a [`Quant::Q6_K`] block; 32 stands for zero.
#[inline(always)]
pub(crate) fn q6_k_value(block: &[u8], i: usize) -> u8 {
    // Halves of 128 values; in each, four runs of 32 share 64 bytes of low and 32 bytes of high bits.
    let (half, run, l) = (i / 128, i % 128 / 32, i % 32);
    let low = block[64 * half + l + 32 * (run % 2)] >> (4 * (run / 2)) & 15;
    let high = block[128 + 32 * half + l] >> (2 * run) & 3;
    low | high << 4
}

/// Rows of blocks as numbers; `bytes` and `out` hold whole blocks, as many as each other.
#[inline(always)]
pub fn dequantise(quant: Quant, bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(quant.block_bytes()).zip(out.chunks_exact_mut(quant.block_values())) {
        dequantise_block(quant, block, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_mean_what_the_format_says() {
        let one = f16::from_f32(1.0).to_le_bytes();
        let mut q4_1 = [one, f16::from_f32(-0.5).to_le_bytes()].concat();
        q4_1.extend((0..16).map(|i| i | (15 - i) << 4));
        let mut out = [0f32; 32];
        dequantise_block(Quant::Q4_1, &q4_1, &mut out);
        assert_eq!((out[3], out[16], out[31]), (2.5, 14.5, -0.5));

        // Group 5 of a Q4_K block has scale 0b10_0011 and min 0b01_0010.
        let mut packed = [0u8; 12];
        (packed[9], packed[1], packed[5]) = (0x23, 0b1000_0000, 0b0100_0000);
        assert_eq!(q4_k_factors(&packed, 5), (0b10_0011, 0b01_0010));

        // Value 128 + 96 + 7 of a Q6_K block: high nibble of byte 64 + 32 + 7, top two bits of byte 128 + 32 + 7.
        let mut block = [0u8; 210];
        (block[103], block[167]) = (0xa0, 0b1100_0000);
        assert_eq!(q6_k_value(&block, 231), 0b11_1010);
        block[208..].copy_from_slice(&one);
        block[192 + 231 / 16] = (-3i8) as u8;
        let mut out = [0f32; 256];
        dequantise_block(Quant::Q6_K, &block, &mut out);
        assert_eq!(out[231], -3.0 * (0b11_1010 - 32) as f32);
    }
}
