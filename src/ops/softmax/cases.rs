use super::Softmax;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Softmax>> {
    let mut cases = Case::edge(&[
        "rows=1,cols=1",
        "rows=3,cols=7",
        "rows=5,cols=16",
        "rows=2,cols=33",
        "rows=65,cols=257",
        "rows=4,cols=100,dtype=bf16",
        "rows=3,cols=1000,dtype=f16",
        // Longer than what a block of a GPU holds.
        "rows=2,cols=20001",
        "rows=2,cols=33000,dtype=bf16",
        "rows=0,cols=4",
        "rows=4,cols=0",
    ]);
    cases.extend(Case::model(&[
        ("softmax/577x1024", "rows=577,cols=1024"),
        ("softmax/2048x4096", "rows=2048,cols=4096"),
        ("softmax/577x1024", "rows=577,cols=1024,dtype=bf16"),
        ("softmax/2048x4096", "rows=2048,cols=4096,dtype=bf16"),
    ]));
    cases
}
