use super::Concat;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Concat>> {
    let mut cases = Case::edge(&[
        "",
        "parts=3",
        "parts=0x3x0",
        "parts=0x0",
        "outer=0,parts=2x3",
        "parts=3x4x5,outer=2,inner=7",
        "parts=1x2x3x4x5x6x7x8,outer=3,dtype=bf16",
        "parts=1x0x300x2,outer=5,inner=100,dtype=u8",
        "parts=2x1,outer=1000,dtype=i32",
        "parts=17x4,outer=9,inner=3,dtype=f16",
        "parts=5x40000,inner=2,dtype=u32",
    ]);
    cases.extend(Case::model(&[
        ("", "parts=1x576,inner=1024"),
        ("", "outer=32,parts=2048x1,inner=128,dtype=bf16"),
        ("", "outer=577,parts=1024x1024x1024"),
    ]));
    cases
}
