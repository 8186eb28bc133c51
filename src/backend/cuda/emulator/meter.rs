//! The meter: what kernels did, in the units of a GPU.
//!
//! Workers count in [`Counts`] of their own and merge them at the end. Global memory moves sectors of 32 bytes: a request of a
//! warp is good when it needs as many as its bytes fill. Shared memory has 32 banks of 4 bytes; a request is served in
//! wavefronts, each of one word per bank, and accesses of 8 or 16 bytes go by half and quarter warps.

use std::collections::BTreeMap;

macro_rules! classes {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// What a warp instruction is counted as.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Class { $(#[doc = $doc] $variant,)* }

        /// Their columns in the table.
        const CLASSES: &[&str] = &[$($name),*];
    };
}
classes! {
    Integer "int" "Integer arithmetic, logic, comparisons and selections.";
    Float "float" "f32 and f64 arithmetic.";
    Half "half" "f16 and bf16 arithmetic.";
    Conversion "cvt" "Conversions between types.";
    Special "special" "Special functions: ex2, lg2, rcp, rsqrt, sin, cos, tanh.";
    Move "mov" "Moves between registers, addresses of variables.";
    LoadGlobal "ld.global" "Loads of global and constant memory.";
    StoreGlobal "st.global" "Stores to global memory.";
    LoadShared "ld.shared" "Loads of shared memory.";
    StoreShared "st.shared" "Stores to shared memory.";
    Local "local" "Local memory, parameters and stack.";
    Atomic "atomic" "Atomic updates.";
    CopyAsync "cp.async" "Asynchronous copies, their commits and waits.";
    Matrix "mma" "Matrix products.";
    LoadMatrix "ldmatrix" "ldmatrix, stmatrix, movmatrix.";
    Exchange "shuffle" "Shuffles, votes and other exchanges within a warp.";
    Branch "branch" "Branches, calls and returns.";
    Barrier "barrier" "Barriers and fences.";
    Other "other" "Everything else.";
}

/// Requests of warps to global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalTraffic {
    pub requests: u64,
    pub sectors: u64,
    /// What the lanes asked for.
    pub bytes: u64,
}

impl GlobalTraffic {
    /// Counts a request: `bytes` bytes at the address of each lane of the mask.
    #[inline]
    pub fn count(&mut self, mask: u32, addresses: &[u64; 32], bytes: usize) {
        self.requests += 1;
        self.sectors += u64::from(sectors(mask, addresses, bytes));
        self.bytes += u64::from(mask.count_ones()) * bytes as u64;
    }

    fn add(&mut self, other: &GlobalTraffic) {
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.bytes += other.bytes;
    }
}

/// Requests of warps to shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedTraffic {
    pub requests: u64,
    pub wavefronts: u64,
    /// Wavefronts beyond those that the width of the access needs.
    pub conflicts: u64,
}

impl SharedTraffic {
    /// Counts a request: `bytes` bytes at the address of each lane of the mask. (Of a matrix instruction: 16 bytes for each
    /// row.)
    #[inline]
    pub fn count(&mut self, mask: u32, addresses: &[u32; 32], bytes: usize) {
        let (wavefronts, needed) = wavefronts(mask, addresses, bytes);
        self.requests += 1;
        self.wavefronts += u64::from(wavefronts);
        self.conflicts += u64::from(wavefronts - needed);
    }

    fn add(&mut self, other: &SharedTraffic) {
        self.requests += other.requests;
        self.wavefronts += other.wavefronts;
        self.conflicts += other.conflicts;
    }
}

/// What a kernel did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub launches: u64,
    pub blocks: u64,
    /// Warp instructions by [`Class`].
    instructions: [u64; CLASSES.len()],
    /// The active lanes of all of them.
    lanes: u64,
    pub mma_flops: u64,
    pub global_loads: GlobalTraffic,
    pub global_stores: GlobalTraffic,
    pub shared_loads: SharedTraffic,
    pub shared_stores: SharedTraffic,
}

impl Counts {
    /// Counts a warp instruction and its active lanes.
    #[inline(always)]
    pub fn instruction(&mut self, class: Class, mask: u32) {
        self.instructions[class as usize] += 1;
        self.lanes += u64::from(mask.count_ones());
    }

