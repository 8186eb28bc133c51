use super::CrossEntropy;
use crate::ops::Case;

pub fn cases() -> Vec<Case<CrossEntropy>> {
    let mut cases = Case::edge(&[
        "",
        "rows=3,classes=7",
        "rows=5,classes=16,weights=true",
        "rows=9,classes=4,ignore=2",
        "rows=9,classes=3,ignore=0,weights=true,labels=u32",
        "rows=33,classes=1000,labels=u32",
        "rows=4,classes=2500,dtype=bf16,weights=true",
        "rows=6,classes=1023,dtype=f16",
        "rows=2,classes=20000,dtype=bf16",
        "rows=3,classes=1025,dtype=bf16,labels=u32,ignore=1000",
        // Rows in whole vectors of 16 bytes.
        "rows=5,classes=1024,dtype=f16",
        "rows=0,classes=5,weights=true",
        "rows=0,classes=0",
    ]);
    cases.extend(Case::model(&[
        ("", "rows=512,classes=32000"),
        ("", "rows=256,classes=128256,dtype=bf16,weights=true"),
        ("", "rows=2048,classes=1000"),
    ]));
    cases
}
