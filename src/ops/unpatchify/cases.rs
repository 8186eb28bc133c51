use super::Unpatchify;
use crate::ops::Case;

pub fn cases() -> Vec<Case<Unpatchify>> {
    let mut cases = Case::edge(&[
        "channels=1",
        "height=8,width=12,patch_h=4,patch_w=4",
        "batch=2,height=6,width=36,patch_h=3,patch_w=18,order=thwc",
        "frames=4,height=8,width=40,patch_h=2,patch_w=20,tubelet=2,channels=2",
        "frames=4,height=8,width=8,patch_h=4,patch_w=4,tubelet=2,order=thwc,dtype=bf16",
        "height=20,width=20,patch_h=5,patch_w=5,dtype=f16",
        "batch=0,height=4,width=4,patch_h=2,patch_w=2",
        "channels=0,height=4,width=4,patch_h=2,patch_w=2",
    ]);
    cases.extend(Case::model(&[
        ("", "channels=8,batch=2,height=32,width=32,patch_h=2,patch_w=2,order=thwc"),
        ("", "channels=16,frames=21,height=60,width=104,patch_h=2,patch_w=2,order=thwc"),
        ("", "height=224,width=224,patch_h=16,patch_w=16"),
    ]));
    cases
}
