use super::Cast;
use crate::DType;
use crate::ops::{Case, Class};

pub fn cases() -> Vec<Case<Cast>> {
    let mut cases = Case::edge(&["shape=scalar", "shape=2x0x3", "shape=3x20001", "shape=70000,from=bf16,to=f32"]);
    for from in DType::ALL {
        for to in DType::ALL {
            let problem = format!("cast(from={from},to={to},shape=3x5x7)").parse();
            let problem = problem.unwrap_or_else(|e| panic!("a case of cast: {e}"));
            cases.push(Case { class: Class::Edge, name: "", problem });
        }
    }
    cases.extend(Case::model(&[
        ("", "shape=577x1024"),
        ("", "shape=2048x4096"),
        ("", "shape=2048x4096,from=bf16,to=f32"),
        ("", "shape=4096x4096,from=f16,to=f32"),
    ]));
    cases
}
