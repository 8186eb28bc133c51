use super::{PatchOrder, Unpatchify};
use crate::ops::Real;

pub fn unpatchify<T: Real>(op: &Unpatchify, inputs: &[Option<Vec<T>>]) -> Vec<Vec<T>> {
    let patches = inputs[0].as_ref().expect("checked");
    let [grid_t, grid_h, grid_w] = op.grid();
    let (ph, pw) = (op.patch_h, op.patch_w);
    let mut out = Vec::with_capacity(patches.len());
    for plane in 0..op.batch * op.channels * op.frames {
        let (b, c, t) = (plane / (op.channels * op.frames), plane / op.frames % op.channels, plane % op.frames);
        for (y, x) in (0..op.height).flat_map(|y| (0..op.width).map(move |x| (y, x))) {
            let patch = ((b * grid_t + t / op.tubelet) * grid_h + y / ph) * grid_w + x / pw;
            let (f, y, x) = (t % op.tubelet, y % ph, x % pw);
            let inside = match op.order {
                PatchOrder::ChannelFirst => ((c * op.tubelet + f) * ph + y) * pw + x,
                PatchOrder::ChannelLast => ((f * ph + y) * pw + x) * op.channels + c,
            };
            out.push(patches[patch * op.patch_len() + inside]);
        }
    }
    vec![out]
}
