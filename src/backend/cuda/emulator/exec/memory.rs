//! Loads, stores, atomics, `cp.async` and fences.

use super::super::fault::{self, Fault};
use super::super::float as f;
use super::super::memory;
use super::data::space;
use super::*;
use crate::backend::cuda::emulator::block::Copy;
use std::sync::atomic::Ordering::Relaxed;

/// Up to 16 bytes for each lane: `rows[w][lane]` is word w of them.
pub type Rows = [Lanes<u32>; 4];

/// Modifiers about order and caches, which one block after another that sees memory at once has no use for. Races are found
/// by the rules of the barriers alone.
const HINTS: [&str; 36] = [
    "weak",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "sc",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "gl",
    "nc",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "mmio",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::cache_hint",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::evict_first",
    "level::eviction_priority",
    "noftz",
    "unified",
];

pub fn compile(b: &mut Build, name: &str) -> Compiled {
    match name {
        "ld" | "ldu" => load(b),
        "st" => store(b),
        "atom" | "red" => atomic(b, name == "atom"),
        "cp" if b.take("async") => copy(b),
        "membar" | "fence" => {
            b.ignore(&HINTS);
            b.ignore(&["proxy", "async", "global", "shared::cta", "alias"]);
            nothing()
        }
        "prefetch" | "prefetchu" | "applypriority" | "discard" => {
            b.ignore(&HINTS);
            b.ignore(&["global", "local", "L1", "L2"]);
            nothing()
        }
        "createpolicy" => {
            b.modifiers.clear();
            let d = b.result::<u64>()?;
            run(move |warp, _, mask| {
                warp.registers.set(d, &[0; LANES], mask);
                Ok(())
            })
        }
        "nanosleep" => {
            b.only_type()?;
            nothing()
        }
        "griddepcontrol" => {
            b.ignore(&["wait", "launch_dependents"]);
            nothing()
        }
        _ => Ok(None),
    }
}

/// `[base + offset]`
#[derive(Clone, Copy)]
pub struct Address {
    base: Base,
    offset: i64,
}

#[derive(Clone, Copy)]
enum Base {
    Word(Slot<u32>),
    Long(Slot<u64>),
}

impl Address {
    /// Operand `at`, and the space of the variable that it names, if it names one.
    pub fn new(b: &mut Build, at: usize) -> Result<(Address, Option<Space>), String> {
        let Operand::Address(base, offset) = b.operand(at)? else {
            return Err("an address in brackets expected".into());
        };
        let named = match **base {
            Operand::Symbol(symbol, _) => Some(b.symbol(symbol).0),
            _ => None,
        };
        let base = match b.place(base, Width::Long)? {
            (Width::Long, slot) => Base::Long(Slot::new(slot)),
            (_, slot) => Base::Word(Slot::new(slot)),
        };
        Ok((Address { base, offset: *offset }, named))
    }

    #[inline]
    pub fn long(&self, registers: &Registers) -> Lanes<u64> {
        match self.base {
            Base::Word(slot) => {
                let base = registers.get(slot);
                each_lane(|lane| base[lane].wrapping_add(self.offset as u32).into())
            }
            Base::Long(slot) => {
                let base = registers.get(slot);
                each_lane(|lane| base[lane].wrapping_add_signed(self.offset))
            }
        }
    }

    /// As addresses of shared memory.
    #[inline]
    pub fn shared(&self, registers: &Registers) -> Lanes<u32> {
        match self.base {
            Base::Word(slot) => {
                let base = registers.get(slot);
                each_lane(|lane| base[lane].wrapping_add(self.offset as u32))
            }
            Base::Long(_) => in_shared(&self.long(registers)),
        }
    }
}

/// Addresses of shared memory; whatever does not fit is out of bounds.
fn in_shared(addresses: &Lanes<u64>) -> Lanes<u32> {
    each_lane(|lane| if addresses[lane] < WINDOW_BYTES { addresses[lane] as u32 } else { !15 })
}

/// The space of an access: that of the instruction; parameters of functions are local.
fn space_of(b: &mut Build, named: Option<Space>) -> Space {
    match space(b) {
        Some(Space::Param) => named.unwrap_or(if b.function.is_entry { Space::Param } else { Space::Local }),
        Some(space) => space,
        None => Space::Generic,
    }
}

