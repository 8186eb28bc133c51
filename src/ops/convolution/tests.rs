//! Results that PyTorch 2 gives for operands whose values are sin i, cos 0.7i and i/10, in this order.

use super::{Axes, Padding};
use crate::{Device, Tensor, ops};

const PUBLISHED: &[(&str, &[f32])] = &[
    (
        "conv(channels_in=2,channels_out=2,size=10,kernel=3,stride=2,before=3,after=3,padding=reflect,bias=true)",
        &[
            2.20951, 2.93837, 2.17787, -2.35516, -0.21769, 2.53634, 2.81273, 0.71524, -1.22328, -1.37343, 0.41262,
            1.31324, -1.22239, 0.02825,
        ],
    ),
    (
        "conv(channels_in=2,channels_out=2,size=10,kernel=3,stride=3,dilation=2,before=4,after=1,padding=replicate,bias=true)",
        &[1.29669, 1.49097, -0.10991, 0.05081, -0.93752, -0.86700, -0.53748, 0.96067],
    ),
    (
        "conv(channels_in=2,channels_out=4,groups=2,size=3x4,kernel=2x3,stride=2x2,before=1x2,after=0x1,padding=circular,bias=true)",
        &[
            -1.73272, -0.43227, -1.73272, 0.38481, -1.91605, 0.38481, 1.96307, 0.04375, 1.96307, -1.37353, 1.29195,
            -1.37353, -0.60369, 0.06038, -0.60369, 1.26587, 1.68813, 1.26587, -0.86494, 0.80310, -0.86494, -0.41116,
            -2.08075, -0.41116,
        ],
    ),
    (
        "conv(channels_in=2,channels_out=4,groups=2,size=3x4,kernel=2x3,stride=1x2,dilation=2x1,before=1x1,after=1x0,bias=true)",
        &[
            1.61107, 0.13214, -1.17510, 2.80191, -0.74182, -1.06097, -0.61763, -0.96868, 1.56170, -0.18495, -0.78486,
            1.02754, -0.61417, 0.62254, 1.16059, -2.62690, 1.36736, 1.27152, 1.46282, 1.39014, -1.68426, 1.88865,
            -0.04530, -1.19816,
        ],
    ),
    (
        "conv(channels_out=2,size=3x3x4,kernel=2x2x3,stride=2x1x2,before=1x0x1,after=0x0x1,bias=true)",
        &[
            -0.06501, -1.20217, -0.07577, 0.77609, 0.66350, 1.81941, -1.92238, 0.02879, 1.82243, 1.80646, -1.91690,
            0.24657, -0.93217, 0.99441, 0.77130, -1.98772,
        ],
    ),
    (
        "conv_transpose(channels_in=2,channels_out=2,size=4,kernel=4,stride=3,dilation=2,before=2,after=2,output_padding=1,bias=true)",
        &[
            -0.75670, 0.09776, -0.57056, -0.31520, 0.57652, -0.57991, 0.41609, 0.07877, -0.05610, 0.76483, -0.50191,
            0.51929, 0.00000, 0.81724, -0.19489, 0.80415, 0.22079, -0.25178, 0.57967, -0.48671, 0.23882, -0.08582,
            -0.65479, 0.40247, -0.58046, 0.10000,
        ],
    ),
    (
        "conv_transpose(channels_in=4,channels_out=2,groups=2,size=2x2,kernel=3x2,stride=2x2,before=1x0,after=1x0,output_padding=0x1,bias=true)",
        &[
            -0.58695, -0.75670, -0.60069, -1.38360, 0.00000, 0.47573, 0.52728, -1.69676, -0.70460, 0.00000, -0.06215,
            -0.73843, 0.53352, 0.58565, 0.00000, -0.89389, -0.08417, -0.22599, -0.32017, 0.10000, 2.08473, 2.62492,
            0.95247, 1.46638, 0.10000, 0.74162, -0.16987, 1.11934, 0.22855, 0.10000,
        ],
    ),
    (
        "conv_transpose(size=2x2x2,kernel=2x1x3,stride=1x1x2,before=0x0x1,after=0x0x1,output_padding=0x0x1)",
        &[
            0.00000, 0.84147, 0.64359, 0.14302, 0.69547, 0.29567, 0.10794, 0.02399, -0.57883, -1.51237, -1.52628,
            -0.95099, -1.07047, -0.31327, 0.36952, -0.02049, 0.71308, 1.19282, 0.90352, 0.89799, 0.26327, -0.07002,
            -0.61903, -0.61524,
        ],
    ),
    (
        "conv_bwd_weight(batch=2,channels_in=2,channels_out=4,groups=2,size=3x4,kernel=2x3,stride=2x2,before=1x2,after=0x1,padding=reflect)",
        &[
            -0.96942, -2.16663, -1.81013, 1.96824, 4.32123, 3.56558, -0.21791, 0.40324, -0.35382, 0.44889, -0.81019,
            0.74195, 1.22940, 2.29169, 2.24151, -2.47747, -4.52994, -4.46967, -0.32871, -1.35683, -0.67078, 0.72337,
            2.72184, 1.34235,
        ],
    ),
];

