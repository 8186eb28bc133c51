use super::AttentionBwd;
use crate::ops::Case;

pub fn cases() -> Vec<Case<AttentionBwd>> {
    let mut cases = Case::edge(&[
        // Sizes: one of everything, tails of every tile, several spans and blocks, none at all.
        "head_dim=1",
        "head_dim=5,len_q=3,len_k=2",
        "head_dim=17,len_q=9,len_k=33,heads_q=2,heads_kv=2",
        "head_dim=40,len_q=49,len_k=65,batch=2,dlse=true",
        "head_dim=64,len_q=197,len_k=197,heads_q=2,heads_kv=2",
        "head_dim=72,len_q=65,len_k=31",
        "head_dim=80,len_q=33,len_k=129",
        "head_dim=88,len_q=50,len_k=257,dlse=true",
        "head_dim=96,len_q=16,len_k=128",
        "head_dim=104,len_q=97,len_k=100",
        "head_dim=128,len_q=31,len_k=300,heads_q=2,heads_kv=1",
        "head_dim=256,len_q=20,len_k=40",
        "head_dim=300,len_q=3,len_k=7",
        "head_dim=16,len_q=150,len_k=490",
        "len_q=0,len_k=5",
        "len_q=3,len_k=0,dlse=true",
        "batch=0",
        "batch=0,len_q=2,len_k=2,bias=true,dbias=true",
        // Causal and windows, with queries fewer and more than keys; more give rows that see nothing.
        "len_q=70,len_k=70,head_dim=16,causal=true",
        "len_q=300,len_k=300,head_dim=32,causal=true,dlse=true",
        "len_q=20,len_k=150,head_dim=24,heads_q=4,heads_kv=2,causal=true",
        "len_q=90,len_k=40,head_dim=16,causal=true,dlse=true",
        "len_q=64,len_k=1,head_dim=8,causal=true",
        "len_q=130,len_k=550,head_dim=16,causal=true,window=37",
        "len_q=60,len_k=60,head_dim=16,window=5",
        "len_q=300,len_k=280,head_dim=16,window=1,causal=true",
        "len_q=5,len_k=5,head_dim=8,causal=true,window=18446744073709551615",
        // Grouped heads, few and many queries.
        "len_q=1,len_k=700,heads_q=8,heads_kv=2,head_dim=64,dlse=true",
        "len_q=1,len_k=500,heads_q=4,heads_kv=4,head_dim=128,batch=2",
        "len_q=3,len_k=530,heads_q=6,heads_kv=2,head_dim=80,causal=true",
        "len_q=2,len_k=600,heads_q=2,heads_kv=1,head_dim=5,window=100",
        "len_q=40,len_k=70,heads_q=12,heads_kv=3,head_dim=24,causal=true",
        // Segments, padding, lengths.
        "len_q=150,len_k=150,head_dim=32,heads_q=2,heads_kv=2,batch=2,segments=true",
        "len_q=50,len_k=90,head_dim=16,segments=true,causal=true,key_padding=true",
        "len_q=30,len_k=340,head_dim=16,batch=3,heads_q=2,heads_kv=1,key_padding=true",
        "len_q=2,len_k=3,head_dim=8,batch=8,key_padding=true",
        "len_q=4,len_k=300,head_dim=64,batch=5,lens_k=true,causal=true",
        "len_q=30,len_k=45,head_dim=16,batch=6,heads_q=2,heads_kv=1,lens_k=true,causal=true,window=9",
        "len_q=1,len_k=1,head_dim=16,batch=8,lens_k=true",
        // Bias, its gradient by itself and shared by sequences, by heads and by both.
        "len_q=30,len_k=141,head_dim=16,heads_q=3,heads_kv=3,batch=2,bias=true",
        "len_q=30,len_k=141,head_dim=16,heads_q=3,heads_kv=3,batch=2,bias=true,dbias=true",
        "len_q=30,len_k=20,head_dim=16,heads_q=4,heads_kv=2,batch=2,bias=true,bias_batch=2,dbias=true",
        "len_q=33,len_k=64,head_dim=16,heads_q=4,heads_kv=2,batch=2,bias=true,bias_heads=4,causal=true,dbias=true",
        "len_q=90,len_k=335,head_dim=8,heads_q=2,heads_kv=2,batch=2,bias=true,bias_batch=2,bias_heads=2,segments=true,dbias=true",
        "len_q=60,len_k=60,head_dim=16,batch=3,segments=true,key_padding=true,lens_k=true,bias=true,window=20,dbias=true,dlse=true",
        // Dtypes and the scale.
        "len_q=40,len_k=70,head_dim=96,dtype=bf16,out=bf16,causal=true",
        "len_q=40,len_k=70,head_dim=128,dtype=f16,out=f16",
        "len_q=40,len_k=70,head_dim=64,heads_q=2,heads_kv=1,dtype=f16,out=f16",
        "len_q=70,len_k=150,head_dim=40,heads_q=2,heads_kv=2,dtype=bf16",
        "len_q=70,len_k=70,head_dim=64,heads_q=2,heads_kv=1,dtype=bf16,out=bf16,causal=true",
        "len_q=33,len_k=129,head_dim=72,dtype=f16,out=f16,batch=2,key_padding=true",
        "len_q=20,len_k=20,head_dim=17,dtype=f16,out=bf16,dlse=true",
        "len_q=100,len_k=90,head_dim=128,heads_q=4,heads_kv=2,dtype=bf16,out=bf16,causal=true",
        "len_q=70,len_k=90,head_dim=200,dtype=f16,causal=true,window=20",
        "len_q=40,len_k=130,head_dim=256,dtype=bf16",
        "len_q=70,len_k=150,head_dim=32,batch=3,dtype=bf16,segments=true,key_padding=true,lens_k=true,bias=true,window=60,dbias=true",
        // Pairs of bf16: ends within a word of columns, of queries, of keys; words that some of their queries see.
        "head_dim=1,dtype=bf16",
        "head_dim=5,len_q=3,len_k=2,dtype=bf16,out=bf16,dlse=true",
        "head_dim=17,len_q=33,len_k=129,batch=2,dtype=bf16,causal=true,key_padding=true",
        "head_dim=24,len_q=75,len_k=335,heads_q=6,heads_kv=2,dtype=bf16,bias=true,causal=true,window=61,segments=true",
        "head_dim=32,len_q=301,len_k=300,dtype=bf16,out=bf16,causal=true,window=7,lens_k=true",
        "head_dim=128,len_q=1,len_k=501,heads_q=3,heads_kv=1,dtype=bf16,out=bf16,softmax_scale=-0.1",
        "head_dim=88,len_q=91,len_k=41,heads_q=2,heads_kv=2,bias_heads=2,bias=true,dtype=bf16,causal=true",
        "head_dim=160,len_q=7,len_k=20,batch=3,dtype=bf16,key_padding=true,dlse=true",
        "len_q=20,len_k=30,head_dim=16,softmax_scale=0.5,out=bf16",
        "len_q=20,len_k=70,head_dim=16,softmax_scale=-0.4",
    ]);
    cases.extend(Case::model(&[
        ("attn_bwd/vit_l_336", "heads_q=16,heads_kv=16,len_q=577,len_k=577,head_dim=64"),
        ("attn_bwd/llama_prefill", "heads_q=32,heads_kv=32,len_q=2048,len_k=2048,head_dim=128,causal=true"),
        ("attn_bwd/llama_4096", "heads_q=8,heads_kv=8,len_q=4096,len_k=4096,head_dim=128,causal=true"),
        ("attn_bwd/vit_l_336", "dtype=bf16,out=bf16,heads_q=16,heads_kv=16,len_q=577,len_k=577,head_dim=64"),
        (
            "attn_bwd/llama_prefill",
            "dtype=bf16,out=bf16,heads_q=32,heads_kv=32,len_q=2048,len_k=2048,head_dim=128,causal=true",
        ),
        (
            "attn_bwd/llama_4096",
            "dtype=bf16,out=bf16,heads_q=8,heads_kv=8,len_q=4096,len_k=4096,head_dim=128,causal=true",
        ),
    ]));
    cases
}
