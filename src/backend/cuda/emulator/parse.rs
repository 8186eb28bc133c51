//! PTX text to [`Module`].
//!
//! Modules have many kernels and most runs need few of them: a module's [`Outline`] has its variables and where its functions
//! are, which are parsed when one of them is asked for.

use super::ir::*;
use std::collections::HashMap;

/// Why a text is not understood, and where.
#[derive(Debug)]
pub struct ParseError {
    pub line: u32,
    pub why: String,
}

type Result<T> = std::result::Result<T, ParseError>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    /// A name, an opcode or a directive, with its dots.
    Word(&'a str),
    Number(&'a str),
    Text(&'a str),
    Sign(u8),
}

/// Tokens with their lines.
type Tokens<'a> = Vec<(u32, Token<'a>)>;

/// Where a function is in its text.
#[derive(Clone)]
struct Section {
    start: usize,
    end: usize,
    line: u32,
}

/// A module whose functions have no bodies yet.
pub struct Outline {
    pub module: Module,
    sections: Vec<Section>,
}

/// Splits a section of a text into tokens with their lines. On demand the bodies of functions are left out, and where the
/// functions are is the second result.
fn tokens<'a>(text: &'a str, of: &Section, skip_bodies: bool) -> Result<(Tokens<'a>, Vec<Section>)> {
    let text = &text[..of.end];
    let bytes = text.as_bytes();
    let (mut at, mut line, mut out) = (of.start, of.line, Vec::new());
    let (mut functions, mut in_header) = (Vec::<Section>::new(), false);
    let in_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'%' | b'.');
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        match byte {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b if b.is_ascii_whitespace() => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at..].find("*/").ok_or(ParseError { line, why: "a comment without an end".into() })?;
                line += text[at..at + end].matches('\n').count() as u32;
                at += end + 2;
            }
            b'{' if in_header => {
                let end = at + body(&bytes[at..]);
                out.extend([(line, Token::Sign(b'{')), (line, Token::Sign(b'}'))]);
                line += bytes[at..end].iter().filter(|&&b| b == b'\n').count() as u32;
                in_header = false;
                functions.iter_mut().rev().take(1).for_each(|function| function.end = end);
                at = end;
            }
            b'"' => {
                let end = text[at + 1..].find('"').ok_or(ParseError { line, why: "a string without an end".into() })?;
                out.push((line, Token::Text(&text[at + 1..at + 1 + end])));
                at += end + 2;
            }
            b if b.is_ascii_digit() => {
                while bytes.get(at).is_some_and(|&b| b.is_ascii_alphanumeric() || b == b'.') {
                    at += 1;
                }
                out.push((line, Token::Number(&text[start..at])));
            }
            b if in_word(b) => {
                loop {
                    match bytes.get(at) {
                        Some(&b) if in_word(b) => at += 1,
                        Some(b':') if bytes.get(at + 1) == Some(&b':') => at += 2,
                        _ => break,
                    }
                }
                let word = &text[start..at];
                out.push((line, Token::Word(word)));
                if skip_bodies && matches!(word, ".entry" | ".func") {
                    functions.push(Section { start, end: start, line });
                    in_header = true;
                }
            }
            b if b.is_ascii_graphic() => {
                if b == b';' && in_header {
                    // A declaration: the definition comes later.
                    functions.pop();
                    in_header = false;
                }
                out.push((line, Token::Sign(b)));
                at += 1;
            }
            _ => return Err(ParseError { line, why: "a character that PTX does not have".into() }),
        }
    }
    Ok((out, functions))
}

