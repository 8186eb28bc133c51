//! Places for the registers of a function.
//!
//! PTX has a register for every value. So that those of a warp fit into the CPU's caches, registers that never hold something
//! at the same time share a place: a linear scan (Poletto and Sarkar, 1999) over the stretches of code in which each one
//! lives. Lanes that went different ways do not disturb each other, as each has its own part of every place.

use super::exec::Pool;
use super::flow::Graph;
use super::ir::{Function, Register};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What an instruction does with a register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    Read(Register),
    Write(Register),
}

/// A place for each register; `touches` are those of each instruction, reads before writes.
pub fn allocate(function: &Function, graph: &Graph, touches: &[Vec<Touch>], pool: &mut Pool) -> Vec<u32> {
    let lives = lives(function.registers.len(), graph, touches);
    let mut order: Vec<usize> = (0..lives.len()).filter(|&register| lives[register].is_some()).collect();
    order.sort_by_key(|&register| lives[register]);
    let mut places = vec![0; lives.len()];
    // For each width, the ends and places of what lives, the nearest end first, and places that are free again.
    let mut living: [BinaryHeap<Reverse<(usize, u32)>>; 3] = Default::default();
    let mut free: [Vec<u32>; 3] = Default::default();
    for register in order {
        let Some((start, end)) = lives[register] else { continue };
        let width = function.registers[register];
        let (living, free) = (&mut living[width as usize], &mut free[width as usize]);
        while let Some(&Reverse((end, place))) = living.peek()
            && end < start
        {
            living.pop();
            free.push(place);
        }
        places[register] = free.pop().unwrap_or_else(|| pool.fresh(width));
        living.push(Reverse((end, places[register])));
    }
    places
}

/// A set of registers for each block.
struct Sets {
    words: usize,
    bits: Vec<u64>,
}

impl Sets {
    fn new(registers: usize, blocks: usize) -> Sets {
        let words = registers.div_ceil(64);
        Sets { words, bits: vec![0; words * blocks] }
    }

    fn get(&self, block: usize) -> &[u64] {
        &self.bits[self.words * block..self.words * (block + 1)]
    }

    fn contains(&self, block: usize, register: Register) -> bool {
        self.get(block)[register as usize / 64] >> (register % 64) & 1 != 0
    }

    fn insert(&mut self, block: usize, register: Register) {
        self.bits[self.words * block + register as usize / 64] |= 1 << (register % 64);
    }

    /// The union of some sets.
    fn union(&self, blocks: &[usize]) -> Vec<u64> {
        let mut union = vec![0; self.words];
        for &block in blocks {
            union.iter_mut().zip(self.get(block)).for_each(|(all, bits)| *all |= bits);
        }
        union
    }
}

/// The first and the last instruction between which each register that is touched is needed.
fn lives(registers: usize, graph: &Graph, touches: &[Vec<Touch>]) -> Vec<Option<(usize, usize)>> {
    // What is read in a block, or behind it, before it is written; empty for the virtual end.
    let mut needed = Sets::new(registers, graph.blocks() + 1);
    let mut written = Sets::new(registers, graph.blocks());
    for block in 0..graph.blocks() {
        for touch in touches[graph.range(block)].iter().flatten() {
            match *touch {
                Touch::Read(register) if written.contains(block, register) => (),
                Touch::Read(register) => needed.insert(block, register),
                Touch::Write(register) => written.insert(block, register),
            }
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..graph.blocks()).rev() {
            let behind = needed.union(&graph.successors[block]);
            let here = &mut needed.bits[needed.words * block..needed.words * (block + 1)];
            for ((here, behind), written) in here.iter_mut().zip(behind).zip(written.get(block)) {
                let all = *here | behind & !written;
                changed |= all != *here;
                *here = all;
            }
        }
    }
    let mut lives = vec![None; registers];
    let mut extend = |register: usize, to: usize| {
        let (start, end) = lives[register].unwrap_or((to, to));
        lives[register] = Some((to.min(start), to.max(end)));
    };
    for block in 0..graph.blocks() {
        let range = graph.range(block);
        each_bit(needed.get(block), |register| extend(register, range.start));
        each_bit(&needed.union(&graph.successors[block]), |register| extend(register, range.end - 1));
        for at in range {
            for touch in &touches[at] {
                let (Touch::Read(register) | Touch::Write(register)) = *touch;
                extend(register as usize, at);
            }
        }
    }
    lives
}

fn each_bit(words: &[u64], mut visit: impl FnMut(usize)) {
    for (at, &word) in words.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            visit(64 * at + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ir::{Instruction, Operand, Width};
    use super::*;

    #[test]
    fn what_a_loop_needs_again_keeps_its_place() {
        use Touch::{Read, Write};
        // 0: a = ..; 1: b = ..; 2: loop: c = a; 3: use c; 4: d = b; 5: @p bra loop; 6: e = d; 7: use e.
        let touches = [
            vec![Write(0)],
            vec![Write(1)],
            vec![Read(0), Write(2)],
            vec![Read(2)],
            vec![Read(1), Write(3)],
            vec![Read(5)],
            vec![Read(3), Write(4)],
            vec![Read(4)],
        ];
        let instruction = |at: u32| Instruction {
            line: at,
            guard: (at == 5).then_some((5, false)),
            opcode: vec![if at == 5 { "bra" } else { "mov" }.into()],
            operands: if at == 5 { vec![Operand::Label(2)] } else { Vec::new() },
        };
        let function = Function {
            name: "f".into(),
            is_entry: true,
            max_threads: None,
            registers: [vec![Width::Word; 5], vec![Width::Predicate]].concat(),
            variables: Vec::new(),
            results: 0,
            params: 0,
            code: (0..8).map(instruction).collect(),
            tables: Vec::new(),
        };
        let graph = Graph::new(&function);
        assert_eq!(
            lives(6, &graph, &touches)[..5],
            [Some((0, 5)), Some((1, 5)), Some((2, 3)), Some((4, 6)), Some((6, 7))]
        );
        let mut pool = Pool::default();
        let places = allocate(&function, &graph, &touches, &mut pool);
        // d has c's place; a, b and c have places of their own, and e has one that is free behind the loop.
        assert_eq!((places[3], pool.words), (places[2], 3));
        assert!(places[4] != places[3] && places[0] != places[1]);
    }
}
