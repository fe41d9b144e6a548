//! Runs a template: what Go's text/template does with the tree that the parser makes, and its words for what goes wrong.

use std::collections::HashMap;
use std::rc::Rc;

use gotmpl::TemplateError;
use gotmpl::parse::{CommandNode, Expr, ListNode, Node, Number, Parser, PipeNode, Pos, RangeNode, SmolStr};

use super::functions::{self, Complaint};
use super::types::{self, Type};
use super::value::Value;

/// Templates may call each other and themselves; Go's limit is as far from what anybody writes.
const DEEPEST: usize = 1000;

pub struct Template {
    name: &'static str,
    source: String,
    body: ListNode,
    defines: HashMap<SmolStr, ListNode>,
}

/// A part of a template that only puts fields of a row one after the other.
pub enum Piece<'t> {
    Text(&'t str),
    Field(&'t str),
}

/// What a name that a map does not have is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    NoValue,
    Error,
}

impl Template {
    /// Parses a template that is known by `name` in error texts; docker's are mostly nameless.
    ///
    /// # Errors
    /// Go's text for what cannot be parsed.
    pub fn parse(name: &'static str, source: &str) -> Result<Self, String> {
        let tree = Parser::new(source, "{{", "}}").and_then(Parser::parse);
        let (body, defines) = tree.map_err(|err| match err {
            TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
                format!("template: {name}:{line}: {message}")
            }
            other => format!("template: {name}: {other}"),
        })?;
        let defines: HashMap<SmolStr, ListNode> = defines.into_iter().map(|define| (define.name, define.body)).collect();
        for list in defines.values().chain([&body]) {
            if let Some((pos, function)) = unknown_function(list) {
                return Err(format!("template: {name}:{}: function {function:?} not defined", pos.line));
            }
        }
        Ok(Self { name, source: source.to_owned(), body, defines })
    }

    /// The parts of a template that does nothing but put fields one after the other.
    pub fn pieces(&self) -> Option<Vec<Piece<'_>>> {
        self.body.nodes.iter().map(piece).collect()
    }

    /// Runs it on `data`; `out` gets what was written before an error, too.
    ///
    /// # Errors
    /// Go's text for what cannot be computed.
    pub fn execute(&self, data: &Value, missing: Missing, out: &mut String) -> Result<(), String> {
        self.run(data, missing, false, out)
    }

    /// As [`Template::execute`] on a table's titles, which docker's functions leave alone.
    ///
    /// # Errors
    /// Go's text for what cannot be computed.
    pub fn execute_header(&self, titles: &Value, out: &mut String) -> Result<(), String> {
        self.run(titles, Missing::NoValue, true, out)
    }

    fn run(&self, data: &Value, missing: Missing, titles: bool, out: &mut String) -> Result<(), String> {
        let variables = vec![(SmolStr::from("$"), data.clone())];
        Run { template: self, missing, titles, variables, at: At::Nowhere, depth: 0, out }.list(data, &self.body).map(drop)
    }
}

