//! The control flow of a function, and where the lanes of a warp that a branch has separated meet again: at the branch's
//! immediate post-dominator.
//!
//! Post-dominators by the iterative algorithm of Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", on the
//! graph turned around, with one virtual end that `ret`, `exit` and `trap` go to.

use super::ir::{Function, Instruction, Operand};
use std::ops::Range;

/// The basic blocks of a function.
pub struct Graph {
    /// The first instruction of each block.
    starts: Vec<usize>,
    instructions: usize,
    /// Where control goes from each block. The last node is the virtual end; falling off the code goes there too.
    pub successors: Vec<Vec<usize>>,
}

/// Where an instruction sends control, if not just to the next one.
fn targets(function: &Function, instruction: &Instruction) -> Option<Vec<usize>> {
    match (instruction.name(), &instruction.operands[..]) {
        ("bra", [Operand::Label(target)]) => Some(vec![*target]),
        ("brx", [_, Operand::Table(table)]) => Some(function.tables[*table].clone()),
        ("ret" | "exit" | "trap", _) => Some(Vec::new()),
        _ => None,
    }
}

impl Graph {
    pub fn new(function: &Function) -> Graph {
        let code = &function.code;
        let flow: Vec<_> = code.iter().map(|i| targets(function, i)).collect();
        let mut is_leader = vec![false; code.len() + 1];
        is_leader[0] = true;
        for (at, targets) in flow.iter().enumerate() {
            if let Some(targets) = targets {
                is_leader[at + 1] = true;
                targets.iter().for_each(|&t| is_leader[t] = true);
            }
        }
        let starts: Vec<usize> = (0..code.len()).filter(|&at| is_leader[at]).collect();
        let mut graph = Graph { successors: vec![Vec::new(); starts.len() + 1], starts, instructions: code.len() };
        for block in 0..graph.blocks() {
            let next = graph.range(block).end;
            let last = &code[next - 1];
            graph.successors[block] = match &flow[next - 1] {
                None => vec![graph.block_of(next)],
                Some(targets) => {
                    let mut to: Vec<usize> = targets.iter().map(|&t| graph.block_of(t)).collect();
                    if targets.is_empty() {
                        to.push(graph.blocks());
                    }
                    if last.guard.is_some() {
                        to.push(graph.block_of(next));
                    }
                    to
                }
            };
        }
        graph
    }

    pub fn blocks(&self) -> usize {
        self.starts.len()
    }

    /// The instructions of a block.
    pub fn range(&self, block: usize) -> Range<usize> {
        self.starts[block]..self.starts.get(block + 1).copied().unwrap_or(self.instructions)
    }

    /// The block of an instruction; the virtual end for what is behind the last one.
    fn block_of(&self, instruction: usize) -> usize {
        if instruction == self.instructions {
            return self.blocks();
        }
        self.starts.partition_point(|&start| start <= instruction) - 1
    }

    /// For each block, the instruction where the paths from its end meet; `None` where they meet at the end only.
    pub fn joins(&self) -> Vec<Option<usize>> {
        let parents = post_dominators(&self.successors, self.blocks());
        parents[..self.blocks()].iter().map(|parent| self.starts.get((*parent)?).copied()).collect()
    }
}

/// The immediate post-dominator of each node that can reach `end`.
fn post_dominators(successors: &[Vec<usize>], end: usize) -> Vec<Option<usize>> {
    let mut predecessors = vec![Vec::new(); successors.len()];
    for (node, to) in successors.iter().enumerate() {
        to.iter().for_each(|&t| predecessors[t].push(node));
    }
    // Post-order of a walk from the end along the edges turned around.
    let (mut order, mut rank) = (Vec::new(), vec![usize::MAX; successors.len()]);
    let (mut seen, mut stack) = (vec![false; successors.len()], vec![(end, 0)]);
    seen[end] = true;
    while let Some((node, next)) = stack.last_mut() {
        if let Some(&before) = predecessors[*node].get(*next) {
            *next += 1;
            if !std::mem::replace(&mut seen[before], true) {
                stack.push((before, 0));
            }
        } else {
            rank[*node] = order.len();
            order.push(*node);
            stack.pop();
        }
    }
    let mut parents = vec![None; successors.len()];
    parents[end] = Some(end);
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().filter(|&&n| n != end) {
            let known = successors[node].iter().copied().filter(|&s| parents[s].is_some());
            let parent = known.reduce(|a, b| common(&parents, &rank, a, b));
            if parents[node] != parent {
                parents[node] = parent;
                changed = true;
            }
        }
    }
    parents
}

/// The nearest node that post-dominates both.
fn common(parents: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        let lower = if rank[a] < rank[b] { &mut a } else { &mut b };
        match parents[*lower] {
            Some(parent) => *lower = parent,
            None => return *lower,
        }
    }
    a
}
