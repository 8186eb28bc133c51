use super::Copy;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Copy>> {
    let mut cases = Case::edge(&[
        "shape=1",
        "shape=scalar",
        "shape=7x5",
        "shape=3x4x5",
        "shape=2x3x4x5x6,dtype=bf16",
        "shape=33x65,dtype=u8",
        "shape=2x0x3",
        "shape=100x100,dtype=i32",
        "shape=5x6x7,dtype=f16",
        "shape=3x70x90,dtype=f16",
        "shape=9x4,dtype=u32",
    ]);
    cases.extend(Case::model(&[("", "shape=1x197x12x64"), ("", "shape=4096x4096")]));
    cases
}
