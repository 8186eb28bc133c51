use super::Conv;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Conv>> {
    let mut cases = Case::edge(&[
        "size=1",
        // Sounds.
        "channels_in=3,channels_out=5,size=37,kernel=7,before=3,after=3,bias=true",
        "batch=2,channels_in=5,channels_out=17,size=40,kernel=3,dilation=9,before=18",
        "channels_in=2,channels_out=20,size=50,kernel=16,stride=8,before=8,padding=reflect",
        "channels_in=4,channels_out=9,size=30,kernel=2,stride=5,bias=true",
        "channels_in=3,channels_out=8,size=9,kernel=5,before=8,after=8,padding=reflect",
        "channels_in=3,channels_out=8,size=9,kernel=5,before=9,after=3,padding=circular",
        "channels_in=3,channels_out=8,size=3,kernel=5,before=7,after=5,padding=replicate,dilation=2",
        "channels_in=6,channels_out=33,size=6,kernel=6,bias=true",
        "channels_in=2,channels_out=6,size=70,kernel=3,dilation=33,after=5",
        "channels_in=300,channels_out=15,size=5,bias=true,activation=silu",
        "channels_in=1,channels_out=6,size=320,kernel=301,before=20",
        "channels_in=2,channels_out=3,size=530,kernel=3,before=1,after=1,bias=true",
        // Pictures.
        "batch=2,channels_in=3,channels_out=16,size=9x11,kernel=3x3,before=1x1,after=1x1,bias=true",
        "channels_in=4,channels_out=6,size=8x8,kernel=3x3,stride=2x2,after=1x1",
        "channels_in=30,channels_out=29,size=7x33,kernel=3x3,before=1x1,after=1x1,activation=gelu_erf",
        "channels_in=8,channels_out=12,groups=2,size=6x5,kernel=2x3,stride=1x2,before=0x2,after=1x0,bias=true",
        "channels_in=6,channels_out=6,groups=6,size=12x13,kernel=7x7,before=3x3,after=3x3,bias=true",
        "channels_in=3,channels_out=6,groups=3,size=9x10,kernel=3x3,stride=2x3,dilation=2x1,before=2x1",
        "channels_in=2,channels_out=10,size=17x20,kernel=4x1,dilation=3x1,stride=3x4,padding=reflect,before=16x19",
        "channels_in=5,channels_out=7,size=6x6,kernel=5x5,stride=7x7,padding=circular,before=6x2,after=3x6",
        "channels_in=4,channels_out=20,size=5x5,kernel=5x5",
        "channels_in=32,channels_out=3,size=10x12,kernel=3x3,before=1x1,after=1x1,bias=true,activation=tanh",
        "channels_in=7,channels_out=4,size=8x9,kernel=1x1,bias=true",
        "channels_in=3,channels_out=2,size=66x70,kernel=3x5,before=1x2,after=1x2,padding=replicate",
        // Clips.
        "channels_in=3,channels_out=5,size=4x5x6,kernel=3x3x3,before=2x1x1,after=0x1x1,bias=true",
        "batch=2,channels_in=2,channels_out=6,size=5x4x7,kernel=2x1x3,stride=2x2x1,dilation=2x1x2,before=2x0x3,after=1x0x1",
        "channels_in=3,channels_out=3,groups=3,size=3x6x5,kernel=3x3x3,before=1x1x1,after=1x1x1,padding=replicate",
        "channels_in=2,channels_out=7,size=3x17x18,kernel=1x2x2,stride=1x2x2",
        "channels_in=1,channels_out=6,size=7x7x8,kernel=7x7x6",
        // Types, and nothing at all.
        "x=bf16,weight=bf16,out=bf16,channels_in=6,channels_out=19,size=8x9,kernel=3x3,before=1x1,after=1x1,bias=true",
        "x=f32,weight=bf16,channels_in=6,channels_out=3,size=8x9,kernel=3x3,stride=2x2,before=1x1",
        "x=f16,weight=f32,out=f16,channels_in=3,channels_out=9,size=33,kernel=4,stride=2,before=2,activation=relu",
        "x=f16,weight=f16,channels_in=4,channels_out=4,groups=4,size=9x9,kernel=3x3,out=bf16,activation=quick_gelu",
        "x=bf16,weight=bf16,channels_in=8,channels_out=70,size=6x7,kernel=6x6,before=3x3,after=2x3,padding=circular",
        "x=f16,weight=f16,out=f16,channels_in=72,channels_out=20,size=17,kernel=8,before=7,bias=true",
        "batch=0,channels_in=2,channels_out=8,size=5,kernel=3",
        "channels_in=0,channels_out=8,size=5,kernel=3,bias=true,activation=sigmoid",
        "channels_in=3,channels_out=0,size=5,kernel=3",
    ]);
    cases.extend(Case::model(&[
        // Image decoders and the clip encoders of video models.
        (
            "conv2d/512x512x3x3/32x32",
            "channels_in=512,channels_out=512,size=32x32,kernel=3x3,before=1x1,after=1x1,bias=true",
        ),
        (
            "conv2d/512x512x3x3/64x64",
            "channels_in=512,channels_out=512,size=64x64,kernel=3x3,before=1x1,after=1x1,bias=true",
        ),
        (
            "conv2d/128x128x3x3/256x256",
            "channels_in=128,channels_out=128,size=256x256,kernel=3x3,before=1x1,after=1x1,bias=true",
        ),
        (
            "conv2d/128x3x3x3/256x256",
            "channels_in=128,channels_out=3,size=256x256,kernel=3x3,before=1x1,after=1x1,bias=true",
        ),
        (
            "conv2d/256x256x3x3s2/64x64",
            "channels_in=256,channels_out=256,size=64x64,kernel=3x3,stride=2x2,after=1x1,bias=true",
        ),
        (
            "conv2d/1280x1280x3x3/8x8",
            "channels_in=1280,channels_out=1280,size=8x8,kernel=3x3,before=1x1,after=1x1,bias=true",
        ),
        ("conv2d/512x512x1x1/64x64", "channels_in=512,channels_out=512,size=64x64,bias=true"),
        (
            "conv2d/depthwise384x7x7/56x56",
            "channels_in=384,channels_out=384,groups=384,size=56x56,kernel=7x7,before=3x3,after=3x3,bias=true",
        ),
        (
            "conv3d/192x192x3x3x3/4x48x48",
            "channels_in=192,channels_out=192,size=4x48x48,kernel=3x3x3,before=2x1x1,after=0x1x1,bias=true",
        ),
        // Sound codecs.
        (
            "conv1d/1x32x7/24000",
            "channels_in=1,channels_out=32,size=24000,kernel=7,before=6,padding=reflect,bias=true",
        ),
        (
            "conv1d/64x64x3/12000",
            "channels_in=64,channels_out=64,size=12000,kernel=3,before=2,padding=reflect,bias=true",
        ),
        (
            "conv1d/256x512x16s8/600",
            "channels_in=256,channels_out=512,size=600,kernel=16,stride=8,before=8,padding=reflect,bias=true",
        ),
        ("conv1d/512x128x7/75", "channels_in=512,channels_out=128,size=75,kernel=7,before=6,padding=reflect,bias=true"),
        (
            "conv1d/depthwise1024x31/500",
            "channels_in=1024,channels_out=1024,groups=1024,size=500,kernel=31,before=15,after=15,bias=true",
        ),
        (
            "conv2d/512x512x3x3/32x32",
            "x=bf16,weight=bf16,out=bf16,channels_in=512,channels_out=512,size=32x32,kernel=3x3,before=1x1,after=1x1,bias=true",
        ),
    ]));
    cases
}
