use super::ConvTranspose;
use crate::ops::Case;

pub fn cases() -> Vec<Case<ConvTranspose>> {
    let mut cases = Case::edge(&[
        "size=1",
        // Sounds.
        "channels_in=3,channels_out=5,size=37,kernel=7,before=3,after=3,bias=true",
        "batch=2,channels_in=6,channels_out=19,size=13,kernel=16,stride=8,after=8,bias=true",
        "channels_in=4,channels_out=9,size=11,kernel=5,stride=3,dilation=2,before=2,after=3,output_padding=2",
        "channels_in=4,channels_out=8,size=7,kernel=2,stride=5",
        "channels_in=2,channels_out=6,size=3,kernel=3,stride=2,before=4,after=1,output_padding=1",
        "channels_in=2,channels_out=6,size=2,stride=5,before=4,output_padding=4",
        "channels_in=2,channels_out=6,size=4,kernel=2,dilation=5,output_padding=4,bias=true",
        "channels_in=3,channels_out=2,size=9,kernel=4,stride=2,before=1,after=1,bias=true",
        "channels_in=40,channels_out=35,size=5,kernel=3,before=2",
        "channels_in=2,channels_out=17,size=1,kernel=6,stride=3",
        "channels_in=1,channels_out=6,size=20,kernel=290,after=9",
        // Pictures.
        "batch=2,channels_in=3,channels_out=16,size=5x6,kernel=4x4,stride=2x2,before=1x1,after=1x1,bias=true",
        "channels_in=8,channels_out=12,groups=2,size=6x5,kernel=3x2,stride=1x2,before=1x0,after=2x1",
        "channels_in=5,channels_out=5,groups=5,size=9x10,kernel=3x3,stride=2x2,before=1x1,after=1x1,output_padding=1x1",
        "channels_in=6,channels_out=6,groups=6,size=20x21,kernel=7x7,before=3x3,after=3x3",
        "channels_in=7,channels_out=20,size=6x9,kernel=3x3,before=1x1,after=1x1,bias=true",
        "channels_in=5,channels_out=9,size=3x4,kernel=1x1,stride=3x2,output_padding=2x0",
        // Clips.
        "channels_in=3,channels_out=5,size=3x4x5,kernel=3x3x3,stride=2x1x2,before=1x1x1,after=0x1x1,output_padding=1x0x1",
        "channels_in=2,channels_out=2,size=3x4x5,kernel=2x3x3,dilation=1x2x1,after=1x0x0,bias=true",
        // Types, and nothing at all.
        "x=bf16,weight=bf16,out=bf16,channels_in=6,channels_out=19,size=5x6,kernel=4x4,stride=2x2,bias=true",
        "x=f32,weight=f16,channels_in=6,channels_out=3,size=30,kernel=4,stride=2",
        "x=f16,weight=f16,channels_in=130,channels_out=36,size=9,kernel=4,stride=2,bias=true",
        "batch=0,channels_in=2,channels_out=8,size=5,kernel=3",
        "channels_in=0,channels_out=8,size=5,kernel=3,bias=true",
        "channels_in=3,channels_out=0,size=5,kernel=3",
    ]);
    cases.extend(Case::model(&[
        // Sound decoders.
        (
            "conv_transpose1d/512x256x16s8/75",
            "channels_in=512,channels_out=256,size=75,kernel=16,stride=8,after=8,bias=true",
        ),
        (
            "conv_transpose1d/64x32x4s2/12000",
            "channels_in=64,channels_out=32,size=12000,kernel=4,stride=2,after=2,bias=true",
        ),
        // Picture decoders, and the gradient of an image decoder's layer.
        (
            "conv_transpose2d/256x128x4x4s2/32x32",
            "channels_in=256,channels_out=128,size=32x32,kernel=4x4,stride=2x2,before=1x1,after=1x1,bias=true",
        ),
        (
            "conv_transpose2d/512x512x3x3/32x32",
            "channels_in=512,channels_out=512,size=32x32,kernel=3x3,before=1x1,after=1x1",
        ),
    ]));
    cases
}
