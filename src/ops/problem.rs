//! The vocabulary of a problem: operands, results, cases, tolerances, and the macro that makes the struct.

use crate::backend::{MAX_IN, MAX_OUT};
use crate::dtype::{DType, Format};
use crate::error::{Error, Result};
use crate::layout::Shape;
use std::ops::Deref;

/// How an operand is filled for checks and benches. Never zeros: they hide errors and draw less power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Random normal numbers, mean 0 and deviation 1 (u8: uniform bytes; quantised blocks: uniform integers with factors
    /// that give a deviation of about 1).
    Normal,
    /// As [`Normal`](Fill::Normal), for quantised blocks of which a reference gets the bytes instead of their values.
    Bytes,
    /// Random normal numbers times a factor, plus an offset.
    Affine { scale: f32, offset: f32 },
    /// Uniform integers below a limit.
    Below(u32),
    /// Non-decreasing integers below a limit along the last dimension: ids of packed segments.
    Ascending(u32),
}

/// One operand or result of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub name: &'static str,
    pub dtype: DType,
    pub shape: Shape,
    pub format: Format,
    /// Whether this problem has it.
    pub present: bool,
    /// Of operands, and of the contents that results in place begin with.
    pub fill: Fill,
    /// Operands only: no gradient goes back to it, as to a table or a setting.
    pub constant: bool,
    /// Results only: the kernel also reads it, so that it exists only with `run_into`.
    pub in_place: bool,
}

impl Operand {
    /// A plain, present operand filled with normal numbers.
    ///
    /// # Panics
    /// More than six dimensions.
    pub fn new(name: &'static str, dtype: DType, dims: &[usize]) -> Operand {
        Operand {
            name,
            dtype,
            shape: Shape::of(dims),
            format: Format::Plain,
            present: true,
            fill: Fill::Normal,
            constant: false,
            in_place: false,
        }
    }

    pub fn format(self, format: Format) -> Operand {
        Operand { format, ..self }
    }

    pub fn only_if(self, present: bool) -> Operand {
        Operand { present, ..self }
    }

    pub fn fill(self, fill: Fill) -> Operand {
        Operand { fill, ..self }
    }

    /// Without a gradient.
    pub fn constant(self) -> Operand {
        Operand { constant: true, ..self }
    }

    /// A result that is updated where it lies.
    pub fn in_place(self) -> Operand {
        Operand { in_place: true, ..self }
    }

    /// Elements in memory, padding of a packed format included.
    pub fn elements(&self) -> usize {
        let (n, k) = self.shape.rows();
        self.format.elements(n, k)
    }

    /// Bytes in memory; 0 if absent.
    pub fn bytes(&self) -> u64 {
        if self.present { (self.elements() * self.dtype.bytes()) as u64 } else { 0 }
    }
}

/// An inline list of operands.
#[derive(Clone, Copy, Debug)]
pub struct List<const N: usize> {
    items: [Option<Operand>; N],
}

/// The operands of a problem, in order; absent ones keep their place.
pub type Inputs = List<MAX_IN>;
/// The results of a problem, in order; absent ones keep their place.
pub type Outputs = List<MAX_OUT>;

impl<const N: usize, const M: usize> From<[Operand; M]> for List<N> {
    fn from(operands: [Operand; M]) -> List<N> {
        const { assert!(M <= N) };
        let mut items = [None; N];
        for (slot, operand) in items.iter_mut().zip(operands) {
            *slot = Some(operand);
        }
        List { items }
    }
}

impl<const N: usize> List<N> {
    /// Every operand with its place, absent ones too.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Operand)> {
        self.items.iter().flatten().enumerate()
    }

    /// Bytes of all that are present.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|(_, o)| o.bytes()).sum()
    }
}

/// What a result is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Every element equals the reference.
    Exact,
    /// The error (relative, in the 2-norm) is at most this many times that of the plain computation in f32 with the
    /// problem's own roundings. At most 3.
    Plain(f64),
}

/// What a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Tails, odd sizes, masks: small, run by every test.
    Edge,
    /// A shape that models have: for benches, and for tests where the device is fast enough.
    Model,
}

/// A problem worth checking or timing.
#[derive(Clone, Debug)]
pub struct Case<P> {
    pub class: Class,
    /// The name that benches of other libraries use for it, or nothing.
    pub name: &'static str,
    pub problem: P,
}

impl<P: std::str::FromStr<Err = Error> + super::Op> Case<P> {
    /// Cases from the texts between the parentheses of their problems.
    ///
    /// # Panics
    /// A text is wrong: cases are part of the program, and a test reads them all.
    pub fn edge(fields: &[&str]) -> Vec<Case<P>> {
        fields.iter().map(|f| Case { class: Class::Edge, name: "", problem: parse_case(f) }).collect()
    }

