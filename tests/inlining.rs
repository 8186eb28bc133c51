//! A kernel is compiled for its instruction set only if everything it calls is inlined into it. What is not does the arithmetic of
//! vectors by calls of functions of one instruction, operands in memory: results are right, and take several times as long.
//! (The activation of products once was a closure like that.)

/// The names of such functions are in the program's table of symbols if one of them is called.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(debug_assertions)))]
fn arithmetic_of_vectors_is_never_a_call() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_lapidary")).unwrap();
    let has = |name: &str| program.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(has("lapidary"), "a program without symbols shows nothing");
    for bits in [256, 512] {
        for name in
            ["fmadd_ps", "fnmadd_ps", "mul_ps", "permutex2var_ps", "permutexvar_epi16", "reduce_ps", "dpbf16_ps"]
        {
            assert!(!has(&format!("_mm{bits}_{name}")), "_mm{bits}_{name} is called");
        }
    }
}
