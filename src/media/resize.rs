//! Resizing with Pillow's arithmetic, to the last bit: integer weights, one pass per axis, 8 bits between the passes.
//!
//! Reference pictures were all prepared by Pillow, and a float implementation differs from it by a grey level here
//! and there, so the integers are followed exactly, Pillow 13's order of the passes included.

use super::{Image, check_sides};
use crate::error::Result;

/// The fraction bits of a weight: 32, less 8 for the pixel and 2 for sign and overshoot.
const PRECISION: u32 = 22;

/// The weight at a distance from the centre, before the weights are made to sum to one.
type Kernel = fn(f64) -> f64;

/// A resampling filter. All but `Nearest` widen with the scale when they shrink, that is, they antialias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resample {
    /// The source pixel under the centre of the target pixel.
    Nearest,
    /// A triangle of radius 1.
    Bilinear,
    /// A cubic of radius 2 with a = -0.5 (position tables use another one, -0.75).
    Bicubic,
    /// A windowed sinc of radius 3.
    Lanczos,
}

impl Resample {
    /// From Pillow's numbers: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic. The others (box, Hamming) are unknown.
    pub fn from_pil(code: u64) -> Option<Resample> {
        Some(match code {
            0 => Resample::Nearest,
            1 => Resample::Lanczos,
            2 => Resample::Bilinear,
            3 => Resample::Bicubic,
            _ => return None,
        })
    }

    /// The radius in source pixels at scale one, and the kernel. `None` for nearest, which has no weights.
    fn kernel(self) -> Option<(f64, Kernel)> {
        match self {
            Resample::Nearest => None,
            Resample::Bilinear => Some((1.0, |x| (1.0 - x.abs()).max(0.0))),
            Resample::Bicubic => Some((2.0, bicubic)),
            Resample::Lanczos => Some((3.0, lanczos)),
        }
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

impl Image {
    /// The image at another size, the aspect ratio not kept. Fails where a side is zero or too long.
    pub fn resize(&self, width: usize, height: usize, filter: Resample) -> Result<Image> {
        check_sides(width, height)?;
        let Some((radius, kernel)) = filter.kernel() else { return Ok(self.nearest(width, height)) };
        let columns = |image: &Image| match width == image.width {
            true => image.clone(),
            false => image.columns(&taps(image.width, width, radius, kernel)),
        };
        let rows = |image: &Image| match height == image.height {
            true => image.clone(),
            false => image.rows(&taps(image.height, height, radius, kernel)),
        };
        // The pass that saves more work goes first; since both passes round, the order shows in the result.
        let lost = |from: usize, to: usize| from as i64 - to as i64;
        let (lost_rows, lost_columns) = (lost(self.height, height), lost(self.width, width));
        let rows_first = lost_rows > 0 && lost_rows > 2 * lost_columns;
        Ok(if rows_first { columns(&rows(self)) } else { rows(&columns(self)) })
    }

    fn nearest(&self, width: usize, height: usize) -> Image {
        let (across, down) = (nearest_sources(self.width, width), nearest_sources(self.height, height));
        let mut pixels = Vec::with_capacity(width * height * 3);
        for y in down {
            let row = &self.pixels[y * self.width * 3..][..self.width * 3];
            across.iter().for_each(|&x| pixels.extend_from_slice(&row[x * 3..x * 3 + 3]));
        }
        Image { width, height, pixels }
    }

    /// The horizontal pass.
    fn columns(&self, taps: &[Tap]) -> Image {
        let mut pixels = vec![0; taps.len() * self.height * 3];
        let rows = self.pixels.chunks_exact(self.width * 3);
        for (out, row) in pixels.chunks_exact_mut(taps.len() * 3).zip(rows) {
            for (out, tap) in out.chunks_exact_mut(3).zip(taps) {
                let mut sums = [1 << (PRECISION - 1); 3];
                for (pixel, &weight) in row[tap.first * 3..].chunks_exact(3).zip(&tap.weights) {
                    sums[0] += i32::from(pixel[0]) * weight;
                    sums[1] += i32::from(pixel[1]) * weight;
                    sums[2] += i32::from(pixel[2]) * weight;
                }
                out.copy_from_slice(&sums.map(rounded));
            }
        }
        Image { width: taps.len(), height: self.height, pixels }
    }

    /// The vertical pass: a row of sums to which whole source rows are added.
    fn rows(&self, taps: &[Tap]) -> Image {
        let row_len = self.width * 3;
        let mut pixels = vec![0; row_len * taps.len()];
        let mut sums = vec![0; row_len];
        for (out, tap) in pixels.chunks_exact_mut(row_len).zip(taps) {
            sums.fill(1 << (PRECISION - 1));
            for (row, &weight) in self.pixels[tap.first * row_len..].chunks_exact(row_len).zip(&tap.weights) {
                sums.iter_mut().zip(row).for_each(|(sum, &pixel)| *sum += i32::from(pixel) * weight);
            }
            out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = rounded(sum));
        }
        Image { width: self.width, height: taps.len(), pixels }
    }
}

/// A sum that began at one half, back to a grey level.
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// What one target pixel is made of: source pixels from `first` on, by these weights.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

fn taps(from: usize, to: usize, radius: f64, kernel: Kernel) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = radius * stretch;
    let inverse = 1.0 / stretch;
    let tap = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        // A cast truncates, and takes what is below zero to zero.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end).map(|p| kernel((p as f64 - centre + 0.5) * inverse)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: f64| w / sum * f64::from(1 << PRECISION);
        let whole = |w: f64| (w + 0.5_f64.copysign(w)) as i32;
        Tap { first, weights: weights.into_iter().map(|w| whole(fixed(w))).collect() }
    };
    (0..to).map(tap).collect()
}

