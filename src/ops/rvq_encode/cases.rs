use super::RvqEncode;
use crate::ops::Case;

pub fn cases() -> Vec<Case<RvqEncode>> {
    let mut cases = Case::edge(&[
        "",
        "n=7,codebook_dim=5,codebook_size=3,num_quantizers=2",
        "n=40,codebook_dim=24,codebook_size=64,num_quantizers=4",
        "n=33,codebook_dim=33,codebook_size=97,num_quantizers=3",
        "n=3,codebook_dim=100,codebook_size=130,num_quantizers=2",
        "n=48,codebook_dim=32,codebook_size=70,distance=cosine",
        "n=9,codebook_dim=17,codebook_size=33,distance=cosine,num_quantizers=2",
        "n=0,codebook_dim=4,codebook_size=2",
        "n=4,codebook_dim=4,codebook_size=2,num_quantizers=0",
    ]);
    cases.extend(Case::model(&[
        ("rvq_encode/1500x128x2048x4", "n=1500,codebook_dim=128,codebook_size=2048,num_quantizers=4"),
        ("rvq_encode/1500x1024x1024x8", "n=1500,codebook_dim=1024,codebook_size=1024,num_quantizers=8"),
        ("", "n=256,codebook_dim=128,codebook_size=1024,num_quantizers=2"),
    ]));
    cases
}
