use super::NormBwd;
use crate::ops::Case;

pub fn cases() -> Vec<Case<NormBwd>> {
    let mut cases = Case::edge(&[
        "rows=1,cols=1,centred=true,products=true,sums=true",
        "rows=3,cols=7,weight=true,products=true",
        "rows=5,cols=16",
        "rows=2,cols=33,weight=true,eps=1e-12,centred=true,products=true,sums=true",
        "rows=65,cols=257,weight=true,centred=true,products=true,sums=true",
        "rows=1100,cols=19,weight=true,products=true",
        "rows=6,cols=130,weight=true,dsum=true,sums=true",
        "rows=6,cols=96,modulated=true,groups=3,eps=1e-6,centred=true,products=true,sums=true",
        "rows=60,cols=50,weight=true,dsum=true,modulated=true,groups=2,products=true,sums=true",
        "rows=4,cols=40,modulated=true,groups=4,products=true",
        "rows=4,cols=100,dtype=bf16,weight=true,products=true",
        "rows=3,cols=1000,dtype=f16,centred=true",
        // Several rows to a team of a GPU, and rows longer than what a block holds.
        "rows=90,cols=64,centred=true,weight=true,modulated=true,groups=2,products=true,sums=true",
        "rows=3,cols=9000,centred=true,weight=true,products=true,sums=true",
        // Rows in whole vectors of 16 bytes.
        "rows=6,cols=104,dtype=bf16,centred=true,weight=true,products=true,sums=true",
        "rows=0,cols=4,weight=true,products=true,sums=true",
        "rows=4,cols=0,products=true",
    ]);
    cases.extend(Case::model(&[
        ("", "rows=577,cols=1024,centred=true,weight=true,products=true,sums=true"),
        ("", "rows=2048,cols=2048,weight=true,products=true"),
        ("", "rows=2048,cols=4096,weight=true,products=true"),
        ("", "rows=512,cols=1152,centred=true,modulated=true,groups=2,eps=1e-6,products=true,sums=true"),
    ]));
    cases
}