    /// Cases with the names that benches share (or nothing). Panics as [`edge`](Case::edge) does.
    pub fn model(fields: &[(&'static str, &str)]) -> Vec<Case<P>> {
        fields.iter().map(|&(name, f)| Case { class: Class::Model, name, problem: parse_case(f) }).collect()
    }
}

fn parse_case<P: super::Op>(fields: &str) -> P {
    let text = format!("{}({fields})", P::NAME);
    text.parse().unwrap_or_else(|e| panic!("a case of {}: {e}", P::NAME))
}

/// Which rows of the first result a reference computes; the others may hold anything. Large problems are checked on
/// a sample. A row is the last dimension of a result (of one dimension: an element); row `i` of every result is computed
/// where `wants(i)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    every: usize,
}

impl Sample {
    /// All rows.
    pub const ALL: Sample = Sample { every: 1 };

    /// About one row in `every`.
    pub fn one_in(every: usize) -> Sample {
        Sample { every: every.max(1) }
    }

    /// Whether row `i` is computed. Rows are chosen by a hash, so that no tile is missed by its position.
    #[inline]
    pub fn wants(&self, i: usize) -> bool {
        self.every == 1
            || ((i as u64 ^ 0x5bd1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).is_multiple_of(self.every as u64)
    }
}

/// Splits `name(key=value,…)` into the pairs.
///
/// # Errors
/// Another name, or no such form.
pub fn parse_fields<'a>(name: &'static str, text: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
    let fail = |why: String| Error::Parse { what: "a problem", text: text.into(), why };
    let inner = text.trim().strip_prefix(name).and_then(|t| t.strip_prefix('(')).and_then(|t| t.strip_suffix(')'));
    let inner = inner.ok_or_else(|| fail(format!("expected {name}(field=value,…)")))?;
    let pairs = inner.split(',').map(str::trim).filter(|s| !s.is_empty());
    pairs.map(|p| p.split_once('=').ok_or_else(|| fail(format!("`{p}` is not field=value")))).collect()
}

/// Makes an op's problem: a struct of private fields with defaults, getters, `Display` (fields that differ from their
/// defaults) and `FromStr`, which ends in the op's own `checked(self) -> Result<Self>`.
macro_rules! problem {
    ($(#[$meta:meta])* pub struct $Op:ident($name:literal) {
        $($(#[$fmeta:meta])* $field:ident: $t:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $Op { $($field: $t,)* }

        impl Default for $Op {
            /// The defaults of the text form; not yet checked.
            fn default() -> Self {
                $Op { $($field: $default,)* }
            }
        }

        #[allow(dead_code)]
        impl $Op {
            $($(#[$fmeta])* pub fn $field(&self) -> $t { self.$field })*
        }

        impl std::fmt::Display for $Op {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let default = $Op::default();
                let mut text = String::from(concat!($name, "("));
                $(if self.$field != default.$field {
                    if !text.ends_with('(') { text.push(','); }
                    text.push_str(&format!(concat!(stringify!($field), "={}"), self.$field));
                })*
                text.push(')');
                f.pad(&text)
            }
        }

        impl std::str::FromStr for $Op {
            type Err = $crate::Error;
            fn from_str(text: &str) -> $crate::Result<Self> {
                let mut op = $Op::default();
                for (key, value) in $crate::ops::problem::parse_fields($name, text)? {
                    match key {
                        $(stringify!($field) => {
                            op.$field = value.parse().map_err(|e| $crate::Error::parse(
                                concat!("field `", stringify!($field), "` of ", $name), value, format!("{e}")))?;
                        })*
                        _ => return Err($crate::Error::parse("a problem", text,
                            format!("unknown field `{key}`; fields are {}", [$(stringify!($field)),*].join(", ")))),
                    }
                }
                op.checked()
            }
        }
    };
}
pub(crate) use problem;

/// Makes an enum whose variants have a text form, for fields of problems.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $E:ident { $($(#[$vmeta:meta])* $V:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $E { $($(#[$vmeta])* $V,)* }

        impl $E {
            /// All of them.
            pub const ALL: &'static [$E] = &[$($E::$V),*];
            /// The text form.
            pub const fn name(self) -> &'static str {
                match self { $($E::$V => $text,)* }
            }
        }
        impl std::fmt::Display for $E {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
        impl std::str::FromStr for $E {
            type Err = $crate::Error;
            fn from_str(s: &str) -> $crate::Result<$E> {
                $E::ALL.iter().copied().find(|v| v.name() == s).ok_or_else(|| {
                    let known: Vec<&str> = $E::ALL.iter().map(|v| v.name()).collect();
                    $crate::Error::parse("a choice", s, format!("known are {}", known.join(", ")))
                })
            }
        }
    };
}
pub(crate) use choice;

/// Stores for [`List`] lookups by place.
impl<const N: usize> Deref for List<N> {
    type Target = [Option<Operand>; N];
    fn deref(&self) -> &Self::Target {
        &self.items
    }
}
