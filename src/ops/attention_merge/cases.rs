use super::AttentionMerge;
use crate::ops::Case;

pub fn cases() -> Vec<Case<AttentionMerge>> {
    let mut cases = Case::edge(&[
        "head_dim=1",
        "batch=2,len_q=3,heads=2,head_dim=17",
        "len_q=65,heads=3,head_dim=64",
        "batch=3,len_q=1,heads=8,head_dim=128",
        "len_q=0",
        "len_q=3,head_dim=0",
    ]);
    cases.extend(Case::model(&[
        ("attn_merge/llama_prefill", "len_q=2048,heads=32,head_dim=128"),
        ("attn_merge/long_8192", "len_q=8192,heads=8,head_dim=64"),
    ]));
    cases
}
