use super::ConvBwdWeight;
use crate::ops::Case;

pub fn cases() -> Vec<Case<ConvBwdWeight>> {
    let mut cases = Case::edge(&[
        "size=1",
        "channels_in=3,channels_out=5,size=37,kernel=7,before=3,after=3",
        "batch=2,channels_in=5,channels_out=17,size=40,kernel=3,dilation=9,before=18",
        "channels_in=2,channels_out=20,size=50,kernel=16,stride=8,before=8,padding=reflect",
        "channels_in=4,channels_out=9,size=30,kernel=2,stride=5",
        "channels_in=3,channels_out=8,size=9,kernel=5,before=9,after=3,padding=circular",
        "channels_in=3,channels_out=2,size=3,kernel=5,before=7,after=5,padding=replicate,dilation=2",
        "channels_in=1,channels_out=3,size=530,kernel=9,before=4,after=4",
        "channels_in=1,channels_out=6,size=320,kernel=301,before=20",
        "batch=3,channels_in=2,channels_out=40,size=300,kernel=3",
        "channels_in=270,channels_out=7,size=5",
        "batch=2,channels_in=3,channels_out=16,size=9x11,kernel=3x3,before=1x1,after=1x1",
        "channels_in=40,channels_out=70,size=5x7,kernel=3x3,before=1x1,after=1x1",
        "channels_in=8,channels_out=12,groups=2,size=6x5,kernel=2x3,stride=1x2,before=0x2,after=1x0",
        "batch=2,channels_in=6,channels_out=6,groups=6,size=12x13,kernel=7x7,before=3x3,after=3x3",
        "channels_in=3,channels_out=6,groups=3,size=9x10,kernel=3x3,stride=2x3,dilation=2x1,before=2x1",
        "channels_in=5,channels_out=7,size=6x6,kernel=5x5,stride=7x7,padding=circular,before=6x2,after=3x6",
        "channels_in=3,channels_out=5,size=4x5x6,kernel=3x3x3,before=2x1x1,after=0x1x1",
        "channels_in=2,channels_out=3,size=5x4x7,kernel=2x1x3,stride=2x2x1,dilation=2x1x2,before=2x0x3,after=1x0x1",
        "batch=0,channels_in=2,channels_out=8,size=5,kernel=3",
        "channels_in=0,channels_out=8,size=5,kernel=3",
        "channels_in=3,channels_out=0,size=5,kernel=3",
    ]);
    cases.extend(Case::model(&[
        (
            "conv2d_bwd_weight/512x512x3x3/32x32",
            "channels_in=512,channels_out=512,size=32x32,kernel=3x3,before=1x1,after=1x1",
        ),
        ("conv1d_bwd_weight/64x64x3/12000", "channels_in=64,channels_out=64,size=12000,kernel=3,before=2"),
        (
            "conv2d_bwd_weight/depthwise384x7x7/56x56",
            "channels_in=384,channels_out=384,groups=384,size=56x56,kernel=7x7,before=3x3,after=3x3",
        ),
    ]));
    cases
}