/// The source index under each target's centre. The coordinate is summed up step by step, for that is how Pillow
/// comes by it, and its rounding errors decide ties.
fn nearest_sources(from: usize, to: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let places = std::iter::successors(Some(step * 0.5), |at| Some(at + step));
    places.take(to).map(|at| (at as usize).min(from - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Resample; 4] = [Resample::Nearest, Resample::Bilinear, Resample::Bicubic, Resample::Lanczos];

    fn grey(width: usize, height: usize, levels: &[u8]) -> Image {
        Image::new(width, height, levels.iter().flat_map(|&g| [g; 3]).collect()).unwrap()
    }

    fn levels(image: &Image) -> Vec<u8> {
        image.pixels().iter().copied().step_by(3).collect()
    }

    #[test]
    fn same_size_is_the_same_and_flat_stays_flat() {
        let image = Image::new(3, 2, (0..18).map(|i| i * 14).collect()).unwrap();
        let flat = grey(5, 7, &[200; 35]);
        for filter in ALL {
            assert_eq!(image.resize(3, 2, filter).unwrap(), image);
            for (width, height) in [(1, 1), (3, 11), (17, 2), (40, 40)] {
                assert!(flat.resize(width, height, filter).unwrap().pixels().iter().all(|&p| p == 200));
            }
        }
    }

    #[test]
    fn by_hand() {
        // Halving with a triangle of radius 2: [3 3 1]/7 at the left edge.
        let row = grey(4, 1, &[0, 70, 140, 210]);
        assert_eq!(levels(&row.resize(2, 1, Resample::Bilinear).unwrap()), [50, 160]);
        // Doubling: 3/4 and 1/4 inside, the edge pixel alone at the ends.
        let column = grey(1, 2, &[0, 100]);
        assert_eq!(levels(&column.resize(1, 4, Resample::Bilinear).unwrap()), [0, 25, 75, 100]);
        // Weights 0.8672 and 0.2266 of sum 1.0938 inside; at the ends the overshoot is clamped.
        let step = grey(2, 1, &[0, 255]);
        assert_eq!(levels(&step.resize(4, 1, Resample::Bicubic).unwrap()), [0, 53, 202, 255]);
        assert_eq!(levels(&row.resize(2, 1, Resample::Nearest).unwrap()), [70, 210]);
        assert_eq!(levels(&step.resize(3, 1, Resample::Nearest).unwrap()), [0, 255, 255]);
    }

    #[test]
    fn sizes_are_checked() {
        let image = grey(1, 1, &[9]);
        assert!(image.resize(0, 1, Resample::Bilinear).is_err());
        assert!(image.resize(1, usize::MAX, Resample::Nearest).is_err());
        assert_eq!(Resample::from_pil(4), None);
    }
}
