use super::{Kind, Reduce};
use crate::ops::{Case, Class};

pub fn cases() -> Vec<Case<Reduce>> {
    let mut cases = Case::edge(&[
        "kind=sum,outer=2,len=0,inner=3",
        "kind=norm2,len=0",
        "kind=mean,outer=0,len=5",
        "kind=sum,outer=3,len=5,inner=0",
        // Partial results: a row of several segments, and columns of several.
        "kind=sum,len=100003",
        "kind=max,len=70001,outer=2",
        "kind=sum,len=5003,inner=37",
        "kind=norm2,len=2100,inner=300,outer=2",
        "kind=mean,len=3000,inner=2",
        "kind=min,len=40000,inner=3",
    ]);
    for kind in Kind::ALL {
        for fields in [
            "",
            "len=7",
            "outer=65,len=33",
            "outer=2,len=3,inner=5",
            "outer=3,len=130,inner=1000",
            "outer=300,len=100,dtype=bf16",
            "outer=2,len=67,inner=70,dtype=f16",
            // Rows and columns in whole vectors of 16 bytes.
            "outer=5,len=128,dtype=bf16",
            "outer=5,len=128,dtype=f16",
            "outer=2,len=67,inner=72,dtype=bf16",
            "outer=2,len=67,inner=72,dtype=f16",
        ] {
            let text = format!("reduce(kind={kind},{fields})");
            let problem = text.parse().unwrap_or_else(|e| panic!("a case of reduce: {e}"));
            cases.push(Case { class: Class::Edge, name: "", problem });
        }
    }
    cases.extend(Case::model(&[
        ("", "kind=mean,outer=1,len=577,inner=1024"),
        ("", "kind=sum,outer=2048,len=4096"),
        ("", "kind=sum,len=2048,inner=4096"),
        ("", "kind=sum,len=2048,inner=4096,dtype=bf16"),
        ("", "kind=norm2,len=16777216"),
    ]));
    cases
}