#[test]
fn values_are_those_of_pytorch() {
    let device = Device::cpu_with_threads(2).unwrap();
    for &(text, want) in PUBLISHED {
        let problem = ops::parse(text).unwrap();
        let value: [fn(f32) -> f32; 3] = [f32::sin, |i| (i * 0.7).cos(), |i| i / 10.0];
        let operand = |(i, o): (usize, &ops::Operand)| {
            let values: Vec<f32> = (0..o.shape.count()).map(|j| value[i](j as f32)).collect();
            o.present.then(|| Tensor::from_slice(&device, &values, &o.shape).unwrap())
        };
        let operands: Vec<Option<Tensor>> = problem.inputs().iter().map(operand).collect();
        let refs: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
        for row in problem.explain(&device, &[]).iter().filter(|row| row.unsupported.is_none()) {
            let [out, ..] = problem.run(&device, Some(row.name), &refs).unwrap();
            let got = out.unwrap().to_vec::<f32>().unwrap();
            let close = got.iter().zip(want).all(|(g, w)| (g - w).abs() < 2e-5);
            assert!(close && got.len() == want.len(), "{} {text}: {got:?} for {want:?}", row.name);
        }
    }
}

#[test]
fn padding_names_the_point_that_stands_there() {
    let at = |padding: Padding| (-3..7).map(|i| padding.source(i, 4)).collect::<Vec<_>>();
    let some = |points: [usize; 10]| points.map(Some).to_vec();
    assert_eq!(at(Padding::Reflect), some([3, 2, 1, 0, 1, 2, 3, 2, 1, 0]));
    assert_eq!(at(Padding::Replicate), some([0, 0, 0, 0, 1, 2, 3, 3, 3, 3]));
    assert_eq!(at(Padding::Circular), some([1, 2, 3, 0, 1, 2, 3, 0, 1, 2]));
    assert_eq!(at(Padding::Zeros)[2..8], [None, Some(0), Some(1), Some(2), Some(3), None]);
}

#[test]
fn numbers_per_axis_leave_out_what_is_plain() {
    for (text, axes) in [("3", [1, 1, 3]), ("2x1", [1, 2, 1]), ("2x1x1", [2, 1, 1]), ("1", [1; 3])] {
        assert_eq!(text.parse::<Axes<1>>().unwrap(), Axes(axes));
        assert_eq!(Axes::<1>(axes).to_string(), text);
    }
    assert_eq!(Axes::<0>([0, 1, 0]).to_string(), "1x0");
    assert!("1x2x3x4".parse::<Axes<1>>().is_err() && "".parse::<Axes<0>>().is_err());
}
