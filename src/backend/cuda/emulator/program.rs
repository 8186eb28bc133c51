//! A kernel ready to run: the entry and the functions that it calls, compiled and laid out in one piece of code, one register
//! file and one local memory. (Functions do not call themselves, so that each has its registers and its local memory once.)

use super::allocate::{Touch, allocate};
use super::exec::{self, Build, Pool, Run, run};
use super::flow::Graph;
use super::ir::*;
use super::meter::Class;
use super::registers::{Mask, Slot};
use std::collections::HashMap;

/// No place in the code: where lanes meet that do not meet before they end.
pub const NOWHERE: u32 = u32::MAX;

pub struct Step {
    pub guard: Option<Mask>,
    pub action: Action,
    pub class: Class,
    pub line: u32,
}

pub enum Action {
    Run(Run),
    /// Those of the guard go to `target`; all meet at `join`.
    Branch {
        target: u32,
        join: u32,
    },
    /// Each lane goes where its index says.
    Table {
        index: Slot<u32>,
        targets: Box<[u32]>,
        join: u32,
    },
    Call(u32),
    Return,
    Exit,
    Barrier(Barrier),
}

/// `bar` and `barrier`.
pub struct Barrier {
    pub id: Slot<u32>,
    /// Threads that take part; all of the block where there is none.
    pub threads: Option<Slot<u32>>,
    pub kind: BarrierKind,
}

#[derive(Clone, Copy)]
pub enum BarrierKind {
    Sync,
    Arrive,
    /// The number of threads whose predicate holds.
    Count(Mask, Slot<u32>),
    /// Whether the predicate of all holds, to a predicate.
    All(Mask, u32),
    Any(Mask, u32),
}

pub struct Program {
    pub name: String,
    pub code: Vec<Step>,
    pub pool: Pool,
    /// Bytes of local memory of a thread.
    pub local_bytes: usize,
    pub static_smem_bytes: usize,
    /// Where dynamic shared memory begins.
    pub dynamic_smem_start: usize,
    pub params_bytes: usize,
    pub max_threads: u32,
}

/// What cannot be made a program of, and where.
pub struct LinkError {
    pub line: u32,
    pub why: String,
}

