use super::Interpolate;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Interpolate>> {
    let mut cases = Case::edge(&[
        "mode=nearest",
        "channels=2,in_h=5,in_w=6,out_h=7,out_w=11,mode=nearest",
        "batch=2,channels=3,in_h=7,in_w=9,out_h=3,out_w=4,mode=nearest,channels_last=true",
        "channels=2,in_h=5,in_w=6,out_h=11,out_w=35",
        "channels=2,in_h=15,in_w=37,out_h=4,out_w=5",
        "channels=2,in_h=15,in_w=37,out_h=4,out_w=5,antialias=true",
        "channels=2,in_h=4,in_w=5,out_h=9,out_w=18,antialias=true",
        "in_h=5,in_w=6,out_h=9,out_w=4,align_corners=true",
        "in_h=5,in_w=6,out_h=1,out_w=1,align_corners=true",
        "in_h=15,in_w=6,out_h=4,out_w=3,align_corners=true,antialias=true",
        "channels=2,in_h=5,in_w=6,out_h=11,out_w=35,mode=bicubic",
        "channels=2,in_h=1,in_w=2,out_h=3,out_w=3,mode=bicubic",
        "batch=2,channels=2,in_h=25,in_w=36,out_h=11,out_w=5,mode=bicubic,antialias=true",
        "in_h=25,in_w=36,out_h=11,out_w=50,mode=bicubic,align_corners=true",
        "channels=37,in_h=4,in_w=4,out_h=6,out_w=5,mode=bicubic,channels_last=true",
        "batch=2,channels=3,in_h=9,in_w=9,out_h=4,out_w=6,antialias=true,channels_last=true",
        "batch=0,in_h=4,in_w=4,out_h=2,out_w=2",
        "channels=0,in_h=4,in_w=4,out_h=2,out_w=2,channels_last=true",
        "in_h=0,in_w=4,out_h=0,out_w=2",
        "channels=2,in_h=5,in_w=6,out_h=7,out_w=11,mode=nearest,adjoint=true",
        "batch=2,channels=3,in_h=7,in_w=9,out_h=3,out_w=4,mode=nearest,channels_last=true,adjoint=true",
        "channels=2,in_h=15,in_w=37,out_h=4,out_w=5,adjoint=true",
        "channels=2,in_h=15,in_w=37,out_h=4,out_w=5,antialias=true,adjoint=true",
        "channels=20,in_h=4,in_w=4,out_h=6,out_w=5,mode=bicubic,channels_last=true,adjoint=true",
        "in_h=5,in_w=6,out_h=1,out_w=1,align_corners=true,adjoint=true",
    ]);
    cases.extend(Case::model(&[
        ("", "channels=768,in_h=14,in_w=14,out_h=24,out_w=24,mode=bicubic,channels_last=true"),
        ("", "channels=1280,in_h=16,in_w=16,out_h=37,out_w=37,mode=bicubic,channels_last=true"),
        ("", "channels=3,in_h=1080,in_w=1920,out_h=336,out_w=336,mode=bicubic,antialias=true"),
        ("", "channels=256,in_h=64,in_w=64,out_h=128,out_w=128,mode=nearest"),
        ("", "channels=768,in_h=16,in_w=16,out_h=32,out_w=32,mode=bicubic,channels_last=true,adjoint=true"),
        ("", "channels=150,in_h=32,in_w=32,out_h=128,out_w=128"),
    ]));
    cases
}
