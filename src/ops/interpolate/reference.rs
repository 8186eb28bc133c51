use super::{Interpolate, Mode};
use crate::ops::{Real, Sample};

/// Points and weights of output `i`, from the definition: every point of the axis is asked for its weight.
fn row<T: Real>(op: &Interpolate, inputs: usize, outputs: usize, i: usize) -> Vec<(usize, T)> {
    let last = inputs as i64 - 1;
    if op.mode == Mode::Nearest {
        let at = (i as f32 * (inputs as f32 / outputs as f32)).floor() as i64;
        return vec![(at.min(last) as usize, T::of(1.0))];
    }
    let cubic = op.mode == Mode::Bicubic;
    let (a, radius) = if op.antialias { (-0.5, 2.0) } else { (-0.75, 2.0) };
    let radius = if cubic { radius } else { 1.0 };
    let filter = |x: f64| {
        let x = x.abs();
        if !cubic {
            (1.0 - x).max(0.0)
        } else if x <= 1.0 {
            (a + 2.0) * x.powi(3) - (a + 3.0) * x.powi(2) + 1.0
        } else if x < 2.0 {
            a * x.powi(3) - 5.0 * a * x.powi(2) + 8.0 * a * x - 4.0 * a
        } else {
            0.0
        }
    };
    let mut step = inputs as f64 / outputs as f64;
    if op.align_corners {
        step = if outputs > 1 { (inputs as f64 - 1.0) / (outputs as f64 - 1.0) } else { 0.0 };
    }
    if op.antialias {
        let (scale, centre) = (step.max(1.0), step * (i as f64 + 0.5));
        let (from, to) = ((centre - radius * scale + 0.5).trunc(), (centre + radius * scale + 0.5).trunc());
        let inside = (from.max(0.0) as i64)..(to.min(inputs as f64) as i64);
        let weights: Vec<f64> = inside.clone().map(|p| filter((p as f64 - centre + 0.5) / scale)).collect();
        let sum: f64 = weights.iter().sum();
        let sum = if sum != 0.0 { sum } else { 1.0 };
        return inside.zip(weights).map(|(p, w)| (p as usize, T::of(w / sum))).collect();
    }
    let mut centre = if op.align_corners { step * i as f64 } else { step * (i as f64 + 0.5) - 0.5 };
    if !cubic {
        centre = centre.max(0.0);
    }
    let reach = radius as i64;
    let around = (centre.floor() as i64 - reach)..=(centre.floor() as i64 + reach);
    around.map(|p| (p.clamp(0, last) as usize, T::of(filter(p as f64 - centre)))).collect()
}

pub fn interpolate<T: Real>(op: &Interpolate, inputs: &[Option<Vec<T>>], rows: Sample) -> Vec<Vec<T>> {
    let x = inputs[0].as_ref().expect("checked");
    let (planes, inner) = if op.channels_last { (op.batch, op.channels) } else { (op.batch * op.channels, 1) };
    let across: Vec<Vec<(usize, T)>> = (0..op.out_w).map(|i| row(op, op.in_w, op.out_w, i)).collect();
    let [h, w] = op.wanted();
    let mut out = vec![T::default(); planes * h * w * inner];
    for line in 0..planes * op.out_h {
        let (plane, down) = (line / op.out_h, row::<T>(op, op.in_h, op.out_h, line % op.out_h));
        for (i, across) in across.iter().enumerate() {
            let pixel = line * op.out_w + i;
            if !op.adjoint && !rows.wants(if op.channels_last { pixel } else { line }) {
                continue;
            }
            for c in 0..inner {
                for &(y, wy) in &down {
                    for &(x_at, wx) in across {
                        let (outer, point) = (pixel * inner + c, ((plane * op.in_h + y) * op.in_w + x_at) * inner + c);
                        let (from, to) = if op.adjoint { (outer, point) } else { (point, outer) };
                        out[to] += wy * wx * x[from];
                    }
                }
            }
        }
    }
    vec![out]
}
