use super::Rope;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Rope>> {
    let mut cases = Case::edge(&[
        "",
        "head_dim=2",
        "head_dim=2,pairs=interleaved",
        "head_dim=10,batch=2,len=5,heads=3,positions_batch=2",
        "head_dim=10,batch=2,len=5,heads=3,pairs=interleaved",
        "head_dim=33,rotary_dim=18,len=7,heads=2",
        "head_dim=33,rotary_dim=18,len=7,heads=2,pairs=interleaved,inverse=true",
        "head_dim=80,rotary_dim=32,len=40,heads=4,factor=1.1386294",
        "head_dim=128,batch=3,len=9,heads=2,positions=i32,positions_batch=3,inverse=true,factor=0.5",
        "head_dim=96,batch=2,len=3,heads=5,pairs=interleaved,positions=f32,positions_batch=2",
        // Two and three axes.
        "head_dim=64,len=30,heads=2,sections=16x16",
        "head_dim=30,rotary_dim=28,batch=2,len=6,heads=3,positions_batch=2,sections=3x0x11",
        "head_dim=64,batch=2,len=11,heads=3,sections=8x12x12,positions_batch=2,pairs=interleaved",
        "head_dim=64,len=11,heads=3,sections=8x12x12,positions=f32,inverse=true",
        // Dtypes.
        "head_dim=64,len=9,heads=3,dtype=bf16,out=bf16",
        "head_dim=40,len=9,heads=3,dtype=bf16,pairs=interleaved",
        "head_dim=46,rotary_dim=20,len=9,heads=3,dtype=f16,out=f16,pairs=interleaved",
        "head_dim=46,rotary_dim=20,len=9,heads=3,out=f16",
        "head_dim=72,len=9,heads=3,out=bf16",
        // Nothing.
        "batch=0,len=3",
        "len=0,batch=2,positions_batch=2",
        "heads=0,len=2",
    ]);
    cases.extend(Case::model(&[
        ("", "len=2048,heads=32,head_dim=128,out=bf16"),
        ("", "heads=32,head_dim=128"),
        ("", "len=2048,heads=32,head_dim=128,dtype=bf16,out=bf16,pairs=interleaved"),
        ("", "len=1024,heads=16,head_dim=128,sections=16x24x24,dtype=bf16,out=bf16"),
    ]));
    cases
}
