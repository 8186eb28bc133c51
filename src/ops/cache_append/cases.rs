use super::CacheAppend;
use crate::ops::Case;

pub fn cases() -> Vec<Case<CacheAppend>> {
    let mut cases = Case::edge(&[
        "",
        "batch=3,len=2,capacity=7,width=5",
        "batch=2,len=4,capacity=4,width=33,dtype=bf16,cache=bf16",
        "batch=4,len=1,capacity=9,width=70,cache=bf16",
        "batch=2,len=50,capacity=90,width=300,cache=f16",
        "batch=2,len=70,capacity=100,width=513",
        "batch=5,len=3,capacity=8,width=31,dtype=f16,cache=f16",
        "batch=0,len=2,capacity=3,width=4",
        "batch=2,len=0,capacity=3,width=4",
        "batch=2,len=2,capacity=3,width=0",
        "batch=2,len=0,capacity=0,width=3",
    ]);
    cases.extend(Case::model(&[
        ("", "len=1024,capacity=2048,width=1024,cache=bf16"),
        ("", "batch=8,capacity=1024,width=1024,dtype=bf16,cache=bf16"),
    ]));
    cases
}
