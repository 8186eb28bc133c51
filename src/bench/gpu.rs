//! What benches of other libraries time on GPUs, under the names that they have there.

use super::operands::{Call, parse_call};
use crate::error::Result;

/// Names and problems. Sizes are such that a large GPU is full; operands are bf16 where the others' are.
const CASES: &[(&str, &str)] = &[
    ("copy/1g", "copy(dtype=u8,shape=1073741824)"),
    ("linear/4096x4096x4096", "gemm(m=4096,n=4096,k=4096,lhs=bf16,rhs=bf16,out=bf16)"),
    ("linear/8192x8192x8192", "gemm(m=8192,n=8192,k=8192,lhs=bf16,rhs=bf16,out=bf16)"),
    ("linear/16384x4096x4096", "gemm(m=16384,n=4096,k=4096,lhs=bf16,rhs=bf16,out=bf16)"),
    ("linear/4616x4096x1024", "gemm(m=4616,n=4096,k=1024,lhs=bf16,rhs=bf16,out=bf16)"),
    ("linear/32x4096x4096", "gemm(m=32,n=4096,k=4096,lhs=bf16,rhs=bf16,out=bf16)"),
    ("linear/1x11008x4096", "gemm(m=1,n=11008,k=4096,lhs=bf16,rhs=bf16,out=bf16)"),
    ("attn/d128_gqa_8k", "attention(dtype=bf16,out=bf16,len_q=8192,len_k=8192,heads_q=64,heads_kv=8,head_dim=128)"),
    (
        "attn/d128_gqa_8k_causal",
        "attention(dtype=bf16,out=bf16,len_q=8192,len_k=8192,heads_q=64,heads_kv=8,head_dim=128,causal=true)",
    ),
    ("attn/d128_gqa_16k", "attention(dtype=bf16,out=bf16,len_q=16384,len_k=16384,heads_q=64,heads_kv=8,head_dim=128)"),
    (
        "attn/d128_gqa_16k_causal",
        "attention(dtype=bf16,out=bf16,len_q=16384,len_k=16384,heads_q=64,heads_kv=8,head_dim=128,causal=true)",
    ),
    (
        "attn/d128_mha_6k",
        "attention(dtype=bf16,out=bf16,batch=16,len_q=6144,len_k=6144,heads_q=16,heads_kv=16,head_dim=128)",
    ),
    ("attn/d64_16k", "attention(dtype=bf16,out=bf16,len_q=16384,len_k=16384,heads_q=32,heads_kv=32,head_dim=64)"),
    (
        "attn/d64_16k_causal",
        "attention(dtype=bf16,out=bf16,len_q=16384,len_k=16384,heads_q=32,heads_kv=32,head_dim=64,causal=true)",
    ),
    (
        "attn/vit_l_336_b32",
        "attention(dtype=bf16,out=bf16,batch=32,len_q=577,len_k=577,heads_q=16,heads_kv=16,head_dim=64)",
    ),
    (
        "attn/qwen_resampler_b32",
        "attention(dtype=bf16,out=bf16,batch=32,len_q=256,len_k=1024,heads_q=16,heads_kv=16,head_dim=128)",
    ),
    (
        "attn/qformer_cross_b64",
        "attention(dtype=bf16,out=bf16,batch=64,len_q=32,len_k=257,heads_q=12,heads_kv=12,head_dim=64)",
    ),
    (
        "attn/llama_decode_32k",
        "attention(dtype=bf16,out=bf16,batch=8,len_q=1,len_k=32768,heads_q=32,heads_kv=8,head_dim=128)",
    ),
    (
        "attn/wan_video_17160",
        "attention(dtype=bf16,out=bf16,len_q=17160,len_k=17160,heads_q=40,heads_kv=40,head_dim=128)",
    ),
    (
        "attn_bwd/d128_gqa_8k",
        "attention_bwd(dtype=bf16,out=bf16,len_q=8192,len_k=8192,heads_q=64,heads_kv=8,head_dim=128)",
    ),
    (
        "attn_bwd/d128_gqa_8k_causal",
        "attention_bwd(dtype=bf16,out=bf16,len_q=8192,len_k=8192,heads_q=64,heads_kv=8,head_dim=128,causal=true)",
    ),
    (
        "attn_bwd/d128_mha_6k",
        "attention_bwd(dtype=bf16,out=bf16,batch=16,len_q=6144,len_k=6144,heads_q=16,heads_kv=16,head_dim=128)",
    ),
    ("rmsnorm/16384x4096", "rms_norm(rows=16384,cols=4096,dtype=bf16,out=bf16,weight=true)"),
    ("layernorm/16384x4096", "layer_norm(rows=16384,cols=4096,dtype=bf16,out=bf16,weight=true,bias=true)"),
    ("softmax/16384x4096", "softmax(rows=16384,cols=4096,dtype=bf16)"),
    ("rvq_encode/96000x128x2048x4", "rvq_encode(n=96000,codebook_dim=128,codebook_size=2048,num_quantizers=4)"),
    ("rvq_encode/48000x1024x1024x8", "rvq_encode(n=48000,codebook_dim=1024,codebook_size=1024,num_quantizers=8)"),
];

/// The calls.
///
/// # Errors
/// None but those of a table that does not parse.
pub fn gpu_calls() -> Result<Vec<Call>> {
    CASES.iter().map(|&(case, text)| Ok(Call { case, ..parse_call(text)? })).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_parses_and_names_are_unique() {
        let calls = super::gpu_calls().unwrap();
        let names: std::collections::HashSet<_> = calls.iter().map(|c| c.case).collect();
        assert_eq!(names.len(), calls.len());
    }
}
