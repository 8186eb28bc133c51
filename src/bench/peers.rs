//! Cases that benches of other libraries have and that no op has as one problem: operands that lie otherwise, two problems in
//! one.

use super::operands::{Call, parse_calls};
use crate::error::Result;

/// Matrix products of two operands that both change: the second lies as [k, n] and is packed in each call.
const PRODUCTS: &[(&str, [usize; 3])] = &[
    ("gemm/512x512x512", [512, 512, 512]),
    ("gemm/1024x1024x1024", [1024, 1024, 1024]),
    ("gemm/2048x2048x2048", [2048, 2048, 2048]),
    ("gemm/197x3072x768", [197, 3072, 768]),
    ("gemm/577x4096x1024", [577, 4096, 1024]),
    ("gemm/1x4096x4096", [1, 4096, 4096]),
    ("gemm/1x11008x4096", [1, 11008, 4096]),
    ("gemm/32x4096x4096", [32, 4096, 4096]),
];

/// Patches and their projection, which others have as a convolution.
const PATCHES: &[(&str, &str, usize, usize)] = &[
    ("patchify/image_336_p14", "height=336,width=336,patch_h=14,patch_w=14", 576, 588),
    ("patchify/video_16x224_t2p16", "frames=16,height=224,width=224,patch_h=16,patch_w=16,tubelet=2", 1568, 1536),
];

/// The calls.
///
/// # Errors
/// None but those of a table that does not parse.
pub(super) fn peers_calls() -> Result<Vec<Call>> {
    let types = ["", ",lhs=bf16,rhs=bf16,out=bf16"];
    let product = |(case, [m, n, k]): (&'static str, [usize; 3]), types| {
        Ok(Call { case, ..parse_calls(&format!("gemm(m={m},n={n},k={k}{types}) rhs:strides=1x{n}"))? })
    };
    let products = PRODUCTS.iter().flat_map(|&p| types.map(|types| product(p, types)));
    let patches = PATCHES.iter().flat_map(|&(case, fields, m, k)| {
        [("f32", "panels32x1"), ("bf16", "panels32x2")].map(|(dtype, format)| {
            let product = format!("gemm(m={m},n=1024,k={k},lhs={dtype},rhs={dtype},out={dtype},format={format})");
            Ok(Call { case, ..parse_calls(&format!("patchify({fields},out={dtype}) then {product}"))? })
        })
    });
    products.chain(patches).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn every_call_has_a_kernel_and_fits_together() {
        let device = Device::cpu_with_threads(1).unwrap();
        for call in peers_calls().unwrap() {
            call.kernel(&device, None).unwrap();
            let text = call.text().unwrap();
            assert_eq!(parse_calls(&text).unwrap().text().unwrap(), text);
            if let Some(then) = &call.then {
                let bytes = [call.problem.outputs()[0], then.inputs()[0]].map(|o| o.unwrap().bytes());
                assert_eq!(bytes[0], bytes[1], "{}", call.case);
            }
        }
    }
}