/// Links an entry of a module; `globals` are the addresses of the module's variables in global and constant memory.
pub fn link(module: &Module, entry: usize, globals: &[u64]) -> Result<Program, LinkError> {
    let order = reachable(module, entry)?;
    let functions: Vec<&Function> = order.iter().map(|&f| &module.functions[f]).collect();

    // Shared memory: what the functions name, and what they declare.
    let (mut shared, mut local) = (Area::default(), Area::default());
    let mut module_variables: Vec<(Space, u64)> =
        module.variables.iter().zip(globals).map(|(v, &address)| (v.space, address)).collect();
    let mut dynamic_align = 16;
    for (index, variable) in module.variables.iter().enumerate().filter(|(_, v)| v.space == Space::Shared) {
        let is_used = functions.iter().any(|f| f.code.iter().any(|i| i.operands.iter().any(|o| names(o, index))));
        if is_used && variable.bytes == 0 {
            dynamic_align = dynamic_align.max(variable.align);
        } else if is_used {
            module_variables[index].1 = shared.add(variable);
        }
    }
    let mut variables = Vec::new();
    let mut params = Area::default();
    for function in &functions {
        let add = |(index, variable): (usize, &Variable)| {
            let is_param = function.is_entry && index < function.params;
            let address = match variable.space {
                Space::Shared => shared.add(variable),
                Space::Param if is_param => params.add(variable),
                Space::Param | Space::Local => local.add(variable),
                // Constants of a function would need initial values of their own.
                _ => return Err(format!("`{}`: memory of a space that functions do not declare", variable.name)),
            };
            let space = if variable.space == Space::Param && !is_param { Space::Local } else { variable.space };
            Ok((space, address))
        };
        let added = function.variables.iter().enumerate().map(add).collect::<Result<Vec<_>, _>>();
        variables.push(added.map_err(|why| LinkError { line: first_line(function), why })?);
    }
    let dynamic_smem_start = align_up(shared.bytes, dynamic_align);
    for (index, variable) in module.variables.iter().enumerate() {
        if variable.space == Space::Shared && variable.bytes == 0 {
            module_variables[index].1 = dynamic_smem_start as u64;
        }
    }

    // Where each instruction begins.
    let mut count = 0;
    let starts: Vec<Vec<u32>> = functions
        .iter()
        .map(|f| {
            let starts = f.code.iter().map(|i| {
                let start = count;
                count += if i.name() == "call" { 3 } else { 1 };
                start
            });
            let mut starts: Vec<u32> = starts.collect();
            // A label may be behind the last instruction; control that gets there returns.
            starts.push(count);
            count += 1;
            starts
        })
        .collect();

    let (mut code, mut pool) = (Vec::new(), Pool::default());
    for (f, function) in functions.iter().enumerate() {
        let graph = Graph::new(function);
        let joins = graph.joins();
        let context = Context {
            functions: &functions,
            module_variables: &module_variables,
            variables: &variables,
            starts: &starts,
            f,
            graph: &graph,
            joins: &joins,
        };
        // Once to learn what the instructions do with registers, and once more when these have their places.
        let own: Vec<u32> = (0..function.registers.len() as u32).collect();
        let (_, touches) = context.compile(&own, &mut Pool::default())?;
        let places = allocate(function, &graph, &touches, &mut pool);
        code.extend(context.compile(&places, &mut pool)?.0);
        let line = function.code.last().map_or(0, |i| i.line);
        code.push(Step { guard: None, action: Action::Return, class: Class::Branch, line });
    }

    Ok(Program {
        name: functions[0].name.clone(),
        code,
        pool,
        local_bytes: align_up(local.bytes, 16),
        static_smem_bytes: shared.bytes,
        dynamic_smem_start,
        params_bytes: params.bytes,
        max_threads: functions[0].max_threads.unwrap_or(1024).min(1024),
    })
}

/// What an instruction is counted as.
fn class(instruction: &Instruction) -> Class {
    let has = |modifier: &str| instruction.opcode.iter().any(|m| m == modifier);
    let first_type = instruction.opcode.iter().find_map(|m| Type::parse(m));
    let is_any = |of: &[Type]| first_type.is_some_and(|ty| of.contains(&ty));
    match instruction.name() {
        "mov" | "cvta" => Class::Move,
        "cvt" => Class::Conversion,
        "ld" | "ldu" | "st" if has("local") || has("param") => Class::Local,
        "ld" | "ldu" if has("shared") => Class::LoadShared,
        "ld" | "ldu" => Class::LoadGlobal,
        "st" if has("shared") => Class::StoreShared,
        "st" => Class::StoreGlobal,
        "atom" | "red" => Class::Atomic,
        "cp" => Class::CopyAsync,
        "mma" => Class::Matrix,
        "ldmatrix" | "stmatrix" | "movmatrix" => Class::LoadMatrix,
        "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => Class::Exchange,
        "bra" | "brx" | "call" | "ret" | "exit" => Class::Branch,
        "bar" | "barrier" | "membar" | "fence" => Class::Barrier,
        "ex2" | "lg2" | "rcp" | "rsqrt" | "sqrt" | "sin" | "cos" | "tanh" => Class::Special,
        "trap" | "prefetch" | "prefetchu" | "createpolicy" | "nanosleep" | "griddepcontrol" => Class::Other,
        _ if is_any(&[Type::F16, Type::F16x2, Type::Bf16, Type::Bf16x2]) => Class::Half,
        _ if is_any(&[Type::F32, Type::F64]) => Class::Float,
        _ => Class::Integer,
    }
}

/// Memory in which variables are placed one after the other.
#[derive(Default)]
struct Area {
    bytes: usize,
}

impl Area {
    fn add(&mut self, variable: &Variable) -> u64 {
        let start = align_up(self.bytes, variable.align);
        self.bytes = start + variable.bytes;
        start as u64
    }
}

fn first_line(function: &Function) -> u32 {
    function.code.first().map_or(0, |i| i.line)
}

