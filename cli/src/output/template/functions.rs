//! What templates may call: Go's own functions and docker's.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::super::json;
use super::types;
use super::value::{List, Value};

/// Why a call gave nothing.
pub enum Complaint {
    Failed(String),
    Type { index: usize, wanted: &'static str, got: String },
}

type Answer = Result<Value, Complaint>;

/// Names and how many arguments each takes, at least and at most.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("and", 1, usize::MAX),
    ("or", 1, usize::MAX),
    ("not", 1, 1),
    ("len", 1, 1),
    ("index", 1, usize::MAX),
    ("slice", 1, usize::MAX),
    ("call", 1, usize::MAX),
    ("print", 0, usize::MAX),
    ("println", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("html", 0, usize::MAX),
    ("js", 0, usize::MAX),
    ("urlquery", 0, usize::MAX),
    ("eq", 1, usize::MAX),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("json", 1, 1),
    ("split", 2, 2),
    ("join", 2, 2),
    ("title", 1, 1),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("pad", 3, 3),
    ("truncate", 2, 2),
];

pub fn known(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, ..)| *known == name)
}

/// Whether a table's title goes through it as it is.
pub fn leaves_titles(name: &str) -> bool {
    ["json", "split", "join", "title", "lower", "upper", "truncate"].contains(&name)
}

/// Whether the function takes so many arguments.
///
/// # Errors
/// How many it wants.
pub fn arity(name: &str, count: usize) -> Result<(), String> {
    match FUNCTIONS.iter().find(|(known, ..)| *known == name) {
        Some((_, low, usize::MAX)) if count < *low => Err(format!("at least {low}")),
        Some((_, low, high)) if !(*low..=*high).contains(&count) => Err(low.to_string()),
        _ => Ok(()),
    }
}

/// Calls the function; [`arity`] has counted the arguments.
///
/// # Errors
/// What Go's would say.
pub fn call(name: &str, args: &[Value]) -> Answer {
    let truth = |is: bool| Ok(Value::Bool(is));
    Ok(match name {
        "and" | "or" => args.last().cloned().unwrap_or(Value::Absent),
        "not" => Value::Bool(!args[0].truth()),
        "len" => length(&args[0])?,
        "index" => index(args)?,
        "slice" => slice(args)?,
        "call" => return failed(format!("call of non-function: {}", args[0].type_name())),
        "print" => Value::text(&print(args)),
        "println" => Value::text(&format!("{}\n", args.iter().map(show).collect::<Vec<_>>().join(" "))),
        "printf" => printf(args)?,
        "html" => Value::text(&gotmpl::html_escape(&print(args))),
        "js" => Value::text(&gotmpl::js_escape(&print(args))),
        "urlquery" => Value::text(&gotmpl::url_encode(&print(args))),
        "eq" => equal_to_any(args)?,
        "ne" => return truth(!equal(&args[0], &args[1])?),
        "lt" => return truth(order(args)? == Ordering::Less),
        "le" => return truth(order(args)? != Ordering::Greater),
        "gt" => return truth(order(args)? == Ordering::Greater),
        "ge" => return truth(order(args)? != Ordering::Less),
        // A listing's line writes itself, with Go's defaults.
        "json" => Value::text(&json::compact(&args[0].json(), matches!(args[0], Value::Row(_)))),
        "split" => split(&text(args, 0)?, &text(args, 1)?),
        "join" => Value::text(&texts(args)?.join(&text(args, 1)?)),
        "title" => Value::text(&title(&text(args, 0)?)),
        "lower" => Value::text(&text(args, 0)?.to_lowercase()),
        "upper" => Value::text(&text(args, 0)?.to_uppercase()),
        "pad" => pad(&text(args, 0)?, count(args, 1)?, count(args, 2)?),
        "truncate" => truncate(&text(args, 0)?, count(args, 1)?),
        other => return failed(format!("no function {other}")),
    })
}

fn failed<T>(why: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint::Failed(why.into()))
}

fn mismatch<T>(args: &[Value], index: usize, wanted: &'static str) -> Result<T, Complaint> {
    Err(Complaint::Type { index, wanted, got: args[index].type_name() })
}

fn text(args: &[Value], index: usize) -> Result<Rc<str>, Complaint> {
    match &args[index] {
        Value::Text(text) => Ok(Rc::clone(text)),
        _ => mismatch(args, index, "string"),
    }
}

