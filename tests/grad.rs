//! The gradient of every op on its small cases, against finite differences of the f64 reference.

use lapidary::bench::check_grads;
use lapidary::ops::{CATALOG, Class};
use lapidary::{Device, Error};

/// Ops without a gradient: their results are no smooth function of their operands, or nothing trains through them.
const WITHOUT: &[&str] = &[
    "adamw",
    "argmax",
    "attention_bwd",
    "cache_append",
    "cross_entropy_bwd",
    "lstm",
    "pack_rhs",
    "rvq_encode",
    "topk",
];
/// Every difference runs the reference twice.
const BUDGET: u64 = 2_000_000;

#[test]
fn gradients_agree_with_finite_differences() {
    let device = Device::cpu_with_threads(2).unwrap();
    let (mut checked, mut failures, mut without) = (0, Vec::new(), Vec::new());
    for entry in CATALOG {
        for case in (entry.cases)().into_iter().filter(|c| c.class == Class::Edge) {
            let problem = &*case.problem;
            if problem.cost().flops > BUDGET {
                continue;
            }
            match check_grads(problem, &device) {
                Ok(verdicts) => {
                    checked += verdicts.len();
                    failures.extend(verdicts.iter().filter(|v| !v.passed()).map(|v| {
                        format!("{} `{}`: error {:.2e}, allowed {:.2e}", problem.text(), v.operand, v.error, v.allowed)
                    }));
                }
                Err(Error::NotSupported(_)) => {
                    if !without.contains(&entry.name) {
                        without.push(entry.name);
                    }
                }
                Err(e) => failures.push(e.to_string()),
            }
        }
    }
    assert!(failures.is_empty(), "{} of {checked} gradients are wrong:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(without, WITHOUT, "ops without a gradient");
    println!("{checked} gradients");
}
