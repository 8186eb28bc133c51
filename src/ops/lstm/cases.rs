use super::Lstm;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Lstm>> {
    let mut cases = Case::edge(&[
        "",
        "batch=2,len=3,hidden=5",
        "len=9,hidden=32,reverse=true",
        "batch=3,len=7,hidden=33,state=true",
        "batch=2,len=5,hidden=70,state=true,reverse=true,dtype=bf16",
        "len=4,hidden=40,dtype=f16",
        // Large enough for threads.
        "batch=2,len=6,hidden=130,state=true",
        "len=3,hidden=257,dtype=bf16",
        "batch=2,len=0,hidden=3,state=true",
        "batch=2,len=0,hidden=3",
        "batch=0,len=2,hidden=3",
        "batch=2,len=2,hidden=0,state=true",
    ]);
    cases.extend(Case::model(&[
        ("", "len=150,hidden=512"),
        ("", "len=50,hidden=1024,reverse=true"),
        ("", "batch=8,len=75,hidden=512,dtype=bf16"),
    ]));
    cases
}
