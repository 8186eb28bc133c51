use super::{PatchOrder, Patchify, PixelLayout};
use crate::ops::Real;

pub fn patchify<T: Real>(op: &Patchify, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let pixels = inputs[0].as_ref().expect("checked");
    let [grid_t, grid_h, grid_w] = op.grid();
    let mut out = Vec::with_capacity(op.batch * grid_t * grid_h * grid_w * op.patch_len());
    let pixel = |b: usize, c: usize, t: usize, y: usize, x: usize| {
        let v = pixels[match op.layout {
            PixelLayout::Planar => (((b * op.channels + c) * op.frames + t) * op.height + y) * op.width + x,
            PixelLayout::Interleaved => (((b * op.frames + t) * op.height + y) * op.width + x) * op.channels + c,
        }];
        match (&inputs[1], &inputs[2]) {
            (Some(mean), Some(std)) => (v * T::of(op.scale.0 as f64) - mean[c]) / std[c],
            _ => v,
        }
    };
    for patch in 0..op.batch * grid_t * grid_h * grid_w {
        let (b, place) = (patch / (grid_t * grid_h * grid_w), patch % (grid_t * grid_h * grid_w));
        let (t0, y0) = (place / (grid_h * grid_w) * op.tubelet, place / grid_w % grid_h * op.patch_h);
        let x0 = place % grid_w * op.patch_w;
        for i in 0..op.patch_len() {
            let [c, f, y, x] = match op.order {
                PatchOrder::ChannelFirst => {
                    let (x, y) = (i % op.patch_w, i / op.patch_w % op.patch_h);
                    let f = i / (op.patch_w * op.patch_h);
                    [f / op.tubelet, f % op.tubelet, y, x]
                }
                PatchOrder::ChannelLast => {
                    let (c, x) = (i % op.channels, i / op.channels % op.patch_w);
                    let y = i / (op.channels * op.patch_w);
                    [c, y / op.patch_h, y % op.patch_h, x]
                }
            };
            out.push(pixel(b, c, t0 + f, y0 + y, x0 + x));
        }
    }
    vec![out]
}