/// Whether an operand names a variable of the module.
fn names(operand: &Operand, variable: usize) -> bool {
    match operand {
        Operand::Symbol(Symbol::Module(index), _) => *index == variable,
        Operand::Address(base, _) => names(base, variable),
        Operand::Vector(parts) => parts.iter().any(|p| names(p, variable)),
        _ => false,
    }
}

/// The functions that an entry can reach, itself first.
fn reachable(module: &Module, entry: usize) -> Result<Vec<usize>, LinkError> {
    let by_name: HashMap<&str, usize> =
        module.functions.iter().enumerate().map(|(i, f)| (f.name.as_str(), i)).collect();
    // Depth first, with the path to where the walk is.
    fn visit(
        module: &Module,
        by_name: &HashMap<&str, usize>,
        function: usize,
        path: &mut Vec<usize>,
        order: &mut Vec<usize>,
    ) -> Result<(), LinkError> {
        if !order.contains(&function) {
            order.push(function);
        }
        path.push(function);
        for instruction in &module.functions[function].code {
            let Some(name) = instruction.callee() else { continue };
            let error = |why: String| LinkError { line: instruction.line, why };
            let &to = by_name.get(name).ok_or_else(|| error(format!("no function `{name}`")))?;
            if path.contains(&to) {
                return Err(error(format!("`{name}` calls itself, which the emulator does not do")));
            }
            visit(module, by_name, to, path, order)?;
        }
        path.pop();
        Ok(())
    }
    let mut order = Vec::new();
    visit(module, &by_name, entry, &mut Vec::new(), &mut order)?;
    Ok(order)
}

struct Context<'a> {
    functions: &'a [&'a Function],
    module_variables: &'a [(Space, u64)],
    variables: &'a [Vec<(Space, u64)>],
    starts: &'a [Vec<u32>],
    /// The function that is compiled.
    f: usize,
    graph: &'a Graph,
    joins: &'a [Option<usize>],
}