    /// Warp instructions of a class.
    pub fn instructions(&self, class: Class) -> u64 {
        self.instructions[class as usize]
    }

    /// Warp instructions of all classes.
    pub fn all_instructions(&self) -> u64 {
        self.instructions.iter().sum()
    }

    /// Adds what another worker counted.
    pub fn add(&mut self, other: &Counts) {
        self.launches += other.launches;
        self.blocks += other.blocks;
        for (mine, theirs) in self.instructions.iter_mut().zip(&other.instructions) {
            *mine += theirs;
        }
        self.lanes += other.lanes;
        self.mma_flops += other.mma_flops;
        self.global_loads.add(&other.global_loads);
        self.global_stores.add(&other.global_stores);
        self.shared_loads.add(&other.shared_loads);
        self.shared_stores.add(&other.shared_stores);
    }

    /// The cells of a line: as many as [`names`].
    fn cells(&self) -> Vec<String> {
        let all = self.all_instructions();
        let ratio = |a: u64, b: u64| if b == 0 { "-".into() } else { format!("{:.1}", a as f64 / b as f64) };
        let mut cells =
            vec![self.launches.to_string(), self.blocks.to_string(), all.to_string(), ratio(self.lanes, all)];
        cells.extend(self.instructions.iter().map(|count| match count {
            0 => "-".into(),
            _ => format!("{:.1}%", 100.0 * *count as f64 / all as f64),
        }));
        cells.push(self.mma_flops.to_string());
        for traffic in [&self.global_loads, &self.global_stores] {
            cells.push(traffic.bytes.to_string());
            cells.push(ratio(traffic.sectors, traffic.requests));
            // 1 where every byte that moves was asked for; broadcasts go beyond.
            cells.push(ratio(traffic.bytes, 32 * traffic.sectors));
        }
        for traffic in [&self.shared_loads, &self.shared_stores] {
            cells.push(ratio(traffic.wavefronts, traffic.requests));
            cells.push(traffic.conflicts.to_string());
        }
        cells
    }
}

/// The columns of the table behind the kernel's name.
fn names() -> Vec<&'static str> {
    let mut names = vec!["launches", "blocks", "instructions", "lanes"];
    names.extend(CLASSES);
    names.push("mma flops");
    names.extend(["load bytes", "sectors/load", "used", "store bytes", "sectors/store", "used"]);
    names.extend(["waves/ld.shared", "conflicts", "waves/st.shared", "conflicts"]);
    names
}

/// What all kernels did, by name.
#[derive(Clone, Debug, Default)]
pub struct Meter(BTreeMap<String, Counts>);

impl Meter {
    /// Adds what a launch of a kernel counted.
    pub fn add(&mut self, kernel: &str, counts: &Counts) {
        match self.0.get_mut(kernel) {
            Some(mine) => mine.add(counts),
            None => drop(self.0.insert(kernel.into(), counts.clone())),
        }
    }

    /// What a kernel did so far.
    pub fn get(&self, kernel: &str) -> Option<&Counts> {
        self.0.get(kernel)
    }

