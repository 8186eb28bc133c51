//! Rust's types for those of PTX.

/// Runs an expression with a type name bound to the integer type of a PTX type of 16 bits or more; for other types what
/// stands behind `else`, or `Ok(None)`.
macro_rules! with_int {
    ($ty:expr, $t:ident => $e:expr) => {
        with_int!($ty, $t => $e, else Ok(None))
    };
    ($ty:expr, $t:ident => $e:expr, else $other:expr) => {
        match $ty {
            Type::U16 | Type::B16 => {
                type $t = u16;
                $e
            }
            Type::S16 => {
                type $t = i16;
                $e
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                $e
            }
            Type::S32 => {
                type $t = i32;
                $e
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                $e
            }
            Type::S64 => {
                type $t = i64;
                $e
            }
            _ => $other,
        }
    };
}

/// The same for floats.
macro_rules! with_float {
    ($ty:expr, $t:ident => $e:expr) => {
        with_float!($ty, $t => $e, else Ok(None))
    };
    ($ty:expr, $t:ident => $e:expr, else $other:expr) => {
        match $ty {
            Type::F16 => {
                type $t = half::f16;
                $e
            }
            Type::Bf16 => {
                type $t = half::bf16;
                $e
            }
            Type::F32 => {
                type $t = f32;
                $e
            }
            Type::F64 => {
                type $t = f64;
                $e
            }
            _ => $other,
        }
    };
}
