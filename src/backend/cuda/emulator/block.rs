//! A block of threads: its warps, which run one after the other until they wait or end, and its barriers.
//!
//! A warp whose lanes went different ways keeps a stack of paths: the top one runs until it comes to where it meets the others,
//! as computed by `flow`. Lanes of a path run in lock step.

use super::exec::Trap;
use super::fault::Fault;
use super::ir::Special;
use super::memory::View;
use super::meter::Counts;
use super::program::{Action, Barrier, BarrierKind, NOWHERE, Program};
use super::registers::*;
use super::shared::{Shared, Who};
use crate::backend::cuda::driver::Config;
use std::collections::VecDeque;
use std::time::Instant;

/// Instructions that a warp runs before another one gets its turn.
const QUANTUM: u32 = 50_000;
/// Instructions after which a launch is taken for one that never ends.
const BUDGET: u64 = 1 << 36;
/// Barriers of a block.
const BARRIERS: usize = 16;

/// Lanes on their way through the code.
#[derive(Clone, Copy)]
struct Path {
    pc: u32,
    /// Where they wait for the others.
    join: u32,
    mask: u32,
}

/// A `cp.async` of a warp that was issued and not waited for.
pub struct Copy {
    pub mask: u32,
    pub addresses: Lanes<u32>,
    pub bytes: usize,
    pub data: [Lanes<u32>; 4],
    /// The group of each lane that it belongs to.
    pub groups: Lanes<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    /// At a barrier, with the line of the instruction.
    Waiting(usize, u32),
    Done,
}

#[derive(Default)]
pub struct Warp {
    pub index: usize,
    pub registers: Registers,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
    pub local_bytes: usize,
    /// Lanes that have not exited.
    pub live: u32,
    pub copies: VecDeque<Copy>,
    /// For each lane, the groups of copies that it has committed.
    pub groups: Lanes<u32>,
    stack: Vec<Path>,
    /// For each call, where its paths begin in the stack.
    frames: Vec<usize>,
    state: Option<State>,
    /// Where the result of a reduction goes when the barrier completes.
    result: Option<BarrierKind>,
}

/// A block and what its instructions work on.
pub struct Block<'a> {
    pub program: &'a Program,
    pub config: &'a Config,
    pub params: &'a [u8],
    pub view: View,
    /// The region of global memory that was hit last.
    pub hint: usize,
    pub shared: Shared,
    pub index: [u32; 3],
    /// Warp instructions executed so far by this worker.
    pub steps: u64,
    /// The line of the instruction that runs.
    pub line: u32,
    pub counts: Counts,
    started: Instant,
    barriers: [Meeting; BARRIERS],
}

/// The warps at a barrier.
#[derive(Clone, Copy, Default)]
struct Meeting {
    arrived: u32,
    waiting: u32,
    /// Warps that take part, where the instruction says it.
    expected: Option<u32>,
    /// Threads whose predicate holds, and threads.
    holds: u32,
    threads: u32,
}

/// A failure of a launch.
pub struct Failure {
    pub line: u32,
    pub block: [u32; 3],
    pub thread: Option<[u32; 3]>,
    pub fault: Fault,
}

/// Why a warp stopped.
enum Stop<'p> {
    Turn,
    Done,
    At(&'p Barrier, u32),
}

impl Warp {
    /// Copies within the local memory of each lane.
    pub fn copy_local(&mut self, mask: u32, from: usize, to: usize, bytes: usize) {
        for lane in lanes(mask) {
            let base = lane * self.local_bytes;
            self.local.copy_within(base + from..base + from + bytes, base + to);
        }
    }

    /// The members of a `.sync` instruction, if every one of them is here.
    pub fn members(&self, members: Slot<u32>, mask: u32) -> Result<u32, Box<Trap>> {
        let first = mask.trailing_zeros() as usize;
        let values = self.registers.get(members);
        let all = values[first];
        if all & self.live == mask && values.iter().fold(0, |differs, value| differs | value ^ all) == 0 {
            return Ok(all);
        }
        for lane in lanes(mask) {
            if all >> lane & 1 == 0 {
                return Err(Trap::at(
                    lane,
                    Fault::Other(format!("the thread is not in its own member mask {all:#010x}")),
                ));
            }
            if values[lane] != all {
                return Err(Trap::at(lane, Fault::Other("threads name different member masks".into())));
            }
        }
        let missing = all & self.live & !mask;
        if missing != 0 {
            let why = format!("lanes {missing:#010x} of the member mask {all:#010x} are not at this instruction");
            return Err(Trap::at(first, Fault::Other(why)));
        }
        Ok(all)
    }