impl Context<'_> {
    /// The steps of the function whose registers have these places, and what each instruction does with them.
    fn compile(&self, places: &[u32], pool: &mut Pool) -> Result<(Vec<Step>, Vec<Vec<Touch>>), LinkError> {
        let function = self.functions[self.f];
        let (mut code, mut touches) = (Vec::new(), Vec::new());
        for block in 0..self.graph.blocks() {
            let join = self.joins[block].map_or(NOWHERE, |to| self.starts[self.f][to]);
            for instruction in &function.code[self.graph.range(block)] {
                let mut build = Build {
                    pool,
                    places,
                    function,
                    module_variables: self.module_variables,
                    variables: &self.variables[self.f],
                    instruction,
                    touches: Vec::new(),
                    modifiers: instruction.opcode[1..].iter().map(String::as_str).collect(),
                };
                let guard = build.guard();
                let actions = self
                    .actions(&mut build, join)
                    .map_err(|why| LinkError { line: instruction.line, why: format!("`{instruction}`: {why}") })?;
                touches.push(build.touched());
                let (class, line) = (class(instruction), instruction.line);
                code.extend(actions.into_iter().map(|action| Step { guard, action, class, line }));
            }
        }
        Ok((code, touches))
    }

    /// What an instruction does; paths that part here meet at `join`.
    fn actions(&self, b: &mut Build, join: u32) -> Result<Vec<Action>, String> {
        let starts = &self.starts[self.f];
        let action = match b.instruction.name() {
            "bra" => {
                b.ignore(&["uni"]);
                let Operand::Label(target) = *b.operand(0)? else { return Err("no such label".into()) };
                Action::Branch { target: starts[target], join }
            }
            "brx" => {
                b.ignore(&["uni", "idx"]);
                let index = b.source::<u32>(0)?;
                let Operand::Table(table) = *b.operand(1)? else { return Err("no such list of targets".into()) };
                let targets = b.function.tables[table].iter().map(|&to| starts[to]).collect();
                Action::Table { index, targets, join }
            }
            "ret" => {
                b.ignore(&["uni"]);
                if b.function.is_entry { Action::Exit } else { Action::Return }
            }
            "exit" => Action::Exit,
            "call" => return self.call(b),
            "bar" | "barrier" if !b.modifiers.contains(&"warp") => Action::Barrier(barrier(b)?),
            _ => return Ok(vec![Action::Run(exec::compile(b)?)]),
        };
        b.finish()?;
        Ok(vec![action])
    }

    /// Arguments are copied to where the function has its parameters, results back.
    fn call(&self, b: &mut Build) -> Result<Vec<Action>, String> {
        b.ignore(&["uni"]);
        b.finish()?;
        let name = b.instruction.callee().ok_or("only functions that are named are called")?;
        let to = self.functions.iter().position(|f| f.name == name).ok_or("no such function")?;
        let callee = self.functions[to];
        let (mut arguments, mut results): (&[Operand], &[Operand]) = (&[], &[]);
        let mut seen_name = false;
        for operand in &b.instruction.operands {
            match operand {
                Operand::Callee(_) => seen_name = true,
                Operand::Vector(list) if seen_name => arguments = list,
                Operand::Vector(list) => results = list,
                _ => return Err("lists of `.param` variables expected".into()),
            }
        }
        if arguments.len() != callee.params || results.len() != callee.results {
            return Err(format!("`{name}` has {} parameters and {} results", callee.params, callee.results));
        }
        let place = |operand: &Operand| match operand {
            Operand::Symbol(symbol, 0) => Ok(b.symbol(*symbol).1 as usize),
            other => Err(format!("{other:?} is no `.param` variable")),
        };
        let slots = callee.variables.iter().zip(&self.variables[to]).map(|(v, at)| (at.1 as usize, v.bytes));
        let slots: Vec<(usize, usize)> = slots.take(callee.results + callee.params).collect();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (argument, &(to, bytes)) in arguments.iter().zip(&slots[callee.results..]) {
            before.push((place(argument)?, to, bytes));
        }
        for (result, &(from, bytes)) in results.iter().zip(&slots) {
            after.push((from, place(result)?, bytes));
        }
        let copy = |list: Vec<(usize, usize, usize)>| {
            run(move |warp, _, mask| {
                for &(from, to, bytes) in &list {
                    warp.copy_local(mask, from, to, bytes);
                }
                Ok(())
            })
        };
        let (Some(before), Some(after)) = (copy(before)?, copy(after)?) else { return Err("cannot be called".into()) };
        Ok(vec![Action::Run(before), Action::Call(self.starts[to][0]), Action::Run(after)])
    }
}

fn barrier(b: &mut Build) -> Result<Barrier, String> {
    b.ignore(&["cta", "aligned"]);
    let threads = |b: &mut Build, at: usize, more: usize| match b.instruction.operands.len() > at + more {
        true => b.source::<u32>(at).map(Some),
        false => Ok(None),
    };
    match b.one_of(&["sync", "arrive", "red"]) {
        Some("sync") => Ok(Barrier { id: b.source(0)?, threads: threads(b, 1, 0)?, kind: BarrierKind::Sync }),
        Some("arrive") => Ok(Barrier { id: b.source(0)?, threads: threads(b, 1, 0)?, kind: BarrierKind::Arrive }),
        Some("red") => {
            let (operation, ty) = (b.one_of(&["popc", "and", "or"]), b.only_type()?);
            let (id, threads) = (b.source(1)?, threads(b, 2, 1)?);
            let predicate = b.mask(b.instruction.operands.len() - 1)?;
            let kind = match (operation, ty) {
                (Some("popc"), Type::U32) => BarrierKind::Count(predicate, b.result()?),
                (Some("and"), Type::Pred) => BarrierKind::All(predicate, b.mask_target(b.operand(0)?)?),
                (Some("or"), Type::Pred) => BarrierKind::Any(predicate, b.mask_target(b.operand(0)?)?),
                _ => return Err("unknown reduction".into()),
            };
            Ok(Barrier { id, threads, kind })
        }
        _ => Err("`.sync`, `.arrive` or `.red` expected".into()),
    }
}
