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
        "n=16,k=32,dtype=u8,from=q8_0,format=q8_0x16",
        "n=35,k=96,dtype=u8,from=q8_0,format=q8_0x16",
        "n=5,k=64,dtype=u8,from=q4_0,format=q4_0x16",
        "n=33,k=64,dtype=u8,from=q4_1,format=q4_1x16",
        "n=17,k=512,dtype=u8,from=q4_k,format=q4_kx16",
        "n=18,k=256,dtype=u8,from=q6_k,format=q6_kx16",
        "n=38,k=32,dtype=u8,from=q8_0,format=q8_0x16g",
        "n=32,k=64,dtype=u8,from=q4_0,format=q4_0x16g",
        "n=6,k=32,dtype=u8,from=q4_1,format=q4_1x16g",
        "n=34,k=256,dtype=u8,from=q4_k,format=q4_kx16g",
        "n=20,k=512,dtype=u8,from=q6_k,format=q6_kx16g",
        "n=0,k=32,dtype=u8,from=q4_0,format=q4_0x16",
        "n=7,k=0,dtype=u8,from=q4_1,format=q4_1x16",
    ]);
    cases.extend(Case::model(&[
        ("", "n=3072,k=768,format=panels32x1"),
        ("", "n=4096,k=4096,format=panels32x1"),
        ("", "n=4096,k=4096,format=panels32x2,dtype=bf16"),
        ("", "n=4096,k=4096,format=plain,from=panels32x1"),
        ("", "n=4096,k=4096,dtype=u8,from=q4_1,format=q4_1x16"),
        ("", "n=4096,k=4096,dtype=u8,from=q6_k,format=q6_kx16"),
    ]));
    cases
}