/// The lanes of a mask whose generic address is in each space, and what to subtract.
fn by_space(mask: u32, addresses: &Lanes<u64>) -> impl Iterator<Item = (Space, u32, u64)> {
    let spaces = [
        (Space::Shared, SHARED_WINDOW),
        (Space::Local, LOCAL_WINDOW),
        (Space::Param, PARAM_WINDOW),
        (Space::Global, 0),
    ];
    let mut rest = mask;
    let addresses = *addresses;
    spaces.into_iter().filter_map(move |(space, base)| {
        let inside = |lane: usize| base == 0 || addresses[lane] & !(WINDOW_BYTES - 1) == base;
        let here = lanes(rest).filter(|&lane| inside(lane)).fold(0, |mask, lane| mask | 1 << lane);
        rest &= !here;
        (here != 0).then_some((space, here, base))
    })
}

/// Where an access to `size` bytes of a small memory is.
fn place(space: fault::Space, address: u64, bytes: usize, size: usize) -> Result<usize, Fault> {
    if !address.is_multiple_of(bytes as u64) {
        return Err(Fault::Misaligned { space, address, bytes });
    }
    match usize::try_from(address).ok().filter(|at| at.checked_add(bytes).is_some_and(|end| end <= size)) {
        Some(at) => Ok(at),
        None => Err(Fault::OutOfBounds { space, address, bytes, near: Some((0, size as u64)) }),
    }
}

fn read_bytes(bytes: &[u8], lane: usize, rows: &mut Rows) {
    for (row, word) in rows.iter_mut().zip(bytes.chunks(4)) {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        row[lane] = u32::from_le_bytes(whole);
    }
}

fn read_global<const BYTES: usize>(
    block: &mut Block,
    mask: u32,
    addresses: &Lanes<u64>,
    rows: &mut Rows,
) -> Result<(), (usize, Fault)> {
    block.view.each_lane(&mut block.hint, mask, addresses, BYTES, |lane, at| {
        // 16 bytes are two of 8.
        for part in 0..BYTES.div_ceil(8) {
            // SAFETY: the address was checked for so many bytes, and the block holds the view.
            let value = unsafe { memory::load(at.add(8 * part), BYTES.min(8)) };
            rows[2 * part][lane] = value as u32;
            if BYTES >= 8 {
                rows[2 * part + 1][lane] = (value >> 32) as u32;
            }
        }
    })
}

fn write_global<const BYTES: usize>(
    block: &mut Block,
    mask: u32,
    addresses: &Lanes<u64>,
    rows: &Rows,
) -> Result<(), (usize, Fault)> {
    block.view.each_lane(&mut block.hint, mask, addresses, BYTES, |lane, at| {
        for part in 0..BYTES.div_ceil(8) {
            let high = if BYTES >= 8 { rows[2 * part + 1][lane] } else { 0 };
            let value = u64::from(high) << 32 | u64::from(rows[2 * part][lane]);
            // SAFETY: as in `read_global`.
            unsafe { memory::store(at.add(8 * part), BYTES.min(8), value) };
        }
    })
}

/// Reads `bytes` bytes for each lane.
fn fetch(
    warp: &mut Warp,
    block: &mut Block,
    space: Space,
    mask: u32,
    addresses: &Lanes<u64>,
    bytes: usize,
    rows: &mut Rows,
) -> Outcome {
    match space {
        Space::Generic => {
            for (space, mask, base) in by_space(mask, addresses) {
                fetch(warp, block, space, mask, &addresses.map(|a| a.wrapping_sub(base)), bytes, rows)?;
            }
        }
        Space::Global | Space::Const => {
            block.counts.global_loads.count(mask, addresses, bytes);
            let done = match bytes {
                16 => read_global::<16>(block, mask, addresses, rows),
                8 => read_global::<8>(block, mask, addresses, rows),
                4 => read_global::<4>(block, mask, addresses, rows),
                2 => read_global::<2>(block, mask, addresses, rows),
                _ => read_global::<1>(block, mask, addresses, rows),
            };
            done.map_err(|(lane, fault)| Trap::at(lane, fault))?;
        }
        Space::Shared => {
            let who = block.who(warp);
            let addresses = in_shared(addresses);
            block.counts.shared_loads.count(mask, &addresses, bytes);
            let done = block.shared.read_lanes(who, mask, &addresses, bytes, rows);
            done.map_err(|(lane, fault)| Trap::at(lane, fault))?;
        }
        Space::Local => {
            for lane in lanes(mask) {
                let at = place(fault::Space::Local, addresses[lane], bytes, warp.local_bytes);
                let at = lane * warp.local_bytes + at.map_err(|fault| Trap::at(lane, fault))?;
                read_bytes(&warp.local[at..at + bytes], lane, rows);
            }
        }
        Space::Param => {
            let read = |lane: usize, rows: &mut Rows| -> Outcome {
                let at = place(fault::Space::Param, addresses[lane], bytes, block.params.len());
                let at = at.map_err(|fault| Trap::at(lane, fault))?;
                read_bytes(&block.params[at..at + bytes], lane, rows);
                Ok(())
            };
            // Mostly the same for all.
            let first = mask.trailing_zeros() as usize;
            if addresses.iter().fold(0, |differs, address| differs | address ^ addresses[first]) == 0 {
                read(first, rows)?;
                rows.iter_mut().for_each(|row| *row = [row[first]; LANES]);
            } else {
                lanes(mask).try_for_each(|lane| read(lane, rows))?;
            }
        }
    }
    Ok(())
}