    /// One aligned line per kernel, sorted by name, with a line of names first; `None` where nothing ran. Instruction classes
    /// are shares of all warp instructions; columns in which no line has a number are left out.
    pub fn table(&self) -> Option<String> {
        let head = names().into_iter().map(String::from);
        let mut lines = vec![std::iter::once("kernel".to_string()).chain(head).collect::<Vec<_>>()];
        lines.extend(self.0.iter().map(|(name, counts)| {
            let name = std::iter::once(name.clone());
            name.chain(counts.cells()).collect()
        }));
        let (head, body) = lines.split_first()?;
        if body.is_empty() {
            return None;
        }
        let says_something = |column: usize| body.iter().any(|line| !matches!(line[column].as_str(), "-" | "0"));
        let columns: Vec<usize> = (0..head.len()).filter(|&column| says_something(column)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = columns.iter().map(|&column| width(column)).collect();
        let mut text = String::new();
        for line in &lines {
            for (&column, &width) in columns.iter().zip(&widths) {
                let cell = &line[column];
                // The name on the left, numbers on the right.
                text += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            }
            text.push('\n');
        }
        Some(text)
    }
}

/// How many sectors of 32 bytes a request touches: `bytes` (at most 32, aligned) at the address of each lane of the mask.
pub fn sectors(mask: u32, addresses: &[u64; 32], bytes: usize) -> u32 {
    if mask == 0 {
        return 0;
    }
    let contiguous =
        addresses.iter().zip(0..).map(|(address, lane)| address ^ addresses[0].wrapping_add(lane * bytes as u64));
    if mask == u32::MAX && contiguous.fold(0, |all, difference| all | difference) == 0 {
        return ((addresses[31] + bytes as u64 - 1) / 32 - addresses[0] / 32 + 1) as u32;
    }
    // Mostly the addresses ascend with the lanes, and a sector is new where it differs from the last one.
    let mut last = addresses[mask.trailing_zeros() as usize] / 32;
    let (mut count, mut ascending) = (1, true);
    for (lane, address) in addresses.iter().enumerate() {
        let sector = if mask >> lane & 1 == 1 { address / 32 } else { last };
        ascending &= sector >= last;
        count += u32::from(sector != last);
        last = sector;
    }
    if ascending {
        return count;
    }
    let (mut found, mut count) = ([0; 32], 0);
    for (lane, address) in addresses.iter().enumerate() {
        if mask >> lane & 1 == 1 && !found[..count].contains(&(address / 32)) {
            found[count] = address / 32;
            count += 1;
        }
    }
    count as u32
}

/// The wavefronts of a request of aligned accesses to shared memory, and how many of them its width needs at least: one, or
/// one for each half or quarter of a warp that takes part with 8 or 16 bytes.
pub fn wavefronts(mask: u32, addresses: &[u32; 32], bytes: usize) -> (u32, u32) {
    // An access occupies one slot of as many banks as it has words.
    let unit = bytes.max(4).trailing_zeros();
    let lanes = 128 >> unit;
    let (mut total, mut needed) = (0, 0);
    for (part, addresses) in addresses.chunks(lanes).enumerate() {
        let mask = mask >> (part * lanes) & (u32::MAX >> (32 - lanes));
        if mask != 0 {
            total += rounds(mask, addresses, unit);
            needed += 1;
        }
    }
    (total, needed)
}

/// The most accesses of `1 << unit` bytes that want different words of one slot.
fn rounds(mask: u32, addresses: &[u32], unit: u32) -> u32 {
    // Mostly lanes are contiguous, and every one has a slot of its own.
    let contiguous = addresses.iter().zip(0..).map(|(address, lane)| address ^ addresses[0].wrapping_add(lane << unit));
    if contiguous.fold(0, |all, difference| all | difference) == 0 {
        return 1;
    }
    let slots = 128u32 >> unit;
    // Or neighbours want the same, and nobody else's slot.
    let (mut taken, mut last, mut apart) = (0u32, u32::MAX, 0);
    for (lane, address) in addresses.iter().enumerate() {
        let word = address >> unit;
        let is_new = mask >> lane & 1 != 0 && word != last;
        last = if is_new { word } else { last };
        taken |= u32::from(is_new) << (word & (slots - 1));
        apart += u32::from(is_new);
    }
    if taken.count_ones() == apart {
        return 1;
    }
    let (mut left, mut rounds, mut words) = (mask, 0, [0; 32]);
    // Each round serves one word of every slot, and all who want it.
    while left != 0 {
        rounds += 1;
        let mut taken = 0u32;
        for (lane, address) in addresses.iter().enumerate() {
            let (word, slot) = (address >> unit, (address >> unit & (slots - 1)) as usize);
            let (wants, free) = (left >> lane & 1 == 1, taken >> slot & 1 == 0);
            if wants && (free || words[slot] == word) {
                words[slot] = word;
                taken |= 1 << slot;
                left &= !(1 << lane);
            }
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(bytes: usize, address: impl Fn(u32) -> u32) -> (u32, u32) {
        wavefronts(!0, &std::array::from_fn(|lane| address(lane as u32)), bytes)
    }

    #[test]
    fn bank_conflicts_of_the_textbook() {
        assert_eq!(shared(4, |lane| 4 * lane), (1, 1));
        assert_eq!(shared(4, |lane| 4 * (lane ^ 5)), (1, 1));
        assert_eq!(shared(4, |_| 64), (1, 1), "one word for all");
        assert_eq!(shared(4, |lane| 8 * lane), (2, 1), "stride 2");
        assert_eq!(shared(4, |lane| 4 * 32 * lane), (32, 1), "a column of 32");
        assert_eq!(shared(4, |lane| 4 * 33 * lane), (1, 1), "a column of 33");
        assert_eq!(shared(2, |lane| 2 * lane), (1, 1), "halves share words");
        assert_eq!(shared(1, |lane| 4 * lane), (1, 1));
        assert_eq!(shared(8, |lane| 8 * lane), (2, 2));
        assert_eq!(shared(16, |lane| 16 * lane), (4, 4), "float4");
        assert_eq!(shared(16, |lane| 128 * lane), (32, 4), "rows of 128 bytes");
        // Eight rows of 128 bytes whose chunks of 16 are swizzled by the row, as ldmatrix reads them.
        assert_eq!(shared(16, |lane| 128 * (lane % 8) + 16 * ((lane / 8) ^ (lane % 8))), (4, 4));
        assert_eq!(shared(16, |lane| 144 * lane), (4, 4), "rows padded by 16 bytes");
        let rows = std::array::from_fn(|lane| 128 * lane as u32);
        assert_eq!(wavefronts(0xff, &rows, 16), (8, 1), "one matrix");
        assert_eq!(wavefronts(0x1, &rows, 4), (1, 1));
    }

    #[test]
    fn sectors_of_the_textbook() {
        let count = |address: &dyn Fn(u64) -> u64| sectors(!0, &std::array::from_fn(|lane| address(lane as u64)), 4);
        assert_eq!(count(&|lane| 4 * lane), 4);
        assert_eq!(count(&|lane| 4 * lane + 16), 5);
        assert_eq!(count(&|lane| 4 * (31 - lane)), 4);
        assert_eq!(count(&|_| 4096), 1);
        assert_eq!(count(&|lane| 4096 * lane), 32);
        assert_eq!(sectors(!0, &std::array::from_fn(|lane| 16 * lane as u64), 16), 16);
        assert_eq!(count(&|lane| 2 * lane), 2);
        assert_eq!(count(&|lane| 4096 * (lane % 2) + 4 * lane), 8);
        assert_eq!(sectors(0b101, &[0; 32], 4), 1);
    }

    #[test]
    fn a_table_has_a_line_for_each_kernel() {
        let mut meter = Meter::default();
        assert_eq!(meter.table(), None);
        let mut counts = Counts { launches: 1, blocks: 2, ..Counts::default() };
        counts.instruction(Class::Float, !0);
        counts.instruction(Class::LoadGlobal, 0xffff);
        counts.global_loads.count(0xffff, &std::array::from_fn(|lane| 4 * lane as u64), 4);
        meter.add("softmax", &counts);
        meter.add("softmax", &counts);
        meter.add("add", &counts);
        let table = meter.table().unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..6], ["kernel", "launches", "blocks", "instructions", "lanes", "float"]);
        assert_eq!(lines[1], ["add", "1", "2", "2", "24.0", "50.0%", "50.0%", "64", "2.0", "1.0"]);
        assert_eq!(lines[2][..4], ["softmax", "2", "4", "4"]);
        assert!(table.lines().all(|line| line.len() == table.lines().next().unwrap().len()), "{table}");
        assert_eq!(meter.get("softmax").unwrap().instructions(Class::Float), 2);
    }

    #[test]
    #[ignore = "prints times"]
    fn speed() {
        let mut total = 0;
        let mut time = |name: &str, run: &dyn Fn(u32) -> u32| {
            let start = std::time::Instant::now();
            (0..100_000).for_each(|i| total += run(i));
            println!("{name}: {} ns", start.elapsed().as_nanos() / 100_000);
        };
        for stride in [4, 16, 144] {
            let shared = |i: u32| std::array::from_fn(|lane| i * 16 + stride * lane as u32);
            let global = |i: u32| std::array::from_fn(|lane| u64::from(i * 4 + stride * lane as u32));
            time(&format!("sectors at stride {stride}"), &|i| sectors(!0, &global(i), 4));
            time(&format!("wavefronts at stride {stride}"), &|i| wavefronts(!0, &shared(i), 4).0);
            time(&format!("wavefronts of float4 at stride {stride}"), &|i| wavefronts(!0, &shared(i), 16).0);
        }
        println!("{total}");
    }
}