fn piece(node: &Node) -> Option<Piece<'_>> {
    match node {
        Node::Text(text) => Some(Piece::Text(&text.text)),
        Node::Action(action) if action.pipe.decl.is_empty() => match action.pipe.commands.as_slice() {
            [CommandNode { args, .. }] => match args.as_slice() {
                [Expr::Field(_, fields)] if fields.len() == 1 => Some(Piece::Field(&fields[0])),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The first function that nobody knows.
fn unknown_function(list: &ListNode) -> Option<(Pos, SmolStr)> {
    list.nodes.iter().find_map(|node| match node {
        Node::List(list) => unknown_function(list),
        Node::Action(action) => unknown_in_pipe(&action.pipe),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => unknown_in_pipe(&branch.pipe)
            .or_else(|| unknown_function(&branch.body))
            .or_else(|| branch.else_body.as_ref().and_then(unknown_function)),
        Node::Template(template) => template.pipe.as_ref().and_then(unknown_in_pipe),
        Node::Define(define) => unknown_function(&define.body),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => None,
    })
}

fn unknown_in_pipe(pipe: &PipeNode) -> Option<(Pos, SmolStr)> {
    pipe.commands.iter().flat_map(|command| &command.args).find_map(unknown_in_expr)
}

fn unknown_in_expr(expr: &Expr) -> Option<(Pos, SmolStr)> {
    match expr {
        Expr::Identifier(pos, name) if !functions::known(name) => Some((*pos, name.clone())),
        Expr::Pipe(_, pipe) => unknown_in_pipe(pipe),
        Expr::Chain(_, inner, _) => unknown_in_expr(inner),
        _ => None,
    }
}

/// Where an error is told to be.
#[derive(Clone, Copy)]
enum At<'t> {
    Nowhere,
    Expr(&'t Expr),
    Pipe(&'t PipeNode),
    Words(&'t [Expr]),
    Action(&'t PipeNode, Pos),
    Call(&'t str, Pos),
}

enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'t> {
    template: &'t Template,
    missing: Missing,
    titles: bool,
    variables: Vec<(SmolStr, Value)>,
    at: At<'t>,
    depth: usize,
    out: &'t mut String,
}

type Fallible<T> = Result<T, String>;

impl<'t> Run<'t> {
    fn fail<T>(&self, why: impl std::fmt::Display) -> Fallible<T> {
        let name = self.template.name;
        let (offset, context) = match self.at {
            At::Nowhere => return Err(format!("template: {name}: {why}")),
            At::Expr(expr) => (position(expr), expr_text(expr)),
            At::Pipe(pipe) => (pipe.pos.offset, pipe_text(pipe)),
            At::Words(words) => (words[0].pos().offset, words_text(words)),
            At::Action(pipe, pos) => (pos.offset, format!("{{{{{}}}}}", pipe_text(pipe))),
            At::Call(name, pos) => (pos.offset, format!("{{{{template {name:?}}}}}")),
        };
        let before = self.template.source.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = offset - before.rfind('\n').map_or(0, |newline| newline + 1);
        Err(format!("template: {name}:{line}:{column}: executing {name:?} at <{context}>: {why}"))
    }

    fn list(&mut self, dot: &Value, list: &'t ListNode) -> Fallible<Flow> {
        for node in &list.nodes {
            match self.node(dot, node)? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Fallible<Flow> {
        match node {
            Node::List(list) => return self.list(dot, list),
            Node::Text(text) => self.out.push_str(&text.text),
            Node::Action(action) => {
                let value = self.pipeline(dot, &action.pipe)?;
                if action.pipe.decl.is_empty() {
                    self.at = At::Action(&action.pipe, action.pos);
                    if matches!(value, Value::Method(_)) {
                        return self.fail(format_args!("can't print {{{{{}}}}} of type func", pipe_text(&action.pipe)));
                    }
                    self.out.push_str(&value.show());
                }
            }
            Node::If(branch) | Node::With(branch) => {
                let mark = self.variables.len();
                let value = self.pipeline(dot, &branch.pipe)?;
                let inner = if matches!(node, Node::With(_)) { &value } else { dot };
                let flow = match (value.truth(), &branch.else_body) {
                    (true, _) => self.list(inner, &branch.body)?,
                    (false, Some(other)) => self.list(dot, other)?,
                    (false, None) => Flow::Next,
                };
                self.variables.truncate(mark);
                return Ok(flow);
            }
            Node::Range(range) => self.range(dot, range)?,
            Node::Template(call) => self.call(dot, call)?,
            Node::Define(_) => {}
            Node::Break(_) => return Ok(Flow::Break),
            Node::Continue(_) => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn call(&mut self, dot: &Value, call: &'t gotmpl::parse::TemplateNode) -> Fallible<()> {
        self.at = At::Call(&call.name, call.pos);
        let Some(body) = self.template.defines.get(&call.name) else {
            return self.fail(format_args!("template {:?} not defined", call.name.as_str()));
        };
        if self.depth == DEEPEST {
            return self.fail(format_args!("exceeded maximum template depth ({DEEPEST})"));
        }
        let inner = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Absent,
        };
        let outer = std::mem::replace(&mut self.variables, vec![(SmolStr::from("$"), inner.clone())]);
        self.depth += 1;
        let done = self.list(&inner, body);
        self.depth -= 1;
        self.variables = outer;
        done.map(drop)
    }

    fn range(&mut self, dot: &Value, range: &'t RangeNode) -> Fallible<()> {
        self.at = At::Pipe(&range.pipe);
        let mark = self.variables.len();
        let value = self.pipeline(dot, &range.pipe)?.pointed();
        let within = self.variables.len();
        let mut any = false;
        for (key, item) in self.elements(&value)? {
            any = true;
            self.set_loop_variables(range, mark, key, &item);
            let flow = self.list(&item, &range.body)?;
            self.variables.truncate(within);
            if let Flow::Break = flow {
                break;
            }
        }
        self.variables.truncate(mark);
        if let (false, Some(other)) = (any, &range.else_body) {
            self.list(dot, other)?;
        }
        Ok(())
    }

    fn set_loop_variables(&mut self, range: &RangeNode, mark: usize, key: Value, item: &Value) {
        let names = &range.pipe.decl;
        let values = if names.len() > 1 { vec![key, item.clone()] } else { vec![item.clone()] };
        for (index, (name, value)) in names.iter().zip(values).enumerate() {
            if range.pipe.is_assign {
                self.assign(name, value);
            } else {
                self.variables[mark + index].1 = value;
            }
        }
    }

    fn elements(&self, value: &Value) -> Fallible<Vec<(Value, Value)>> {
        let number = |index: usize| Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
        Ok(match value {
            Value::Absent | Value::Null => Vec::new(),
            Value::List(list) => list.items().iter().enumerate().map(|(index, item)| (number(index), item.clone())).collect(),
            Value::Map(map) => map.entries().iter().map(|(key, item)| (Value::Text(Rc::clone(key)), item.clone())).collect(),
            Value::Int(count) => (0..*count).map(|index| (Value::Int(index), Value::Int(index))).collect(),
            other => return self.fail(format_args!("range can't iterate over {}", other.show())),
        })
    }

    fn assign(&mut self, name: &str, value: Value) {
        if let Some((_, slot)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            *slot = value;
        }
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'t PipeNode) -> Fallible<Value> {
        self.at = At::Pipe(pipe);
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        // A pipe that gives null gives nothing.
        let value = value.filter(|value| !matches!(value, Value::Null)).unwrap_or(Value::Absent);
        for name in &pipe.decl {
            if pipe.is_assign {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    /// `last` is what the command before in the pipe gave.
    fn command(&mut self, dot: &Value, command: &'t CommandNode, last: Option<Value>) -> Fallible<Value> {
        let Some((first, args)) = command.args.split_first() else { return Ok(Value::Absent) };
        match first {
            Expr::Field(_, fields) => return self.chain(dot, dot, first, fields, args, last.as_ref()),
            Expr::Variable(_, name, fields) if !fields.is_empty() => {
                self.at = At::Expr(first);
                let value = self.variable(name)?;
                return self.chain(dot, &value, first, fields, args, last.as_ref());
            }
            Expr::Chain(_, inner, fields) => {
                let value = self.expr(dot, inner)?;
                return self.chain(dot, &value, first, fields, args, last.as_ref());
            }
            Expr::Identifier(_, name) => return self.function(dot, name, &command.args, last),
            _ => {}
        }
        self.at = At::Expr(first);
        if !args.is_empty() || last.is_some() {
            return self.fail(format_args!("can't give argument to non-function {}", expr_text(first)));
        }
        if let Expr::Nil(_) = first {
            return self.fail("nil is not a command");
        }
        self.expr(dot, first)
    }

    /// An operand by itself.
    fn expr(&mut self, dot: &Value, expr: &'t Expr) -> Fallible<Value> {
        self.at = At::Expr(expr);
        Ok(match expr {
            Expr::Dot(_) => dot.clone(),
            Expr::Nil(_) => Value::Null,
            Expr::Bool(_, is) => Value::Bool(*is),
            Expr::String(_, text) => Value::text(text),
            Expr::Number(_, Number::Int(n)) => Value::Int(*n),
            Expr::Number(_, Number::Uint(n)) => Value::Uint(*n),
            Expr::Number(_, Number::Float(n)) => Value::Float(*n),
            Expr::Field(_, fields) => self.chain(dot, dot, expr, fields, &[], None)?,
            Expr::Variable(_, name, fields) => {
                let value = self.variable(name)?;
                if fields.is_empty() { value } else { self.chain(dot, &value, expr, fields, &[], None)? }
            }
            Expr::Identifier(_, name) => self.function(dot, name, std::slice::from_ref(expr), None)?,
            Expr::Pipe(_, pipe) => self.pipeline(dot, pipe)?,
            Expr::Chain(_, inner, fields) => {
                let value = self.expr(dot, inner)?;
                self.chain(dot, &value, expr, fields, &[], None)?
            }
        })
    }

    fn variable(&self, name: &str) -> Fallible<Value> {
        match self.variables.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.fail(format_args!("undefined variable: {name}")),
        }
    }

    fn chain(
        &mut self,
        dot: &Value,
        start: &Value,
        expr: &'t Expr,
        fields: &[SmolStr],
        args: &'t [Expr],
        last: Option<&Value>,
    ) -> Fallible<Value> {
        let mut value = start.clone();
        let count = args.len() + usize::from(last.is_some());
        for (index, name) in fields.iter().enumerate() {
            // Where a chain begins with a call, Go stays at the last thing that it looked at.
            if !matches!(expr, Expr::Chain(..)) {
                self.at = At::Expr(expr);
            }
            let count = if index + 1 == fields.len() { count } else { 0 };
            value = match self.field(&value, name, count)? {
                Value::Method(method) => {
                    let mut values = args.iter().map(|arg| self.expr(dot, arg)).collect::<Fallible<Vec<_>>>()?;
                    values.extend(last.cloned());
                    self.at = At::Expr(expr);
                    match values.as_slice() {
                        [Value::Text(text)] => Value::text(&method(text)),
                        [other] => return self.mismatch(args.first(), "string", &other.type_name()),
                        all => return self.fail(format_args!("wrong number of args for {name}: want 1 got {}", all.len())),
                    }
                }
                value => value,
            };
        }
        Ok(value)
    }

    fn field(&self, receiver: &Value, name: &str, count: usize) -> Fallible<Value> {
        let called = count > 0;
        let value = receiver.pointed();
        let found = match &value {
            Value::Absent if self.missing == Missing::NoValue => return Ok(Value::Absent),
            Value::Absent => return self.fail(format_args!("nil data; no entry for key {name:?}")),
            Value::Null => return self.fail(format_args!("nil pointer evaluating interface {{}}.{name}")),
            Value::Map(map) if map.ports => None,
            Value::Map(map) => {
                if called && !matches!(map.get(name), Some(Value::Method(_))) {
                    return self.fail(format_args!("{name} is not a method but has arguments"));
                }
                return match (map.get(name), self.missing) {
                    (Some(value), _) => Ok(value.clone()),
                    (None, Missing::NoValue) => Ok(Value::Absent),
                    (None, Missing::Error) => self.fail(format_args!("map has no entry for key {name:?}")),
                };
            }
            Value::Record(record) => record.field(name),
            Value::Row(row) => row.fields.get(name).cloned(),
            Value::Pointer(pointer) if !matches!(pointer.kind, Type::Object(class) if !types::class(class).has(name)) => {
                return self.fail(format_args!("nil pointer evaluating {}.{name}", receiver.type_name()));
            }
            _ => None,
        };
        match found {
            Some(Value::Method(method)) => Ok(Value::Method(method)),
            Some(_) if called && matches!(value, Value::Row(_)) => {
                self.fail(format_args!("wrong number of args for {name}: want 0 got {count}"))
            }
            Some(_) if called => self.fail(format_args!("{name} has arguments but cannot be invoked as function")),
            Some(value) => Ok(value),
            None => self.fail(format_args!("can't evaluate field {name} in type {}", self.type_name(receiver))),
        }
    }

    /// In JSON as it is, everything but the whole is of any type.
    fn type_name(&self, value: &Value) -> String {
        if self.missing == Missing::Error { "interface {}".to_owned() } else { value.type_name() }
    }

    /// `words` are the function and its arguments.
    fn function(&mut self, dot: &Value, name: &str, words: &'t [Expr], last: Option<Value>) -> Fallible<Value> {
        let args = &words[1..];
        self.at = At::Words(words);
        let count = args.len() + usize::from(last.is_some());
        if let Err(wanted) = functions::arity(name, count) {
            return self.fail(format_args!("wrong number of args for {name}: want {wanted} got {count}"));
        }
        let mut values = Vec::with_capacity(count);
        for arg in args {
            let value = self.expr(dot, arg)?;
            // These two look no further than they must.
            if matches!(name, "and" | "or") && value.truth() == (name == "or") {
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(last);
        if self.titles && functions::leaves_titles(name) {
            return Ok(values.swap_remove(0));
        }
        functions::call(name, &values).or_else(|complaint| match complaint {
            Complaint::Failed(why) => {
                self.at = At::Words(words);
                self.fail(format_args!("error calling {name}: {why}"))
            }
            Complaint::Type { index, wanted, got } => {
                self.at = At::Words(words);
                self.mismatch(args.get(index), wanted, &got)
            }
        })
    }

    /// An argument of another type than is wanted; none of those written if it came through the pipe.
    fn mismatch<T>(&mut self, arg: Option<&'t Expr>, wanted: &str, got: &str) -> Fallible<T> {
        if let Some(arg) = arg {
            self.at = At::Expr(arg);
            if matches!(arg, Expr::Number(..) | Expr::String(..) | Expr::Bool(..)) {
                return match wanted {
                    "[]string" => self.fail(format_args!("can't handle {} for arg of type []string", expr_text(arg))),
                    "int" => self.fail(format_args!("expected integer; found {}", expr_text(arg))),
                    _ => self.fail(format_args!("expected {wanted}; found {}", expr_text(arg))),
                };
            }
        }
        self.fail(format_args!("wrong type for value; expected {wanted}; got {got}"))
    }
}

/// Go counts a chain of fields from its second one.
fn position(expr: &Expr) -> usize {
    let start = expr.pos().offset;
    match expr {
        Expr::Field(_, fields) if fields.len() > 1 => start + 1 + fields[0].len(),
        Expr::Variable(_, name, fields) if !fields.is_empty() => start + name.len(),
        _ => start,
    }
}

fn fields_text(fields: &[SmolStr]) -> String {
    fields.iter().map(|field| format!(".{field}")).collect()
}

fn expr_text(expr: &Expr) -> String {
    match expr {
        Expr::Dot(_) => ".".to_owned(),
        Expr::Field(_, fields) => fields_text(fields),
        Expr::Variable(_, name, fields) => format!("{name}{}", fields_text(fields)),
        Expr::Identifier(_, name) => name.to_string(),
        Expr::String(_, text) => format!("{text:?}"),
        Expr::Number(_, Number::Int(n)) => n.to_string(),
        Expr::Number(_, Number::Uint(n)) => n.to_string(),
        Expr::Number(_, Number::Float(n)) => n.to_string(),
        Expr::Bool(_, is) => is.to_string(),
        Expr::Nil(_) => "nil".to_owned(),
        Expr::Pipe(_, pipe) => pipe_text(pipe),
        Expr::Chain(_, inner, fields) => match &**inner {
            Expr::Pipe(..) => format!("({}){}", expr_text(inner), fields_text(fields)),
            _ => format!("{}{}", expr_text(inner), fields_text(fields)),
        },
    }
}

fn words_text(words: &[Expr]) -> String {
    let words = words.iter().map(|arg| if let Expr::Pipe(..) = arg { format!("({})", expr_text(arg)) } else { expr_text(arg) });
    words.collect::<Vec<_>>().join(" ")
}

fn pipe_text(pipe: &PipeNode) -> String {
    let names = pipe.decl.iter().map(SmolStr::as_str).collect::<Vec<_>>().join(", ");
    let sign = match (names.is_empty(), pipe.is_assign) {
        (true, _) => "",
        (false, true) => " = ",
        (false, false) => " := ",
    };
    let commands = pipe.commands.iter().map(|command| words_text(&command.args)).collect::<Vec<_>>().join(" | ");
    format!("{names}{sign}{commands}")
}