/// Writes `bytes` bytes for each lane.
fn put(
    warp: &mut Warp,
    block: &mut Block,
    space: Space,
    mask: u32,
    addresses: &Lanes<u64>,
    bytes: usize,
    rows: &Rows,
) -> Outcome {
    match space {
        Space::Generic => {
            for (space, mask, base) in by_space(mask, addresses) {
                put(warp, block, space, mask, &addresses.map(|a| a.wrapping_sub(base)), bytes, rows)?;
            }
        }
        Space::Global => {
            block.counts.global_stores.count(mask, addresses, bytes);
            let done = match bytes {
                16 => write_global::<16>(block, mask, addresses, rows),
                8 => write_global::<8>(block, mask, addresses, rows),
                4 => write_global::<4>(block, mask, addresses, rows),
                2 => write_global::<2>(block, mask, addresses, rows),
                _ => write_global::<1>(block, mask, addresses, rows),
            };
            done.map_err(|(lane, fault)| Trap::at(lane, fault))?;
        }
        Space::Shared => {
            let who = block.who(warp);
            let addresses = in_shared(addresses);
            block.counts.shared_stores.count(mask, &addresses, bytes);
            let done = block.shared.write_lanes(who, mask, &addresses, bytes, rows);
            done.map_err(|(lane, fault)| Trap::at(lane, fault))?;
        }
        Space::Local => {
            for lane in lanes(mask) {
                let at = place(fault::Space::Local, addresses[lane], bytes, warp.local_bytes);
                let at = lane * warp.local_bytes + at.map_err(|fault| Trap::at(lane, fault))?;
                for (row, word) in rows.iter().zip(warp.local[at..at + bytes].chunks_mut(4)) {
                    word.copy_from_slice(&row[lane].to_le_bytes()[..word.len()]);
                }
            }
        }
        Space::Const | Space::Param => return Err(Trap::new("a store to memory that kernels only read")),
    }
    Ok(())
}

/// The elements of a load or store: their bytes, whether they are signed, and the registers.
struct Elements {
    bytes: usize,
    signed: bool,
    places: Vec<(Width, u32)>,
}

impl Elements {
    /// Bytes of a lane.
    fn total(&self) -> usize {
        self.bytes * self.places.len()
    }

    /// From memory to registers.
    fn unpack(&self, registers: &mut Registers, mask: u32, rows: &Rows) {
        for (at, &(width, slot)) in self.places.iter().enumerate() {
            let start = at * self.bytes;
            let (row, shift) = (start / 4, 8 * (start % 4));
            if self.bytes == 8 {
                let mut out = [0; LANES];
                for lane in 0..LANES {
                    out[lane] = u64::from(rows[row + 1][lane]) << 32 | u64::from(rows[row][lane]);
                }
                registers.set(Slot::<u64>::new(slot), &out, mask);
                continue;
            }
            let unused = 32 - 8 * self.bytes as u32;
            let mut out = rows[row];
            if unused > 0 {
                let row = &rows[row];
                out = match self.signed {
                    true => each_lane(|lane| ((row[lane] >> shift << unused) as i32 >> unused) as u32),
                    false => each_lane(|lane| row[lane] >> shift << unused >> unused),
                };
            }
            if width == Width::Long {
                let signs = if self.signed { u64::MAX << 32 } else { 0 };
                let wide = each_lane(|lane| u64::from(out[lane]) | if out[lane] >> 31 != 0 { signs } else { 0 });
                registers.set(Slot::<u64>::new(slot), &wide, mask);
            } else {
                registers.set(Slot::<u32>::new(slot), &out, mask);
            }
        }
    }

