use super::LayerNorm;
use crate::ops::Case;

pub fn cases() -> Vec<Case<LayerNorm>> {
    let mut cases = Case::edge(&[
        "rows=1,cols=1",
        "rows=3,cols=7,weight=true,bias=true",
        "rows=5,cols=16",
        "rows=2,cols=33,weight=true,eps=1e-12",
        "rows=65,cols=257,weight=true,bias=true",
        "rows=3,cols=40,bias=true",
        "rows=6,cols=130,weight=true,bias=true,residual=true",
        "rows=6,cols=96,modulated=true,groups=3,eps=1e-6",
        "rows=6,cols=50,weight=true,bias=true,residual=true,modulated=true,groups=2",
        "rows=4,cols=100,dtype=bf16,out=bf16,weight=true,bias=true",
        "rows=4,cols=100,dtype=bf16,residual=true",
        "rows=3,cols=1000,dtype=f16,out=f16",
        "rows=3,cols=70,out=bf16,modulated=true,groups=3,weight=true",
        // Rows in whole vectors of 16 bytes.
        "rows=5,cols=1032,dtype=bf16,out=bf16,weight=true,bias=true",
        // Longer than what L1 holds three of.
        "rows=3,cols=9001,weight=true,bias=true",
        "rows=0,cols=4,weight=true",
        "rows=4,cols=0",
    ]);
    cases.extend(Case::model(&[
        ("layernorm/577x1024", "rows=577,cols=1024,weight=true,bias=true"),
        ("layernorm/2048x4096", "rows=2048,cols=4096,weight=true,bias=true"),
        ("layernorm/577x1024", "rows=577,cols=1024,dtype=bf16,out=bf16,weight=true,bias=true"),
        ("layernorm/2048x4096", "rows=2048,cols=4096,dtype=bf16,out=bf16,weight=true,bias=true"),
        ("", "rows=512,cols=1152,modulated=true,groups=2,eps=1e-6,out=bf16"),
        ("", "rows=577,cols=1024,weight=true,bias=true,residual=true,out=bf16"),
    ]));
    cases
}
