use super::AdamW;
use crate::ops::Case;

pub fn cases() -> Vec<Case<AdamW>> {
    let mut cases = Case::edge(&[
        "",
        "n=0",
        "n=0,weight=true",
        "n=5,weight=true",
        "n=16,weight_decay=0.0",
        "n=33,beta1=0.0,beta2=0.95,eps=1e-5,weight_decay=0.1",
        "n=1000,weight=true,beta2=0.95",
        "n=40001,weight=true",
    ]);
    cases.extend(Case::model(&[("", "n=4194304"), ("", "n=4194304,weight=true,beta2=0.95,eps=1e-5,weight_decay=0.1")]));
    cases
}