    /// From registers to memory.
    fn pack(&self, registers: &Registers) -> Rows {
        let mut rows = [[0; LANES]; 4];
        for (at, &(width, slot)) in self.places.iter().enumerate() {
            let start = at * self.bytes;
            let (row, shift) = (start / 4, 8 * (start % 4));
            if width == Width::Long {
                let values = registers.get(Slot::<u64>::new(slot));
                for lane in 0..LANES {
                    rows[row][lane] = values[lane] as u32;
                    if self.bytes == 8 {
                        rows[row + 1][lane] = (values[lane] >> 32) as u32;
                    }
                }
                continue;
            }
            let values = registers.get(Slot::<u32>::new(slot));
            if self.bytes == 4 {
                rows[row] = *values;
                continue;
            }
            let ones = u32::MAX >> (32 - 8 * self.bytes);
            for lane in 0..LANES {
                rows[row][lane] |= (values[lane] & ones) << shift;
            }
        }
        rows
    }
}

fn elements(
    b: &mut Build,
    at: usize,
    mut place: impl FnMut(&mut Build, &Operand, Width) -> Result<(Width, u32), String>,
) -> Result<Elements, String> {
    let vector = b.one_of(&["v2", "v4"]);
    b.ignore(&HINTS);
    let ty = b.only_type()?;
    let parts = match (b.operand(at)?, vector) {
        (Operand::Vector(parts), Some(_)) => &parts[..],
        (one, None) => std::slice::from_ref(one),
        _ => return Err("a list of registers as long as the vector expected".into()),
    };
    let count = vector.map_or(1, |v| if v == "v2" { 2 } else { 4 });
    let places = parts.iter().map(|p| place(b, p, ty.width())).collect::<Result<Vec<_>, _>>()?;
    if places.len() != count || ty.bytes() * count > 16 {
        return Err(format!("a vector of {count} elements of at most 16 bytes together expected"));
    }
    if places.iter().any(|p| p.0 == Width::Predicate || ty.width() == Width::Long && p.0 != Width::Long) {
        return Err("a register too narrow".into());
    }
    Ok(Elements { bytes: ty.bytes(), signed: matches!(ty, Type::S8 | Type::S16 | Type::S32), places })
}

fn load(b: &mut Build) -> Compiled {
    let (address, named) = Address::new(b, 1)?;
    let space = space_of(b, named);
    let elements = elements(b, 0, |b, operand, wanted| b.target(operand, wanted))?;
    run(move |warp, block, mask| {
        let addresses = address.long(&warp.registers);
        let mut rows = [[0; LANES]; 4];
        fetch(warp, block, space, mask, &addresses, elements.total(), &mut rows)?;
        elements.unpack(&mut warp.registers, mask, &rows);
        Ok(())
    })
}

fn store(b: &mut Build) -> Compiled {
    let (address, named) = Address::new(b, 0)?;
    let space = space_of(b, named);
    let elements = elements(b, 1, |b, operand, wanted| b.place(operand, wanted))?;
    run(move |warp, block, mask| {
        let addresses = address.long(&warp.registers);
        let rows = elements.pack(&warp.registers);
        put(warp, block, space, mask, &addresses, elements.total(), &rows)
    })
}

/// What an atomic instruction makes of the old value and its operands.
type Change = fn(u64, u64, u64) -> u64;

fn change(name: &str, ty: Type) -> Option<Change> {
    use Type::*;
    Some(match (name, ty) {
        ("exch", _) => |_, x, _| x,
        ("cas", _) => |old, x, y| if old == x { y } else { old },
        ("and", _) => |old, x, _| old & x,
        ("or", _) => |old, x, _| old | x,
        ("xor", _) => |old, x, _| old ^ x,
        ("add", U32 | S32) => |old, x, _| u64::from((old as u32).wrapping_add(x as u32)),
        ("add", U64) => |old, x, _| old.wrapping_add(x),
        ("inc", U32) => |old, x, _| if old >= x { 0 } else { old + 1 },
        ("dec", U32) => |old, x, _| if old == 0 || old > x { x } else { old - 1 },
        ("min", U32 | U64) => |old, x, _| old.min(x),
        ("max", U32 | U64) => |old, x, _| old.max(x),
        ("min", S32) => |old, x, _| u64::from((old as i32).min(x as i32) as u32),
        ("max", S32) => |old, x, _| u64::from((old as i32).max(x as i32) as u32),
        ("min", S64) => |old, x, _| (old as i64).min(x as i64) as u64,
        ("max", S64) => |old, x, _| (old as i64).max(x as i64) as u64,
        ("add", F32) => |old, x, _| {
            let sum = f::add(f32::from_bits(old as u32), f32::from_bits(x as u32), f::Rounding::Nearest);
            sum.to_bits().into()
        },
        ("add", F64) => |old, x, _| (f64::from_bits(old) + f64::from_bits(x)).to_bits(),
        ("add", F16) => |old, x, _| f::add_half::<f::F16>(old as u16, x as u16).into(),
        ("add", Bf16) => |old, x, _| f::add_half::<f::BF16>(old as u16, x as u16).into(),
        ("add", F16x2) => |old, x, _| f::zip2(old as u32, x as u32, f::add_half::<f::F16>).into(),
        ("add", Bf16x2) => |old, x, _| f::zip2(old as u32, x as u32, f::add_half::<f::BF16>).into(),
        _ => return None,
    })
}