/// The bytes of a body in braces.
fn body(bytes: &[u8]) -> usize {
    let (mut depth, mut in_comment) = (0, false);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' => in_comment = false,
            b'/' if bytes.get(at + 1) == Some(&b'/') => in_comment = true,
            b'{' if !in_comment => depth += 1,
            b'}' if !in_comment => depth -= 1,
            _ => (),
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

/// Reads all of a module but the bodies of its functions.
pub fn outline(text: &str) -> Result<Outline> {
    let (tokens, sections) = tokens(text, &Section { start: 0, end: text.len(), line: 1 }, true)?;
    let mut parser = Parser { tokens, at: 0, module: Module::default() };
    parser.module()?;
    Ok(Outline { module: parser.module, sections })
}

/// The module with a function and those that it reaches, the function itself first.
pub fn functions(text: &str, outline: &Outline, function: usize) -> Result<Module> {
    let mut module = Module { variables: outline.module.variables.clone(), functions: Vec::new() };
    let mut wanted = vec![function];
    while let Some(&next) = wanted.get(module.functions.len()) {
        let mut parser = Parser { tokens: tokens(text, &outline.sections[next], false)?.0, at: 0, module };
        parser.module()?;
        module = parser.module;
        let Some(parsed) = module.functions.last() else { break };
        for name in parsed.code.iter().filter_map(Instruction::callee) {
            let known = outline.module.functions.iter().position(|f| f.name == name);
            wanted.extend(known.filter(|k| !wanted.contains(k)));
        }
    }
    Ok(module)
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    at: usize,
    module: Module,
}

/// What a `{ }` declares.
#[derive(Default)]
struct Scope<'a> {
    registers: HashMap<&'a str, Register>,
    /// `%r<5>`: the registers `%r0` to `%r4`.
    ranges: Vec<(&'a str, Register, u32)>,
    variables: HashMap<&'a str, usize>,
    labels: HashMap<&'a str, usize>,
    tables: HashMap<&'a str, usize>,
    /// Operands that may name a label: instruction, operand, name.
    jumps: Vec<(usize, usize, &'a str)>,
    /// Entries of tables that name a label: table, entry, line, name.
    entries: Vec<(usize, usize, u32, &'a str)>,
}

struct Body<'a> {
    function: Function,
    scopes: Vec<Scope<'a>>,
}

impl<'a> Body<'a> {
    fn register(&mut self, width: Width, count: u32) -> Register {
        let first = self.function.registers.len() as Register;
        self.function.registers.extend((0..count).map(|_| width));
        first
    }

    fn find_register(&self, name: &str) -> Option<Register> {
        let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        self.scopes.iter().rev().find_map(|scope| {
            let in_range = || {
                let index: u32 = name[digits..].parse().ok()?;
                let (_, first, _) = scope.ranges.iter().find(|r| r.0 == &name[..digits] && index < r.2)?;
                Some(first + index)
            };
            scope.registers.get(name).copied().or_else(in_range)
        })
    }

    fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Ends a scope: its labels are known now; what it jumps to and does not have belongs to the scope around it, and
    /// what no scope has may be a function.
    fn close(&mut self) -> Result<()> {
        let scope = self.scopes.pop().unwrap_or_default();
        let mut outer = self.scopes.pop();
        for (instruction, operand, name) in scope.jumps {
            if let Some(&target) = scope.labels.get(name) {
                self.function.code[instruction].operands[operand] = Operand::Label(target);
            } else if let Some(&table) = scope.tables.get(name) {
                self.function.code[instruction].operands[operand] = Operand::Table(table);
            } else if let Some(outer) = &mut outer {
                outer.jumps.push((instruction, operand, name));
            }
        }
        for (table, entry, line, name) in scope.entries {
            if let Some(&target) = scope.labels.get(name) {
                self.function.tables[table][entry] = target;
            } else if let Some(outer) = &mut outer {
                outer.entries.push((table, entry, line, name));
            } else {
                return Err(ParseError { line, why: format!("no label `{name}`") });
            }
        }
        self.scopes.extend(outer);
        Ok(())
    }
}

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |t| t.0)
    }

    fn error<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(ParseError { line: self.line(), why: why.into() })
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|t| t.1)
    }

    fn next(&mut self) -> Result<Token<'a>> {
        match self.peek() {
            Some(token) => {
                self.at += 1;
                Ok(token)
            }
            None => self.error("the text ends too early"),
        }
    }

    fn sign(&mut self, sign: u8) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        self.at += found as usize;
        found
    }

    fn expect(&mut self, sign: u8) -> Result<()> {
        if self.sign(sign) { Ok(()) } else { self.error(format!("`{}` expected", sign as char)) }
    }

    fn is_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Token::Word(word));
        self.at += found as usize;
        found
    }

    fn word(&mut self) -> Result<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.error("a name expected"),
        }
    }

    /// A number as a literal; a minus is applied.
    fn number(&mut self) -> Result<Operand> {
        let negative = self.sign(b'-');
        let Some(Token::Number(text)) = self.peek() else { return self.error("a number expected") };
        let wrong = ParseError { line: self.line(), why: format!("`{text}` is not a number") };
        self.at += 1;
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let int = |value: Option<u64>| value.map(|v| Operand::Int(if negative { v.wrapping_neg() } else { v }));
        let sign = |bits: u64, bit: u32| if negative { bits ^ 1 << bit } else { bits };
        let bare = text.trim_end_matches(['U', 'u']);
        let parsed = match text.get(..2) {
            Some("0f" | "0F") => hex(&text[2..]).map(|v| Operand::F32(sign(v, 31) as u32)),
            Some("0d" | "0D") => hex(&text[2..]).map(|v| Operand::F64(sign(v, 63))),
            Some("0x" | "0X") => int(hex(&bare[2..])),
            Some("0b" | "0B") => int(u64::from_str_radix(&bare[2..], 2).ok()),
            _ if text.contains('.') => text.parse().ok().map(|v: f64| Operand::F64(sign(v.to_bits(), 63))),
            _ => int(bare.parse().ok()),
        };
        parsed.ok_or(wrong)
    }

    fn int(&mut self) -> Result<i64> {
        match self.number()? {
            Operand::Int(value) => Ok(value as i64),
            _ => self.error("a whole number expected"),
        }
    }

    fn unsigned(&mut self) -> Result<usize> {
        let value = self.int()?;
        usize::try_from(value).or_else(|_| self.error("a number that is not negative expected"))
    }

    /// `+ 4`, `- 4`, `+ -4` or nothing.
    fn offset(&mut self) -> Result<i64> {
        if self.sign(b'+') || self.peek() == Some(Token::Sign(b'-')) { self.int() } else { Ok(0) }
    }

    fn module(&mut self) -> Result<()> {
        while self.peek().is_some() {
            let line = self.line();
            let word = self.word()?;
            match word {
                ".version" => drop(self.number()?),
                ".target" => {
                    self.word()?;
                    while self.sign(b',') {
                        self.word()?;
                    }
                }
                ".address_size" => {
                    if self.int()? != 64 {
                        return self.error("addresses of 64 bits are expected");
                    }
                }
                ".visible" | ".extern" | ".weak" | ".common" => (),
                ".file" => self.skip_line(line),
                ".section" => {
                    while !self.sign(b'}') {
                        self.next()?;
                    }
                }
                ".entry" | ".func" => self.function(word == ".entry")?,
                ".global" | ".const" | ".shared" => {
                    let space = Space::parse(&word[1..]).unwrap_or(Space::Global);
                    let (_, variable) = self.variable(space)?;
                    // A declaration may come before the definition.
                    match self.module.variables.iter_mut().find(|v| v.name == variable.name) {
                        Some(known) => *known = variable,
                        None => self.module.variables.push(variable),
                    }
                    self.expect(b';')?;
                }
                _ => {
                    self.at -= 1;
                    return self.error(format!("unknown directive `{word}`"));
                }
            }
        }
        Ok(())
    }

    fn skip_line(&mut self, line: u32) {
        while self.peek().is_some() && self.line() == line {
            self.at += 1;
        }
    }

    /// The rest of a declaration after its space, without the semicolon: its name as the text has it, and what it is.
    fn variable(&mut self, space: Space) -> Result<(&'a str, Variable)> {
        let (mut align, mut ty, mut vector, mut is_pointer) = (0, None, 1, false);
        let name = loop {
            match self.word()? {
                // What a parameter points to, and how that is aligned, is a hint.
                ".ptr" => is_pointer = true,
                ".align" if is_pointer => drop(self.unsigned()?),
                ".global" | ".const" | ".shared" | ".local" if is_pointer => (),
                ".align" => align = self.unsigned()?,
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                word if word.starts_with('.') => {
                    let Some(known) = Type::parse(&word[1..]) else {
                        return self.error(format!("unknown type `{word}`"));
                    };
                    ty = Some(known);
                }
                word => break word,
            }
        };
        let Some(ty) = ty else { return self.error(format!("`{name}` has no type")) };
        let element = ty.bytes() * vector;
        let mut bytes = element;
        while self.sign(b'[') {
            if self.sign(b']') {
                bytes = 0;
            } else {
                let Some(total) = bytes.checked_mul(self.unsigned()?) else { return self.error("an array too large") };
                bytes = total;
                self.expect(b']')?;
            }
        }
        let align = if align > 0 { align } else { element };
        let mut variable = Variable { name: name.into(), space, align, bytes, init: Vec::new(), pointers: Vec::new() };
        if self.sign(b'=') {
            self.initial(ty, &mut variable)?;
            if bytes == 0 {
                variable.bytes = variable.init.len();
            }
            if variable.init.len() > variable.bytes {
                return self.error(format!("more initial values than `{name}` has room for"));
            }
        }
        Ok((name, variable))
    }

    fn initial(&mut self, ty: Type, variable: &mut Variable) -> Result<()> {
        if self.sign(b'{') {
            while !self.sign(b'}') {
                self.initial(ty, variable)?;
                self.sign(b',');
            }
            return Ok(());
        }
        let bits = match self.peek() {
            Some(Token::Word(_)) => {
                let mut name = self.word()?;
                let generic = name == "generic" && self.sign(b'(');
                if generic {
                    name = self.word()?;
                    self.expect(b')')?;
                }
                let Some(index) = self.module.variables.iter().position(|v| v.name == name) else {
                    return self.error(format!("no variable `{name}`"));
                };
                let offset = self.offset()?;
                variable.pointers.push((variable.init.len(), index, offset));
                0
            }
            _ => match self.number()? {
                Operand::Int(value) => value,
                Operand::F32(bits) => bits.into(),
                Operand::F64(bits) if ty == Type::F32 => (f64::from_bits(bits) as f32).to_bits().into(),
                Operand::F64(bits) => bits,
                _ => return self.error("a number expected"),
            },
        };
        variable.init.extend_from_slice(&bits.to_le_bytes()[..ty.bytes()]);
        Ok(())
    }

    /// A list of `.param` declarations in brackets, if there is one.
    fn params(&mut self) -> Result<Vec<(&'a str, Variable)>> {
        let mut params = Vec::new();
        if self.sign(b'(') {
            while !self.sign(b')') {
                if !self.is_word(".param") {
                    return self.error("parameters in `.param` space expected");
                }
                params.push(self.variable(Space::Param)?);
                self.sign(b',');
            }
        }
        Ok(params)
    }

    fn function(&mut self, is_entry: bool) -> Result<()> {
        let results = if is_entry { Vec::new() } else { self.params()? };
        let name = self.word()?;
        let params = self.params()?;
        let mut max_threads = None;
        loop {
            match self.peek() {
                Some(Token::Word(".maxntid" | ".reqntid")) => {
                    self.at += 1;
                    let mut threads = self.unsigned()?;
                    while self.sign(b',') {
                        threads = threads.saturating_mul(self.unsigned()?);
                    }
                    max_threads = Some(u32::try_from(threads).unwrap_or(u32::MAX));
                }
                Some(Token::Word(".minnctapersm" | ".maxnreg")) => {
                    self.at += 1;
                    self.int()?;
                }
                Some(Token::Word(".noreturn")) => self.at += 1,
                _ => break,
            }
        }
        // A declaration: the definition comes later.
        if self.sign(b';') {
            return Ok(());
        }
        let mut scope = Scope::default();
        let mut function = Function {
            name: name.into(),
            is_entry,
            max_threads,
            registers: Vec::new(),
            variables: Vec::new(),
            results: results.len(),
            params: params.len(),
            code: Vec::new(),
            tables: Vec::new(),
        };
        for (name, variable) in results.into_iter().chain(params) {
            scope.variables.insert(name, function.variables.len());
            function.variables.push(variable);
        }
        self.expect(b'{')?;
        let mut body = Body { function, scopes: vec![scope] };
        while !body.scopes.is_empty() {
            self.statement(&mut body)?;
        }
        self.module.functions.push(body.function);
        Ok(())
    }

    fn statement(&mut self, body: &mut Body<'a>) -> Result<()> {
        let line = self.line();
        match self.next()? {
            Token::Sign(b'{') => body.open(),
            Token::Sign(b'}') => body.close()?,
            Token::Sign(b';') => (),
            Token::Sign(b'@') => {
                let negated = self.sign(b'!');
                let name = self.word()?;
                let Some(register) = body.find_register(name) else {
                    return self.error(format!("no register `{name}`"));
                };
                let opcode = self.word()?;
                self.instruction(body, line, Some((register, negated)), opcode)?;
            }
            Token::Word(".reg") => self.registers(body)?,
            Token::Word(".pragma") => {
                self.next()?;
                self.expect(b';')?;
            }
            Token::Word(".loc" | ".file") => self.skip_line(line),
            Token::Word(space @ (".local" | ".shared" | ".param" | ".global" | ".const")) => {
                let (name, variable) = self.variable(Space::parse(&space[1..]).unwrap_or(Space::Local))?;
                self.expect(b';')?;
                let index = body.function.variables.len();
                body.function.variables.push(variable);
                if let Some(scope) = body.scopes.last_mut() {
                    scope.variables.insert(name, index);
                }
            }
            Token::Word(name) if self.sign(b':') => {
                let place = body.function.code.len();
                let Some(scope) = body.scopes.last_mut() else { return self.error("a label outside of a function") };
                if self.is_word(".branchtargets") {
                    let table = body.function.tables.len();
                    scope.tables.insert(name, table);
                    let mut count = 0;
                    loop {
                        let line = self.line();
                        scope.entries.push((table, count, line, self.word()?));
                        count += 1;
                        if !self.sign(b',') {
                            break;
                        }
                    }
                    body.function.tables.push(vec![0; count]);
                    self.expect(b';')?;
                } else {
                    scope.labels.insert(name, place);
                }
            }
            Token::Word(opcode) if !opcode.starts_with('.') => self.instruction(body, line, None, opcode)?,
            token => {
                self.at -= 1;
                return self.error(format!("a statement expected, not {token:?}"));
            }
        }
        Ok(())
    }

    fn registers(&mut self, body: &mut Body<'a>) -> Result<()> {
        let ty = self.word()?;
        let Some(ty) = ty.strip_prefix('.').and_then(Type::parse) else {
            return self.error(format!("unknown type `{ty}` of a register"));
        };
        loop {
            let name = self.word()?;
            if self.sign(b'<') {
                let count = self.unsigned()? as u32;
                self.expect(b'>')?;
                let first = body.register(ty.width(), count);
                body.scopes.iter_mut().rev().take(1).for_each(|s| s.ranges.push((name, first, count)));
            } else {
                let register = body.register(ty.width(), 1);
                body.scopes.last_mut().map(|s| s.registers.insert(name, register));
            }
            if !self.sign(b',') {
                return self.expect(b';');
            }
        }
    }

    fn instruction(
        &mut self,
        body: &mut Body<'a>,
        line: u32,
        guard: Option<(Register, bool)>,
        opcode: &'a str,
    ) -> Result<()> {
        let opcode: Vec<String> = opcode.split('.').map(String::from).collect();
        let mut operands = Vec::new();
        while !self.sign(b';') {
            let place = (body.function.code.len(), operands.len());
            let operand = self.operand(body, place)?;
            operands.push(operand);
            if !self.sign(b',') {
                self.expect(b';')?;
                break;
            }
        }
        body.function.code.push(Instruction { line, guard, opcode, operands });
        Ok(())
    }

    /// `place` is the instruction and operand, should it turn out to be a label.
    fn operand(&mut self, body: &mut Body<'a>, place: (usize, usize)) -> Result<Operand> {
        match self.peek() {
            Some(Token::Sign(open @ (b'{' | b'('))) => {
                self.at += 1;
                let close = if open == b'{' { b'}' } else { b')' };
                let mut members = Vec::new();
                while !self.sign(close) {
                    members.push(self.operand(body, place)?);
                    self.sign(b',');
                }
                Ok(Operand::Vector(members))
            }
            Some(Token::Sign(b'[')) => {
                self.at += 1;
                let base = self.operand(body, place)?;
                let offset = self.offset()?;
                self.expect(b']')?;
                Ok(Operand::Address(Box::new(base), offset))
            }
            Some(Token::Sign(b'!')) => {
                self.at += 1;
                let name = self.word()?;
                match body.find_register(name) {
                    Some(register) => Ok(Operand::Not(register)),
                    None => self.error(format!("no register `{name}`")),
                }
            }
            Some(Token::Word(name)) => {
                self.at += 1;
                let operand = self.named(body, place, name)?;
                if self.sign(b'|') {
                    let second = self.operand(body, place)?;
                    return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
                }
                Ok(operand)
            }
            _ => self.number(),
        }
    }

    fn named(&mut self, body: &mut Body<'a>, (instruction, operand): (usize, usize), name: &'a str) -> Result<Operand> {
        if name == "_" {
            return Ok(Operand::Sink);
        }
        if let Some(register) = body.find_register(name) {
            return Ok(Operand::Register(register));
        }
        if let Some(special) = Special::parse(name) {
            return Ok(Operand::Special(special));
        }
        if name == "WARP_SZ" {
            return Ok(Operand::Int(32));
        }
        let local = body.scopes.iter().rev().find_map(|s| s.variables.get(name)).map(|&v| Symbol::Function(v));
        let global = || self.module.variables.iter().position(|v| v.name == name).map(Symbol::Module);
        if let Some(symbol) = local.or_else(global) {
            return Ok(Operand::Symbol(symbol, self.offset()?));
        }
        if name.starts_with('%') {
            return self.error(format!("no register `{name}`"));
        }
        if let Some(scope) = body.scopes.last_mut() {
            scope.jumps.push((instruction, operand, name));
        }
        Ok(Operand::Callee(name.into()))
    }
}
