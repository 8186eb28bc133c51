use super::Patchify;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Patchify>> {
    let mut cases = Case::edge(&[
        "channels=1",
        "height=8,width=12,patch_h=4,patch_w=4",
        "batch=2,height=15,width=22,patch_h=4,patch_w=7",
        "batch=2,height=15,width=37,patch_h=3,patch_w=18,order=thwc",
        "frames=5,height=8,width=9,patch_h=2,patch_w=4,tubelet=2,channels=2",
        "frames=4,height=8,width=8,patch_h=4,patch_w=4,tubelet=2,order=thwc,out=bf16",
        "height=20,width=40,patch_h=10,patch_w=19,normalised=true,scale=1.0",
        "height=20,width=20,patch_h=5,patch_w=5,normalised=true,order=thwc,out=f16,scale=1.0",
        "dtype=u8,layout=nhwc,batch=2,height=17,width=19,patch_h=5,patch_w=4,normalised=true",
        "dtype=u8,layout=nhwc,frames=3,height=16,width=33,patch_h=8,patch_w=8,tubelet=3,normalised=true,order=thwc,out=bf16",
        "dtype=u8,layout=nhwc,channels=4,height=6,width=6,patch_h=3,patch_w=3,order=thwc",
        "dtype=u8,layout=nchw,height=9,width=40,patch_h=3,patch_w=20,normalised=true,out=f16",
        "layout=nhwc,height=9,width=40,patch_h=3,patch_w=20",
        "layout=nhwc,height=9,width=40,patch_h=3,patch_w=20,order=thwc,normalised=true,scale=1.0",
        "height=3,width=9,patch_h=4,patch_w=3",
        "batch=0,height=4,width=4,patch_h=2,patch_w=2",
        "channels=0,height=4,width=4,patch_h=2,patch_w=2",
    ]);
    cases.extend(Case::model(&[
        ("", "height=336,width=336,patch_h=14,patch_w=14"),
        ("", "dtype=u8,layout=nhwc,height=336,width=336,patch_h=14,patch_w=14,normalised=true"),
        ("", "dtype=u8,layout=nhwc,height=336,width=336,patch_h=14,patch_w=14,normalised=true,out=bf16"),
        ("", "frames=16,height=224,width=224,patch_h=16,patch_w=16,tubelet=2"),
        ("", "dtype=u8,layout=nhwc,frames=16,height=224,width=224,patch_h=16,patch_w=16,tubelet=2,normalised=true"),
        ("", "channels=4,batch=2,height=32,width=32,patch_h=2,patch_w=2"),
    ]));
    cases
}