fn value(registers: &Registers, (width, slot): (Width, u32), lane: usize) -> u64 {
    match width {
        Width::Long => registers.longs[slot as usize][lane],
        _ => registers.words[slot as usize][lane].into(),
    }
}

/// `atom d, [a], b, c` or `red [a], b`: lane after lane.
fn atomic(b: &mut Build, returns: bool) -> Compiled {
    let at = usize::from(returns);
    let (address, named) = Address::new(b, at)?;
    let space = space_of(b, named);
    b.ignore(&HINTS);
    let name = b.one_of(&["exch", "cas", "and", "or", "xor", "add", "inc", "dec", "min", "max"]);
    let name = name.ok_or("an operation expected")?;
    let ty = b.only_type()?;
    let change = change(name, ty).ok_or_else(|| format!("no `.{name}` of this type"))?;
    let mut source = |at: usize| {
        let operand = b.operand(at)?;
        match b.place(operand, ty.width())? {
            place if place.0 == ty.width() => Ok(place),
            _ => Err("a register of another width".to_string()),
        }
    };
    let first = source(at + 1)?;
    let second = if name == "cas" { source(at + 2)? } else { first };
    let target = match returns {
        true => Some(b.target(b.operand(0)?, ty.width())?),
        false => None,
    };
    let bytes = ty.bytes();
    let ones = u64::MAX >> (64 - 8 * bytes);
    run(move |warp, block, mask| {
        let addresses = address.long(&warp.registers);
        let who = block.who(warp);
        for lane in lanes(mask) {
            let operand = |place| value(&warp.registers, place, lane) & ones;
            let (x, y) = (operand(first), operand(second));
            let mut address = addresses[lane];
            let shared = match space {
                Space::Shared => true,
                Space::Generic if address & !(WINDOW_BYTES - 1) == SHARED_WINDOW => {
                    address -= SHARED_WINDOW;
                    true
                }
                Space::Generic | Space::Global => false,
                _ => return Err(Trap::new("atomics are for global and shared memory")),
            };
            let old = if shared {
                let address = u32::try_from(address).unwrap_or(!15);
                block.shared.update(who, address, bytes, |old| change(old, x, y))
            } else {
                block.view.resolve(&mut block.hint, address, bytes).map(|at| {
                    // SAFETY: `resolve` checked the address, and the block holds the view.
                    unsafe { update_global(at, bytes, |old| change(old, x, y)) }
                })
            };
            let old = old.map_err(|fault| Trap::at(lane, fault))?;
            match target {
                Some((Width::Long, slot)) => warp.registers.longs[slot as usize][lane] = old,
                Some((_, slot)) => warp.registers.words[slot as usize][lane] = old as u32,
                None => (),
            }
        }
        Ok(())
    })
}

/// # Safety
/// As of [`memory::load`].
unsafe fn update_global(at: *mut u8, bytes: usize, change: impl Fn(u64) -> u64) -> u64 {
    // SAFETY: aligned and alive, by the caller's promise.
    unsafe {
        if bytes == 8 {
            let here = memory::atomic_u64(at);
            return here.fetch_update(Relaxed, Relaxed, |old| Some(change(old))).unwrap_or_else(|old| old);
        }
        // Two bytes are updated within the four that they lie in: an allocation has room for whole ones.
        let shift = 8 * (at as usize % 4) as u32;
        let here = memory::atomic_u32(at.sub(at as usize % 4));
        let ones = (u64::MAX >> (64 - 8 * bytes)) as u32;
        let changed = |old: u32| {
            let new = change((old >> shift & ones).into()) as u32;
            Some(old & !(ones << shift) | (new & ones) << shift)
        };
        let old = here.fetch_update(Relaxed, Relaxed, changed).unwrap_or_else(|old| old);
        (old >> shift & ones).into()
    }
}

