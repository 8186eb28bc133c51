use super::Pad;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Pad>> {
    let mut cases = Case::edge(&[
        "size=1",
        "outer=3,size=37,before=5,after=2",
        "outer=2,size=9,before=8,after=8,padding=reflect",
        "outer=2,size=9,before=9,after=4,padding=circular",
        "outer=2,size=3,before=7,after=20,padding=replicate",
        "outer=2,size=5x6,before=2x0,after=1x3,padding=reflect,dtype=bf16",
        "outer=3,size=3x4x5,before=1x2x3,after=2x3x4,padding=reflect",
        "outer=2,size=3x4x5,before=3x0x5,after=2x4x1,padding=circular,dtype=f16",
        "size=2x1x33,before=2x1x0,after=0x3x40",
        "size=1x1,before=3x2,after=0x1,padding=replicate",
        "outer=0,size=4,before=1",
        "outer=2,size=9,before=8,after=8,padding=reflect,fold=true",
        "outer=2,size=40,before=40,after=3,padding=circular,fold=true",
        "outer=2,size=3x4,before=2x7,after=5x1,padding=replicate,fold=true",
        "outer=2,size=3x4x35,before=2x0x3,after=1x3x4,padding=reflect,fold=true",
        "size=5,before=2,after=1,fold=true",
    ]);
    cases.extend(Case::model(&[
        ("", "outer=64,size=24000,before=6,padding=reflect"),
        ("", "outer=128,size=256x256,before=1x1,after=1x1"),
        ("", "outer=128,size=256x256,before=1x1,after=1x1,padding=replicate,fold=true"),
    ]));
    cases
}