fn count(args: &[Value], index: usize) -> Result<usize, Complaint> {
    match &args[index] {
        Value::Int(n) => usize::try_from(*n).or_else(|_| failed(format!("{n} is negative"))),
        _ => mismatch(args, index, "int"),
    }
}

fn texts(args: &[Value]) -> Result<Vec<Rc<str>>, Complaint> {
    let Value::List(list) = &args[0] else { return mismatch(args, 0, "[]string") };
    let texts = list.items().iter().map(|item| if let Value::Text(text) = item { Some(Rc::clone(text)) } else { None });
    match texts.collect() {
        Some(texts) if *list.of == types::Type::Text => Ok(texts),
        _ => mismatch(args, 0, "[]string"),
    }
}

/// What `print` makes of a value that is not there.
fn show(value: &Value) -> String {
    match value {
        Value::Null | Value::Absent => "<nil>".to_owned(),
        // Printing an action looks through pointers, these functions tell them.
        Value::Pointer(pointer) => match &pointer.to {
            Some(record @ Value::Record(_)) if record.show().starts_with('{') => format!("&{}", record.show()),
            _ => value.show_pointer(),
        },
        _ => value.show(),
    }
}

/// Texts side by side, others with a space between two that are none.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in args.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_) | Value::Number(_));
        if index > 0 && !is_text(value) && !is_text(&args[index - 1]) {
            out.push(' ');
        }
        out.push_str(&show(value));
    }
    out
}

/// Verbs are the template library's business: it gets a template with nothing but the call.
fn printf(args: &[Value]) -> Answer {
    let format = text(args, 0)?;
    let names: Vec<String> = (1..args.len()).map(|index| format!(".a{index}")).collect();
    let entries = args.iter().enumerate().map(|(index, value)| (Arc::from(format!("a{index}")), plain(value, false)));
    let data = gotmpl::Value::Map(Arc::new(entries.collect::<BTreeMap<Arc<str>, _>>()));
    let source = format!("{{{{printf .a0 {}}}}}", names.join(" "));
    let done = gotmpl::Template::new("").parse(&source).and_then(|template| template.execute_to_string(&data));
    done.map(|text| Value::text(&text)).or_else(|err| failed(format!("{format:?}: {err}")))
}

/// For the template library: objects are the text that they show.
fn plain(value: &Value, within: bool) -> gotmpl::Value {
    let entries = |entries: &[(Rc<str>, Value)]| entries.iter().map(|(key, value)| (Arc::from(&**key), plain(value, true))).collect();
    match value.clone() {
        Value::Absent | Value::Null => gotmpl::Value::Nil,
        Value::Bool(is) => gotmpl::Value::Bool(is),
        Value::Int(n) => gotmpl::Value::Int(n),
        Value::Uint(n) => gotmpl::Value::Uint(n),
        Value::Float(n) => gotmpl::Value::Float(n),
        Value::List(list) => gotmpl::Value::List(list.items().iter().map(|item| plain(item, true)).collect()),
        Value::Map(map) => gotmpl::Value::Map(Arc::new(entries(map.entries()))),
        Value::Pointer(_) if within => gotmpl::Value::String(Arc::from(value.show_pointer())),
        other => gotmpl::Value::String(Arc::from(show(&other))),
    }
}

