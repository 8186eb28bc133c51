//! The registers of a warp: for each register the values of 32 lanes side by side, so that an instruction is a loop over an
//! array. Predicates are masks of lanes. Constants and special registers lie in the same files, filled in beforehand, so
//! that every operand is just a place.

use super::ir::Width;
use std::marker::PhantomData;

/// Threads of a warp.
pub const LANES: usize = 32;
/// All lanes.
pub const FULL: u32 = u32::MAX;

/// A value for each lane.
pub type Lanes<W> = [W; LANES];

#[derive(Default)]
pub struct Registers {
    pub words: Vec<Lanes<u32>>,
    pub longs: Vec<Lanes<u64>>,
    pub predicates: Vec<u32>,
    /// The carry flag of `add.cc` and the like.
    pub carry: u32,
}

/// What a register is kept in.
pub trait Word: Copy + Default + Send + Sync + 'static {
    const WIDTH: Width;
    fn file(registers: &Registers) -> &[Lanes<Self>];
    fn file_mut(registers: &mut Registers) -> &mut [Lanes<Self>];
    fn from_bits(bits: u64) -> Self;
}

impl Word for u32 {
    const WIDTH: Width = Width::Word;
    fn file(registers: &Registers) -> &[Lanes<u32>] {
        &registers.words
    }
    fn file_mut(registers: &mut Registers) -> &mut [Lanes<u32>] {
        &mut registers.words
    }
    fn from_bits(bits: u64) -> u32 {
        bits as u32
    }
}

impl Word for u64 {
    const WIDTH: Width = Width::Long;
    fn file(registers: &Registers) -> &[Lanes<u64>] {
        &registers.longs
    }
    fn file_mut(registers: &mut Registers) -> &mut [Lanes<u64>] {
        &mut registers.longs
    }
    fn from_bits(bits: u64) -> u64 {
        bits
    }
}

/// A type that an instruction reads or writes: how it lies in its word.
pub trait Lane: Copy + Send + Sync + 'static {
    type Word: Word;
    fn get(word: Self::Word) -> Self;
    fn put(self) -> Self::Word;
}

macro_rules! lane {
    ($($t:ty, $word:ty, $w:ident => $get:expr, $x:ident => $put:expr;)*) => {$(
        impl Lane for $t {
            type Word = $word;
            #[inline(always)]
            fn get($w: $word) -> $t { $get }
            #[inline(always)]
            fn put(self) -> $word { let $x = self; $put }
        }
    )*};
}
lane! {
    u8, u32, w => w as u8, x => x.into();
    i8, u32, w => w as i8, x => x as u32;
    u16, u32, w => w as u16, x => x.into();
    i16, u32, w => w as i16, x => x as u16 as u32;
    u32, u32, w => w, x => x;
    i32, u32, w => w as i32, x => x as u32;
    u64, u64, w => w, x => x;
    i64, u64, w => w as i64, x => x as u64;
    f32, u32, w => f32::from_bits(w), x => x.to_bits();
    f64, u64, w => f64::from_bits(w), x => x.to_bits();
    half::f16, u32, w => half::f16::from_bits(w as u16), x => x.to_bits().into();
    half::bf16, u32, w => half::bf16::from_bits(w as u16), x => x.to_bits().into();
}

/// Where a register that holds `T` is in its file.
pub struct Slot<T>(pub u32, PhantomData<fn() -> T>);

impl<T> Slot<T> {
    pub fn new(index: u32) -> Slot<T> {
        Slot(index, PhantomData)
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slot<T> {}

/// A predicate as an operand: the mask at `index`, of which the lanes of `flip` are negated.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    pub index: u32,
    pub flip: u32,
}

impl Registers {
    #[inline(always)]
    pub fn get<T: Lane>(&self, slot: Slot<T>) -> &Lanes<T::Word> {
        &T::Word::file(self)[slot.0 as usize]
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub fn set<T: Lane>(&mut self, slot: Slot<T>, values: &Lanes<T::Word>, mask: u32) {
        let to = &mut T::Word::file_mut(self)[slot.0 as usize];
        if mask == FULL {
            *to = *values;
        } else {
            for lane in 0..LANES {
                if mask >> lane & 1 != 0 {
                    to[lane] = values[lane];
                }
            }
        }
    }

    #[inline(always)]
    pub fn mask(&self, mask: Mask) -> u32 {
        self.predicates[mask.index as usize] ^ mask.flip
    }

    #[inline(always)]
    pub fn set_mask(&mut self, index: u32, value: u32, mask: u32) {
        let to = &mut self.predicates[index as usize];
        *to = *to & !mask | value & mask;
    }
}

/// The lanes of a mask, the lowest first.
pub fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}
