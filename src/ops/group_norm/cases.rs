use super::GroupNorm;
use crate::ops::Case;

pub fn cases() -> Vec<Case<GroupNorm>> {
    let mut cases = Case::edge(&[
        "batch=1,channels=1,inner=1",
        "batch=2,channels=6,inner=5,groups=3,affine=true",
        "batch=1,channels=4,inner=33,groups=4,silu=true",
        "batch=3,channels=8,inner=49,groups=2,affine=true,silu=true,eps=1e-6",
        "batch=2,channels=12,inner=1,groups=3,affine=true",
        "batch=1,channels=3,inner=7001,groups=1,affine=true",
        "batch=2,channels=4,inner=30,groups=2,dtype=bf16,out=bf16,silu=true,affine=true",
        "batch=1,channels=4,inner=17,groups=1,dtype=f16,out=f32",
        // Rows in whole vectors of 16 bytes.
        "batch=2,channels=8,inner=64,groups=2,affine=true,silu=true",
        "batch=2,channels=8,inner=64,groups=2,dtype=bf16,out=bf16,affine=true,silu=true",
        "batch=2,channels=8,inner=64,groups=2,dtype=f16,out=f16",
        "batch=0,channels=4,inner=4,groups=2",
        "batch=2,channels=4,inner=0,groups=2,affine=true",
    ]);
    cases.extend(Case::model(&[
        ("", "batch=1,channels=320,inner=4096,groups=32,affine=true,silu=true"),
        ("", "batch=1,channels=128,inner=65536,groups=32,affine=true,silu=true,eps=1e-6"),
        ("", "batch=1,channels=512,inner=4096,groups=32,affine=true,dtype=bf16,out=bf16,silu=true,eps=1e-6"),
    ]));
    cases
}
