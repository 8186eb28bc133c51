use super::Argmax;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Argmax>> {
    let mut cases = Case::edge(&[
        "",
        "rows=0,cols=5",
        "rows=1000,cols=1",
        "rows=65,cols=7",
        "rows=3,cols=1000",
        "rows=5,cols=256",
        "rows=7,cols=517,dtype=bf16",
        // Of 40000 values in bf16 several are the largest.
        "rows=9,cols=40000,dtype=bf16",
        // Rows in whole vectors of 16 bytes.
        "rows=4,cols=3000,dtype=f16",
        "rows=4,cols=3001,dtype=f16",
    ]);
    cases.extend(Case::model(&[
        ("", "cols=32000"),
        ("", "rows=32,cols=32000"),
        ("", "cols=151936,dtype=bf16"),
        ("", "rows=1500,cols=2048"),
    ]));
    cases
}
