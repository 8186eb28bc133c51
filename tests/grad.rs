//! The gradient of every op on its small cases, against finite differences of the f64 reference.

use lapidary::bench::check_grads;
use lapidary::ops::{CATALOG, Class};
use lapidary::{Device, Error};

/// Ops without a gradient: their results are no smooth function of their operands, they are gradients themselves, or
/// nothing trains through them.
const WITHOUT: &[&str] = &[
    "adamw",
    "argmax",
    "attention_bwd",
    "cache_append",
    "cross_entropy_bwd",
    "lstm",
    "norm_bwd",
    "pack_rhs",
    "rvq_encode",
    "softmax_bwd",
    "topk",
];
/// Ops of which some problems have a gradient and some have none: second derivatives of activations, and products with
/// quantised weights.
const PARTLY: &[&str] = &["elementwise", "gemm"];
/// Every difference runs the reference twice.
const BUDGET: u64 = 2_000_000;

#[test]
fn gradients_agree_with_finite_differences() {
    let device = Device::cpu_with_threads(2).unwrap();
    let (mut checked, mut failures, mut without, mut partly) = (0, Vec::new(), Vec::new(), Vec::new());
    for entry in CATALOG {
        let (mut of_op, mut lacking) = (0, 0);
        for case in (entry.cases)().into_iter().filter(|c| c.class == Class::Edge) {
            let problem = &*case.problem;
            if problem.cost().flops > BUDGET {
                continue;
            }
            match check_grads(problem, &device) {
                Ok(verdicts) => {
                    of_op += verdicts.len();
                    failures.extend(verdicts.iter().filter(|v| !v.passed()).map(|v| {
                        format!("{} `{}`: error {:.2e}, allowed {:.2e}", problem.text(), v.operand, v.error, v.allowed)
                    }));
                }
                Err(Error::NotSupported(_)) => lacking += 1,
                Err(e) => failures.push(format!("{}: {e}", problem.text())),
            }
        }
        match (of_op, lacking) {
            (0, _) => without.push(entry.name),
            (_, 1..) => partly.push(entry.name),
            _ => {}
        }
        checked += of_op;
    }
    assert!(failures.is_empty(), "{} of {checked} gradients are wrong:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(without, WITHOUT, "ops without a gradient");
    assert_eq!(partly, PARTLY, "ops with and without a gradient");
    println!("{checked} gradients");
}
