use super::Gather;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Gather>> {
    let mut cases = Case::edge(&[
        "",
        "count=7,width=5,n=0",
        "count=0,width=5,n=0",
        "count=7,width=0,n=3",
        "count=7,width=1,n=100",
        "count=100,width=33,n=65,ids=i32",
        "count=100,width=70,n=30,dtype=bf16,out=bf16",
        "count=100,width=71,n=30,dtype=bf16,out=f32",
        "count=100,width=300,n=1000,dtype=f16,out=f16,ids=i32",
        "count=50,width=19,n=40,dtype=f16,out=f32",
        "count=100,width=96,n=30,dtype=u8,format=q8_0",
        "count=70,width=64,n=20,dtype=u8,format=q4_0,ids=i32",
        "count=70,width=32,n=600,dtype=u8,format=q4_1",
        "count=30,width=512,n=50,dtype=u8,format=q4_k",
        "count=30,width=256,n=70,dtype=u8,format=q6_k",
        "count=3,width=0,n=7,dtype=u8,format=q6_k",
    ]);
    cases.extend(Case::model(&[
        ("", "count=32000,width=2048,n=512,dtype=bf16,out=f32"),
        ("", "count=49408,width=512,n=77"),
        ("", "count=32000,width=2048,n=1,dtype=bf16,out=f32"),
        ("", "count=49152,width=576,n=512,dtype=u8,format=q8_0"),
        ("", "count=32000,width=4096,n=1,dtype=u8,format=q4_k"),
    ]));
    cases
}
