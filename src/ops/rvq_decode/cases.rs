use super::RvqDecode;
use crate::ops::Case;

pub fn cases() -> Vec<Case<RvqDecode>> {
    let mut cases = Case::edge(&[
        "",
        "n=5,codebook_dim=7,codebook_size=3,num_quantizers=2",
        "n=33,codebook_dim=24,codebook_size=64,num_quantizers=4",
        "n=9,codebook_dim=33,codebook_size=10,num_quantizers=0",
        "n=0,codebook_dim=4,codebook_size=2",
    ]);
    cases.extend(Case::model(&[
        ("rvq_decode/1500x128x2048x4", "n=1500,codebook_dim=128,codebook_size=2048,num_quantizers=4"),
        ("rvq_decode/1500x1024x1024x8", "n=1500,codebook_dim=1024,codebook_size=1024,num_quantizers=8"),
    ]));
    cases
}
