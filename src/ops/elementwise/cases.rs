use super::{Elementwise, Kind};
use crate::ops::{Case, Class};

pub fn cases() -> Vec<Case<Elementwise>> {
    let mut cases = Case::edge(&[
        "shape=scalar",
        "kind=sub,shape=7",
        "kind=add,shape=3x1x5x1",
        "kind=mul,shape=2x3x4x5x6x2",
        "kind=div,shape=33x65",
        "kind=max,shape=2x0x3",
        "kind=add,shape=3x700,dtype=bf16,out=f32",
        "kind=mul,shape=5x300,dtype=f16,out=bf16",
        "kind=mul_add,shape=40x50x30,dtype=f32,out=bf16",
        "kind=clamp,shape=100,a=-0.5,b=0.25",
        "kind=clamp,shape=9,a=-inf,b=1.0",
        "kind=affine,shape=1000,a=0.0078125,b=-1.0",
        "kind=affine,shape=6x11,a=-3.0,b=0.1,dtype=bf16,out=bf16",
    ]);
    // Every function, with tails and more than one block.
    for &kind in Kind::ALL.iter().filter(|&&k| k != Kind::Affine && k != Kind::Clamp) {
        for (dtype, shape) in [("f32", "3x1061"), ("bf16", "2x3x517"), ("f16", "1027")] {
            let text = format!("elementwise(kind={kind},dtype={dtype},out={dtype},shape={shape})");
            let problem = text.parse().unwrap_or_else(|e| panic!("a case of elementwise: {e}"));
            cases.push(Case { class: Class::Edge, name: "", problem });
        }
    }
    cases.extend(Case::model(&[
        ("gelu_erf/577x1024", "kind=gelu_erf,shape=577x1024"),
        ("gelu_erf/2048x4096", "kind=gelu_erf,shape=2048x4096"),
        ("gelu_tanh/577x1024", "kind=gelu_tanh,shape=577x1024"),
        ("gelu_tanh/2048x4096", "kind=gelu_tanh,shape=2048x4096"),
        ("gelu_erf/577x1024", "kind=gelu_erf,shape=577x1024,dtype=bf16,out=bf16"),
        ("gelu_erf/2048x4096", "kind=gelu_erf,shape=2048x4096,dtype=bf16,out=bf16"),
        ("gelu_tanh/577x1024", "kind=gelu_tanh,shape=577x1024,dtype=bf16,out=bf16"),
        ("gelu_tanh/2048x4096", "kind=gelu_tanh,shape=2048x4096,dtype=bf16,out=bf16"),
        ("", "kind=silu,shape=577x4096"),
        ("", "kind=add,shape=2048x4096"),
        ("", "kind=mul,shape=2048x4096"),
    ]));
    cases
}
