use super::TopK;
use crate::ops::Case;

pub fn cases() -> Vec<Case<TopK>> {
    let mut cases = Case::edge(&[
        "",
        "rows=3,cols=5,k=0",
        "rows=0,cols=5,k=2",
        "rows=3,cols=0,k=0",
        "rows=65,cols=7,k=7",
        "rows=3,cols=1000,k=3",
        "rows=2,cols=5000,k=1000",
        "rows=3,cols=2000,k=2000",
        "cols=5000,k=3000",
        // Most of 20000 values in bf16 are equal to others.
        "rows=3,cols=20000,k=500,dtype=bf16",
        "rows=7,cols=517,k=10,dtype=bf16",
        "rows=4,cols=3001,k=40,dtype=f16",
    ]);
    cases.extend(Case::model(&[
        ("", "cols=32000,k=50"),
        ("", "rows=32,cols=32000,k=50"),
        ("", "cols=151936,k=20,dtype=bf16"),
    ]));
    cases
}