/// `cp.async` and what waits for it.
fn copy(b: &mut Build) -> Compiled {
    if b.take("commit_group") {
        return run(|warp, _, mask| {
            lanes(mask).for_each(|lane| warp.groups[lane] += 1);
            Ok(())
        });
    }
    if b.take("wait_all") {
        return run(|warp, block, mask| {
            lanes(mask).for_each(|lane| warp.groups[lane] += 1);
            wait(warp, block, mask, 0);
            Ok(())
        });
    }
    if b.take("wait_group") {
        let Operand::Int(pending) = *b.operand(0)? else { return Err("a number of groups expected".into()) };
        return run(move |warp, block, mask| {
            wait(warp, block, mask, pending as u32);
            Ok(())
        });
    }
    let caches_all = b.take("ca");
    let spaces = (space(b), space(b));
    if spaces != (Some(Space::Shared), Some(Space::Global)) {
        return Err("a copy from global to shared memory expected".into());
    }
    b.ignore(&HINTS);
    let ((to, _), (from, _)) = (Address::new(b, 0)?, Address::new(b, 1)?);
    let bytes = match *b.operand(2)? {
        Operand::Int(bytes @ (4 | 8 | 16)) if caches_all || bytes == 16 => bytes as usize,
        _ => return Err("4, 8 or 16 bytes expected (`.cg`: 16)".into()),
    };
    // Bytes that are read; the rest is zero.
    let (mut size, mut ignore) = (None, None);
    if let Some(operand) = b.instruction.operands.get(3) {
        let is_predicate = match operand {
            Operand::Register(r) | Operand::Not(r) => b.function.registers[*r as usize] == Width::Predicate,
            _ => false,
        };
        if is_predicate {
            ignore = Some(b.mask(3)?);
        } else if b.place(operand, Width::Word)?.0 == Width::Word {
            size = Some(b.source::<u32>(3)?);
        }
    }
    run(move |warp, block, mask| {
        let (addresses, from) = (to.shared(&warp.registers), from.long(&warp.registers));
        let mut data = [[0; LANES]; 4];
        let mut whole = mask & !ignore.map_or(0, |i| warp.registers.mask(i));
        if let Some(size) = size {
            for lane in lanes(mask) {
                let size = warp.registers.get(size)[lane] as usize;
                if size > bytes {
                    return Err(Trap::at(lane, Fault::Other(format!("{size} bytes to read of {bytes} to copy"))));
                }
                if size < bytes {
                    whole &= !(1 << lane);
                    read_part(block, from[lane], size, lane, &mut data)?;
                }
            }
        }
        fetch(warp, block, Space::Global, whole, &from, bytes, &mut data)?;
        block.counts.shared_stores.count(mask, &addresses, bytes);
        let who = block.who(warp);
        let begun = block.shared.begin_copies(who, mask, &addresses, bytes);
        begun.map_err(|(lane, fault)| Trap::at(lane, fault))?;
        warp.copies.push_back(Copy { mask, addresses, bytes, data, groups: warp.groups });
        Ok(())
    })
}

/// Reads fewer bytes than a copy has.
fn read_part(block: &mut Block, address: u64, size: usize, lane: usize, rows: &mut Rows) -> Outcome {
    for byte in 0..size {
        let at = block.view.resolve(&mut block.hint, address.wrapping_add(byte as u64), 1);
        let at = at.map_err(|fault| Trap::at(lane, fault))?;
        // SAFETY: `resolve` checked the address, and the block holds the view.
        rows[byte / 4][lane] |= (unsafe { memory::load(at, 1) } as u32) << (8 * (byte % 4));
    }
    Ok(())
}

/// Ends the copies of the lanes but for those of the last `pending` groups that each has committed.
fn wait(warp: &mut Warp, block: &mut Block, mask: u32, pending: u32) {
    let who = block.who(warp);
    let committed = warp.groups;
    warp.copies.retain_mut(|copy| {
        let is_done = |lane: &usize| copy.groups[*lane].saturating_add(pending) < committed[*lane];
        let done = lanes(copy.mask & mask).filter(is_done).fold(0, |done, lane| done | 1 << lane);
        block.shared.end_copies(who, done, &copy.addresses, copy.bytes, &copy.data);
        copy.mask &= !done;
        copy.mask != 0
    });
}
