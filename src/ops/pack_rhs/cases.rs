use super::PackRhs;
use crate::ops::Case;

pub fn cases() -> Vec<Case<PackRhs>> {
    let mut cases = Case::edge(&[
        "n=1,k=1",
        "n=33,k=17,format=panels32x1",
        "n=31,k=40,format=panels16x1,dtype=bf16",
        "n=65,k=19,format=panels32x2,dtype=bf16",
        "n=5,k=3,format=panels32x2,dtype=f16",
        "n=38,k=9,format=panels32x1g",
        "n=70,k=21,format=panels32x2g,dtype=bf16",
        "n=7,k=0",
        "n=0,k=4",
        "n=33,k=70,format=plain,from=panels32x1",
        "n=5,k=129,format=plain,from=panels32x2,dtype=bf16",
        "n=40,k=3,format=plain,from=panels16x1,dtype=f16",
        "n=38,k=9,format=plain,from=panels32x1g",
        "n=70,k=21,format=plain,from=panels32x2g,dtype=bf16",
        "n=0,k=4,format=plain,from=panels16x1",
        "n=4,k=0,format=plain,from=panels16x1",
    ]);
    cases.extend(Case::model(&[
        ("", "n=3072,k=768,format=panels32x1"),
        ("", "n=4096,k=4096,format=panels32x1"),
        ("", "n=4096,k=4096,format=panels32x2,dtype=bf16"),
        ("", "n=4096,k=4096,format=plain,from=panels32x1"),
    ]));
    cases
}