    /// An error unless all lanes are here.
    pub fn converged(&self, mask: u32) -> Result<(), Box<Trap>> {
        if mask == FULL {
            return Ok(());
        }
        Err(Trap::new(format!("only lanes {mask:#010x} of the warp are at an instruction that needs all of them")))
    }

    fn start(&mut self, block: &Block, threads: u32) {
        let first = 32 * self.index as u32;
        self.live = if threads - first >= 32 { FULL } else { (1 << (threads - first)) - 1 };
        self.copies.clear();
        self.groups = [0; LANES];
        self.frames.clear();
        self.stack.clear();
        self.stack.push(Path { pc: 0, join: NOWHERE, mask: self.live });
        self.state = Some(State::Ready);
        for &(slot, special) in &block.program.pool.specials {
            self.registers.words[slot as usize] =
                std::array::from_fn(|lane| block.special(special, first, lane as u32));
        }
    }

    /// Runs until the warp waits, ends, or has had its turn.
    fn run<'p>(&mut self, program: &'p Program, block: &mut Block) -> Result<Stop<'p>, Box<Trap>> {
        let Some(mut top) = self.stack.pop() else { return Ok(Stop::Done) };
        for _ in 0..QUANTUM {
            while top.mask == 0 || top.pc == top.join {
                if self.frames.last() == Some(&self.stack.len()) {
                    self.frames.pop();
                }
                match self.stack.pop() {
                    Some(path) => top = path,
                    None => return Ok(Stop::Done),
                }
            }
            let step = &program.code[top.pc as usize];
            block.line = step.line;
            block.steps += 1;
            let mask = match step.guard {
                Some(guard) => top.mask & self.registers.mask(guard),
                None => top.mask,
            };
            top.pc += 1;
            block.counts.instruction(step.class, mask);
            match &step.action {
                Action::Run(run) => {
                    if mask != 0 {
                        run(self, block, mask)?;
                    }
                }
                Action::Branch { target, join } => self.branch(&mut top, mask, *target, *join),
                Action::Table { index, targets, join } => self.table(&mut top, mask, *index, targets, *join)?,
                Action::Call(target) => {
                    if mask != 0 {
                        self.stack.push(top);
                        self.frames.push(self.stack.len());
                        top = Path { pc: *target, join: NOWHERE, mask };
                    }
                }
                Action::Return => {
                    let base = self.frames.last().copied().unwrap_or(0);
                    top.mask &= !mask;
                    self.stack[base..].iter_mut().for_each(|path| path.mask &= !mask);
                    if self.frames.is_empty() {
                        self.live &= !mask;
                    }
                }
                Action::Exit => {
                    top.mask &= !mask;
                    self.stack.iter_mut().for_each(|path| path.mask &= !mask);
                    self.live &= !mask;
                }
                Action::Barrier(barrier) => {
                    if mask != 0 {
                        if mask != self.live {
                            return Err(Trap::at(
                                mask.trailing_zeros() as usize,
                                Fault::Other(format!(
                                    "divergent barrier: lanes {:#010x} of the warp are not at it",
                                    self.live & !mask
                                )),
                            ));
                        }
                        self.stack.push(top);
                        return Ok(Stop::At(barrier, mask));
                    }
                }
            }
        }
        self.stack.push(top);
        Ok(Stop::Turn)
    }

    /// Sends the lanes of `mask` to `target`; the others stay on their path.
    fn branch(&mut self, top: &mut Path, mask: u32, target: u32, join: u32) {
        let others = top.mask & !mask;
        if others == 0 {
            top.pc = target;
        } else if mask != 0 {
            self.diverge(top, join);
            let taken = Path { pc: target, join, mask };
            let next = Path { pc: top.pc, join, mask: others };
            // Who is where the lanes meet waits there.
            if target == join {
                *top = next;
            } else if next.pc == join {
                *top = taken;
            } else {
                self.stack.push(taken);
                *top = next;
            }
        }
    }

    /// Leaves a path that goes on where its lanes meet, if it has another place to meet than they have.
    fn diverge(&mut self, top: &Path, join: u32) {
        if top.join != join {
            self.stack.push(Path { pc: join, ..*top });
        }
    }

    fn table(
        &mut self,
        top: &mut Path,
        mask: u32,
        index: Slot<u32>,
        targets: &[u32],
        join: u32,
    ) -> Result<(), Box<Trap>> {
        if mask == 0 {
            return Ok(());
        }
        let index = *self.registers.get(index);
        self.diverge(top, join);
        let mut rest = mask;
        let others = top.mask & !mask;
        if others != 0 {
            self.stack.push(Path { pc: top.pc, join, mask: others });
        }
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            let Some(&target) = targets.get(index[lane] as usize) else {
                return Err(Trap::at(
                    lane,
                    Fault::Other(format!("the index {} is beyond the list of targets", index[lane])),
                ));
            };
            let same = lanes(rest).filter(|&l| targets.get(index[l] as usize) == Some(&target));
            let same = same.fold(0, |mask, lane| mask | 1 << lane);
            rest &= !same;
            self.stack.push(Path { pc: target, join, mask: same });
        }
        // The top one runs next.
        *top = self.stack.pop().unwrap_or(*top);
        Ok(())
    }
}

