//! Loops on the vectors that the CPU has.

/// Runs a function, compiled for AVX2 and fused multiply-add where the CPU has them. The operations are the same, and so are
/// the bits.
#[inline(always)]
pub fn widest<T>(f: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn run<T>(f: impl FnOnce() -> T) -> T {
            f()
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has them.
            return unsafe { run(f) };
        }
    }
    f()
}