fn length(value: &Value) -> Answer {
    let length = match value.pointed() {
        Value::Text(text) | Value::Number(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Map(map) => map.entries().len(),
        Value::Absent | Value::Null => return failed("len of nil pointer"),
        Value::Pointer(_) => return failed("len of nil pointer"),
        other => return failed(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(args: &[Value]) -> Answer {
    let mut value = args[0].clone();
    if matches!(value, Value::Absent | Value::Null) {
        return failed("index of untyped nil");
    }
    for key in &args[1..] {
        value = match (value.pointed(), key) {
            (Value::Map(map), Value::Text(_)) if map.ports => return failed("value has type string; should be nat.Port"),
            (Value::Map(map), Value::Text(key)) => map.get(key).cloned().unwrap_or_else(|| types::zero(map.of)),
            (Value::Map(_), key) => return failed(format!("value has type {}; should be string", key.type_name())),
            (Value::List(list), key) => list.items()[within(key, "slice", list.items().len(), false)?].clone(),
            (Value::Text(text), key) => Value::Uint(text.as_bytes()[within(key, "string", text.len(), false)?].into()),
            (Value::Absent | Value::Null | Value::Pointer(_), _) => return failed("index of nil pointer"),
            (other, _) => return failed(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

/// A position in something of that length; its end is one only where `end` says so.
fn within(key: &Value, what: &str, length: usize, end: bool) -> Result<usize, Complaint> {
    let number = match key {
        Value::Int(n) => i128::from(*n),
        Value::Uint(n) => i128::from(*n),
        Value::Absent | Value::Null => return failed("cannot index slice/array with nil"),
        other => return failed(format!("cannot index slice/array with type {}", other.type_name())),
    };
    match usize::try_from(number) {
        Ok(at) if at < length || end && at == length => Ok(at),
        Ok(at) if at == length => failed(format!("reflect: {what} index out of range")),
        _ => failed(format!("index out of range: {number}")),
    }
}

fn slice(args: &[Value]) -> Answer {
    let value = args[0].pointed();
    let length = match &value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items().len(),
        Value::Absent | Value::Null => return failed("slice of untyped nil"),
        other => return failed(format!("can't slice item of type {}", other.type_name())),
    };
    if args.len() > 4 {
        return failed(format!("too many slice indexes: {}", args.len() - 1));
    }
    let mut ends = [0, length];
    for (end, key) in ends.iter_mut().zip(&args[1..]) {
        *end = within(key, "slice", length, true)?;
    }
    let [start, end] = ends;
    if start > end {
        return failed(format!("invalid slice index: {start} > {end}"));
    }
    Ok(match &value {
        Value::List(list) => Value::List(Rc::new(List { items: Some(list.items()[start..end].to_vec()), of: list.of })),
        // Bytes, as in Go: half a letter is shown as one that is unknown.
        Value::Text(text) => Value::text(&String::from_utf8_lossy(&text.as_bytes()[start..end])),
        _ => value,
    })
}

fn equal_to_any(args: &[Value]) -> Answer {
    if args.len() < 2 {
        return failed("missing argument for comparison");
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn equal(one: &Value, other: &Value) -> Result<bool, Complaint> {
    match (one, other) {
        (Value::Absent | Value::Null, other) | (other, Value::Absent | Value::Null) => Ok(is_nil(other)),
        (Value::Pointer(one), Value::Pointer(other)) => Ok(Rc::ptr_eq(one, other) || one.to.is_none() && other.to.is_none()),
        (Value::List(_) | Value::Map(_), Value::List(_) | Value::Map(_)) if !is_nil(one) && !is_nil(other) => {
            failed(format!("non-comparable type {}: {}", one.show(), one.type_name()))
        }
        _ => compare(one, other).map(Ordering::is_eq),
    }
}

fn is_nil(value: &Value) -> bool {
    match value {
        Value::Absent | Value::Null => true,
        Value::Pointer(pointer) => pointer.to.is_none(),
        Value::List(list) => list.items.is_none(),
        Value::Map(map) => map.entries.is_none(),
        _ => false,
    }
}

fn order(args: &[Value]) -> Result<Ordering, Complaint> {
    if let (Value::Bool(_), _) | (_, Value::Bool(_)) = (&args[0], &args[1]) {
        return failed("invalid type for comparison");
    }
    compare(&args[0], &args[1])
}

fn compare(one: &Value, other: &Value) -> Result<Ordering, Complaint> {
    let whole = |value: &Value| match value {
        Value::Int(n) | Value::Duration(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        Value::Mode(n) => Some(i128::from(*n)),
        _ => None,
    };
    if let (Some(one), Some(other)) = (whole(one), whole(other)) {
        return Ok(one.cmp(&other));
    }
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Ok(one.cmp(other)),
        (Value::Float(one), Value::Float(other)) => Ok(one.partial_cmp(other).unwrap_or(Ordering::Less)),
        (Value::Text(one) | Value::Number(one), Value::Text(other) | Value::Number(other)) => Ok(one.cmp(other)),
        _ => failed("incompatible types for comparison"),
    }
}

fn split(whole: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return Value::texts(whole.chars().map(String::from));
    }
    Value::texts(whole.split(separator).map(str::to_owned))
}

fn title(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    let mut start = true;
    for c in words.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn pad(text: &str, before: usize, after: usize) -> Value {
    Value::text(&if text.is_empty() { String::new() } else { format!("{}{text}{}", " ".repeat(before), " ".repeat(after)) })
}

fn truncate(text: &str, length: usize) -> Value {
    Value::text(&String::from_utf8_lossy(&text.as_bytes()[..length.min(text.len())]))
}
