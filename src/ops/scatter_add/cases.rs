use super::ScatterAdd;
use crate::ops::Case;

pub fn cases() -> Vec<Case<ScatterAdd>> {
    let mut cases = Case::edge(&[
        "",
        "count=7,width=5,n=0",
        "count=0,width=5,n=0",
        "count=7,width=0,n=3",
        "count=7,width=1,n=100",
        "count=1,width=70,n=300",
        "count=1000,width=9,n=20",
        "count=100,width=33,n=65,ids=i32",
        "count=20,width=70,n=50,dtype=bf16",
        "count=30,width=300,n=400,dtype=f16,ids=i32",
        "count=3,width=5000,n=11",
    ]);
    cases.extend(Case::model(&[("", "count=32000,width=2048,n=2048"), ("", "count=1024,width=768,n=8192,dtype=bf16")]));
    cases
}
