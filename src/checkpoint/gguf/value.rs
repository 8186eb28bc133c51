//! Values of metadata: walked through and checked when a file is opened, so that reading them later cannot fail.

use super::cursor::Cursor;
use std::ops::Range;

/// Lists within lists are refused beyond this depth; nobody writes any.
pub(super) const MAX_DEPTH: usize = 4;

macro_rules! kinds {
    ($($kind:ident $code:literal $bytes:literal;)*) => {
        /// The type of a value.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($kind = $code,)* }

        impl Kind {
            fn of(code: u32) -> Result<Kind, String> {
                match code {
                    $($code => Ok(Kind::$kind),)*
                    _ => Err(format!("its type {code} is unknown; known are 0 to 12")),
                }
            }

            /// The size of a value in bytes; the least, where values differ.
            const fn bytes(self) -> usize {
                match self { $(Kind::$kind => $bytes,)* }
            }
        }
    };
}
kinds! {
    U8 0 1;
    I8 1 1;
    U16 2 2;
    I16 3 2;
    U32 4 4;
    I32 5 4;
    F32 6 4;
    Bool 7 1;
    Text 8 8;
    List 9 12;
    U64 10 8;
    I64 11 8;
    F64 12 8;
}

/// A value; texts and lists by where they lie in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(Range<usize>),
    List(List),
}

/// A list of values of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The type of all of them.
    pub kind: Kind,
    /// How many they are.
    pub len: usize,
    pub(super) range: Range<usize>,
}

impl Value {
    /// Reads the type of a value, and the value.
    pub(super) fn read(at: &mut Cursor<'_>) -> Result<Value, String> {
        let kind = Kind::of(at.u32("its type")?)?;
        Value::read_as(at, kind, MAX_DEPTH)
    }

    pub(super) fn read_as(at: &mut Cursor<'_>, kind: Kind, depth: usize) -> Result<Value, String> {
        const WHAT: &str = "its value";
        fn number<const N: usize>(at: &mut Cursor<'_>) -> Result<[u8; N], String> {
            Ok(at.take(N, WHAT)?.try_into().expect("so many were taken"))
        }
        Ok(match kind {
            Kind::U8 => Value::Unsigned(u8::from_le_bytes(number(at)?).into()),
            Kind::U16 => Value::Unsigned(u16::from_le_bytes(number(at)?).into()),
            Kind::U32 => Value::Unsigned(u32::from_le_bytes(number(at)?).into()),
            Kind::U64 => Value::Unsigned(u64::from_le_bytes(number(at)?)),
            Kind::I8 => Value::Signed(i8::from_le_bytes(number(at)?).into()),
            Kind::I16 => Value::Signed(i16::from_le_bytes(number(at)?).into()),
            Kind::I32 => Value::Signed(i32::from_le_bytes(number(at)?).into()),
            Kind::I64 => Value::Signed(i64::from_le_bytes(number(at)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(number(at)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(number(at)?)),
            Kind::Bool => match number(at)? {
                [flag @ 0..=1] => Value::Bool(flag == 1),
                [other] => return Err(format!("a flag is 0 or 1, not {other}")),
            },
            Kind::Text => Value::Text(at.skip_text(WHAT)?),
            Kind::List => Value::List(List::read(at, depth)?),
        })
    }
}

impl List {
    fn read(at: &mut Cursor<'_>, depth: usize) -> Result<List, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("its lists are nested more than {MAX_DEPTH} deep"));
        };
        let kind = Kind::of(at.u32("the type of its values")?)?;
        let len = at.u64("its length")?;
        let len = at.fits(len, kind.bytes(), "values")?;
        let start = at.at();
        match kind {
            Kind::Text => (0..len).try_for_each(|_| at.skip_text("its text").map(drop))?,
            Kind::List => (0..len).try_for_each(|_| List::read(at, depth).map(drop))?,
            Kind::Bool if at.take(len, "its values")?.iter().any(|&flag| flag > 1) => {
                return Err("flags are 0 or 1, and there are others in its list".into());
            }
            Kind::Bool => {}
            _ => {
                at.skip(len * kind.bytes(), "its values")?;
            }
        }
        Ok(List { kind, len, range: start..at.at() })
    }
}