impl<'a> Block<'a> {
    pub fn new(program: &'a Program, config: &'a Config, params: &'a [u8], view: View) -> Block<'a> {
        Block {
            program,
            config,
            params,
            view,
            hint: 0,
            shared: Shared::new(),
            index: [0; 3],
            steps: 0,
            line: 0,
            counts: Counts::default(),
            started: Instant::now(),
            barriers: Default::default(),
        }
    }

    /// Who runs.
    pub fn who(&self, warp: &Warp) -> Who {
        Who { warp: warp.index, line: self.line }
    }

    pub fn nanoseconds(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn thread(&self, linear: u32) -> [u32; 3] {
        let [x, y, _] = self.config.block;
        [linear % x, linear / x % y, linear / x / y]
    }

    fn special(&self, special: Special, first: u32, lane: u32) -> u32 {
        use Special::*;
        let smem_bytes = self.program.dynamic_smem_start as u32 + self.config.smem_bytes;
        match special {
            Tid(axis) => self.thread(first + lane)[axis as usize],
            Ntid(axis) => self.config.block[axis as usize],
            Ctaid(axis) => self.index[axis as usize],
            Nctaid(axis) => self.config.grid[axis as usize],
            LaneId => lane,
            WarpId => first / 32,
            NWarpId => self.config.block.iter().product::<u32>().div_ceil(32),
            SmId | GridId => 0,
            NSmId => 1,
            LanemaskEq => 1 << lane,
            LanemaskLt => (1 << lane) - 1,
            LanemaskLe => (1 << lane) | ((1 << lane) - 1),
            LanemaskGt => !((1 << lane) | ((1 << lane) - 1)),
            LanemaskGe => !((1 << lane) - 1),
            DynamicSmemSize => self.config.smem_bytes,
            TotalSmemSize => smem_bytes,
            // They are read when they are asked for.
            Clock | ClockHi | Clock64 | GlobalTimer => 0,
        }
    }

    /// Runs one block of the grid.
    pub fn run(&mut self, warps: &mut [Warp], index: [u32; 3]) -> Result<(), Box<Failure>> {
        self.index = index;
        self.counts.blocks += 1;
        let threads = self.config.block.iter().product();
        self.shared.reset(self.program.dynamic_smem_start + self.config.smem_bytes as usize, warps.len());
        self.barriers = Default::default();
        for warp in warps.iter_mut() {
            warp.start(self, threads);
        }
        let program = self.program;
        loop {
            let (mut progress, mut running) = (false, false);
            for at in 0..warps.len() {
                if warps[at].state != Some(State::Ready) {
                    running |= warps[at].state != Some(State::Done);
                    continue;
                }
                (progress, running) = (true, true);
                let warp = &mut warps[at];
                let stop = warp.run(program, self).and_then(|stop| match stop {
                    Stop::At(barrier, mask) => self.arrive(warp, barrier, mask),
                    Stop::Done => {
                        warp.state = Some(State::Done);
                        Ok(None)
                    }
                    Stop::Turn => Ok(None),
                });
                match stop {
                    Ok(Some(id)) => self.complete(warps, id),
                    Ok(None) if warps[at].state == Some(State::Done) => {
                        (0..BARRIERS).for_each(|id| self.complete(warps, id));
                    }
                    Ok(None) => (),
                    Err(trap) => return Err(self.failure(at, *trap)),
                }
                if self.steps > BUDGET {
                    return Err(
                        self.failure(at, *Trap::new(format!("the launch runs for more than {BUDGET} instructions")))
                    );
                }
            }
            if !running {
                return Ok(());
            }
            if !progress {
                return Err(self.deadlock(warps));
            }
        }
    }

    #[cold]
    fn failure(&self, warp: usize, trap: Trap) -> Box<Failure> {
        let thread = trap.lane.map(|lane| self.thread((32 * warp + lane) as u32));
        let thread = thread.or(Some(self.thread(32 * warp as u32)));
        Box::new(Failure { line: self.line, block: self.index, thread, fault: trap.fault })
    }

    #[cold]
    fn deadlock(&self, warps: &[Warp]) -> Box<Failure> {
        let mut first = 0;
        let waits = warps.iter().filter_map(|warp| match warp.state {
            Some(State::Waiting(id, line)) => {
                first = if first == 0 { line } else { first };
                Some(format!("warp {} at barrier {id} in line {line}", warp.index))
            }
            _ => None,
        });
        let why = format!("deadlock: every warp waits: {}", waits.collect::<Vec<_>>().join(", "));
        Box::new(Failure { line: first, block: self.index, thread: None, fault: Fault::Other(why) })
    }

    /// A warp comes to a barrier. The result is the barrier's number.
    fn arrive(&mut self, warp: &mut Warp, barrier: &Barrier, mask: u32) -> Result<Option<usize>, Box<Trap>> {
        let lane = mask.trailing_zeros() as usize;
        let fault = |why: String| Trap::at(lane, Fault::Other(why));
        let uniform = |slot: Slot<u32>| {
            let values = warp.registers.get(slot);
            match lanes(mask).all(|l| values[l] == values[lane]) {
                true => Ok(values[lane]),
                false => Err(fault("the threads of the warp name different barriers".into())),
            }
        };
        let id = uniform(barrier.id)? as usize;
        if id >= BARRIERS {
            return Err(fault(format!("barrier {id} is beyond the {BARRIERS} of a block")));
        }
        let expected = match barrier.threads {
            None => None,
            Some(threads) => match uniform(threads)? {
                threads if threads == 0 || threads % 32 != 0 => {
                    return Err(fault(format!("a barrier of {threads} threads, which is no multiple of a warp")));
                }
                threads => Some(threads / 32),
            },
        };
        let meeting = &mut self.barriers[id];
        if meeting.arrived != 0 && meeting.expected != expected {
            return Err(fault(format!("barrier {id} is used with different numbers of threads")));
        }
        if meeting.arrived >> warp.index & 1 != 0 {
            return Err(fault(format!("the warp comes to barrier {id} a second time before the others did")));
        }
        meeting.expected = expected;
        meeting.arrived |= 1 << warp.index;
        meeting.threads += mask.count_ones();
        if let BarrierKind::Count(predicate, _) | BarrierKind::All(predicate, _) | BarrierKind::Any(predicate, _) =
            barrier.kind
        {
            meeting.holds += (warp.registers.mask(predicate) & mask).count_ones();
        }
        if !matches!(barrier.kind, BarrierKind::Arrive) {
            meeting.waiting |= 1 << warp.index;
            warp.state = Some(State::Waiting(id, self.line));
            warp.result = Some(barrier.kind);
        }
        Ok(Some(id))
    }

    /// Lets the warps at a barrier go on if all have come.
    fn complete(&mut self, warps: &mut [Warp], id: usize) {
        let meeting = self.barriers[id];
        let running = || warps.iter().filter(|w| w.state != Some(State::Done)).count() as u32;
        let arrived = meeting.arrived.count_ones();
        if arrived == 0 || arrived < meeting.expected.unwrap_or_else(running) {
            return;
        }
        self.barriers[id] = Meeting::default();
        self.shared.barrier(meeting.arrived);
        for at in lanes(meeting.waiting) {
            let warp = &mut warps[at];
            warp.state = Some(State::Ready);
            let all = |holds: bool| if holds { FULL } else { 0 };
            match warp.result.take() {
                Some(BarrierKind::Count(_, d)) => warp.registers.set(d, &[meeting.holds; LANES], warp.live),
                Some(BarrierKind::All(_, d)) => {
                    warp.registers.set_mask(d, all(meeting.holds == meeting.threads), warp.live);
                }
                Some(BarrierKind::Any(_, d)) => warp.registers.set_mask(d, all(meeting.holds > 0), warp.live),
                _ => (),
            }
        }
    }
}

/// The warps of a block of a program, to be used for one block after the other.
pub fn warps(program: &Program, config: &Config) -> Vec<Warp> {
    let threads: u32 = config.block.iter().product();
    let pool = &program.pool;
    let new = |index| {
        let mut registers = Registers {
            words: vec![[0; LANES]; pool.words as usize],
            longs: vec![[0; LANES]; pool.longs as usize],
            predicates: vec![0; pool.predicates as usize],
            carry: 0,
        };
        pool.constants.iter().for_each(|&(slot, value)| registers.words[slot as usize] = [value; LANES]);
        pool.long_constants.iter().for_each(|&(slot, value)| registers.longs[slot as usize] = [value; LANES]);
        let local = vec![0; LANES * program.local_bytes];
        Warp { index, registers, local, local_bytes: program.local_bytes, ..Warp::default() }
    };
    (0..threads.div_ceil(32) as usize).map(new).collect()
}
