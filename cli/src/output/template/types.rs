//! The kinds of things that templates are run on, and the engine's JSON as such things: a field that an answer leaves out is there all
//! the same, with its kind's zero value.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::Value as Json;

use super::value::{List, Map, Pointer, Record, Value};

/// A Go type, as far as templates can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Bool,
    /// By its name in Go: `int`, `int64`.
    Int(&'static str),
    Uint(&'static str),
    Text,
    /// RFC 3339 in JSON.
    Time,
    /// Nanoseconds.
    Duration,
    /// Permission bits.
    Mode,
    /// Addresses of a network, text in JSON.
    Cidr,
    /// An object without fields.
    Empty,
    Any,
    /// Anything, which is of that kind where it is there.
    AnyOf(&'static Type),
    List(&'static Type),
    Array(usize, &'static Type),
    Map(&'static Type),
    /// A map whose keys are of a type of their own, which no template can write.
    Ports(&'static Type),
    Pointer(&'static Type),
    Object(&'static str),
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// In JSON; empty if it is not part of it.
    pub key: &'static str,
    pub omit_empty: bool,
    pub embedded: bool,
    pub kind: Type,
}

#[derive(Debug)]
pub struct Class {
    pub name: &'static str,
    pub fields: Vec<Field>,
}

static CLASSES: LazyLock<HashMap<&'static str, Class>> = LazyLock::new(|| read(include_str!("types.txt")));

/// The class of that name in `types.txt`.
///
/// # Panics
/// When there is none: names are written in this program only.
pub fn class(name: &str) -> &'static Class {
    CLASSES.get(name).unwrap_or_else(|| panic!("types.txt has no {name}"))
}

fn read(text: &'static str) -> HashMap<&'static str, Class> {
    let mut classes = HashMap::new();
    let mut open: Option<Class> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(line) => open.as_mut().expect("a field stands under an object").fields.push(field(line)),
            None => {
                let done = open.replace(Class { name: line, fields: Vec::new() });
                classes.extend(done.map(|class| (class.name, class)));
            }
        }
    }
    classes.extend(open.map(|class| (class.name, class)));
    classes
}

fn field(line: &'static str) -> Field {
    let mut words = line.split(' ');
    let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut tag = words.next().unwrap_or_default().split(',');
    let (bare, embedded) = name.strip_prefix('^').map_or((name, false), |bare| (bare, true));
    let key = match tag.next() {
        None | Some("") => bare,
        Some("-") => "",
        Some(key) => key,
    };
    Field { name: bare, key, omit_empty: tag.next() == Some("omitempty"), embedded, kind: kind_of(kind) }
}

fn kind_of(text: &'static str) -> Type {
    let inner = |text| &*Box::leak(Box::new(kind_of(text)));
    if let Some(rest) = text.strip_prefix("any=") {
        return Type::AnyOf(inner(rest));
    }
    if let Some(rest) = text.strip_prefix('*') {
        return Type::Pointer(inner(rest));
    }
    if let Some(rest) = text.strip_prefix("[]") {
        return Type::List(inner(rest));
    }
    if let Some(rest) = text.strip_prefix("map[string]") {
        return Type::Map(inner(rest));
    }
    if let Some(rest) = text.strip_prefix("map[nat.Port]") {
        return Type::Ports(inner(rest));
    }
    if let Some((count, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Type::Array(count.parse().expect("types.txt: the length of an array"), inner(rest));
    }
    match text {
        "bool" => Type::Bool,
        "string" => Type::Text,
        "time" => Type::Time,
        "duration" => Type::Duration,
        "mode" => Type::Mode,
        "cidr" => Type::Cidr,
        "empty" => Type::Empty,
        "any" => Type::Any,
        name if name.starts_with("int") => Type::Int(name),
        name if name.starts_with("uint") => Type::Uint(name),
        name => Type::Object(name),
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int(name) | Self::Uint(name) | Self::Object(name) => f.write_str(name),
            Self::Text => f.write_str("string"),
            Self::Time => f.write_str("time.Time"),
            Self::Duration => f.write_str("time.Duration"),
            Self::Mode => f.write_str("fs.FileMode"),
            Self::Cidr => f.write_str("registry.NetIPNet"),
            Self::Empty => f.write_str("struct {}"),
            Self::Any | Self::AnyOf(_) => f.write_str("interface {}"),
            Self::List(of) => write!(f, "[]{of}"),
            Self::Array(count, of) => write!(f, "[{count}]{of}"),
            Self::Map(of) => write!(f, "map[string]{of}"),
            Self::Ports(of) => write!(f, "map[nat.Port]{of}"),
            Self::Pointer(to) => write!(f, "*{to}"),
        }
    }
}

/// JSON `null` and what is not there.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A kind's zero value.
pub fn zero(kind: &'static Type) -> Value {
    match kind {
        Type::Bool => Value::Bool(false),
        Type::Int(_) => Value::Int(0),
        Type::Uint(_) => Value::Uint(0),
        Type::Text | Type::Cidr => Value::text(""),
        Type::Time => Value::Time(Rc::from(ZERO_TIME)),
        Type::Duration => Value::Duration(0),
        Type::Mode => Value::Mode(0),
        Type::Empty => Value::Empty,
        Type::Any | Type::AnyOf(_) => Value::Null,
        Type::List(of) => Value::List(Rc::new(List { items: None, of })),
        Type::Array(count, of) => Value::List(Rc::new(List { items: Some(vec![zero(of); *count]), of })),
        Type::Map(of) | Type::Ports(of) => Value::Map(Rc::new(Map { entries: None, of, ports: matches!(kind, Type::Ports(_)) })),
        Type::Pointer(to) => Value::Pointer(Rc::new(Pointer { to: None, kind: to })),
        Type::Object(name) => {
            let class = class(name);
            Value::Record(Rc::new(Record { class, fields: class.fields.iter().map(|field| zero(&field.kind)).collect() }))
        }
    }
}

/// JSON as a value of that kind.
///
/// # Errors
/// What in the text is of another kind.
pub fn decode(kind: &'static Type, json: &Json) -> Result<Value, String> {
    let other = || format!("{json} where {kind} is expected");
    Ok(match (kind, json) {
        (Type::Any, _) => raw(json),
        (_, Json::Null) => zero(kind),
        (Type::AnyOf(kind), _) => decode(kind, json)?,
        (Type::Pointer(to), _) => Value::Pointer(Rc::new(Pointer { to: Some(decode(to, json)?), kind: to })),
        (Type::Bool, Json::Bool(is)) => Value::Bool(*is),
        (Type::Int(_), Json::Number(n)) => Value::Int(n.as_i64().ok_or_else(other)?),
        (Type::Duration, Json::Number(n)) => Value::Duration(n.as_i64().ok_or_else(other)?),
        (Type::Uint(_), Json::Number(n)) => Value::Uint(n.as_u64().ok_or_else(other)?),
        (Type::Mode, Json::Number(n)) => Value::Mode(n.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(other)?),
        (Type::Text | Type::Cidr, Json::String(text)) => Value::text(text),
        (Type::Time, Json::String(text)) => Value::Time(Rc::from(text.as_str())),
        (Type::Empty, Json::Object(_)) => Value::Empty,
        (Type::List(of), Json::String(text)) if **of == Type::Uint("uint8") => bytes(of, text).ok_or_else(other)?,
        // Old engines give one word for a command of one word.
        (Type::List(of), Json::String(_)) if **of == Type::Text => list(of, std::slice::from_ref(json))?,
        (Type::List(of) | Type::Array(_, of), Json::Array(items)) => list(of, items)?,
        (Type::Map(of) | Type::Ports(of), Json::Object(object)) => {
            let mut entries =
                object.iter().map(|(key, json)| Ok((Rc::from(key.as_str()), decode(of, json)?))).collect::<Result<Vec<_>, String>>()?;
            entries.sort_by(|(one, _): &(Rc<str>, _), (other, _)| one.cmp(other));
            Value::Map(Rc::new(Map { entries: Some(entries), of, ports: matches!(kind, Type::Ports(_)) }))
        }
        (Type::Object(name), Json::Object(object)) => record(class(name), object, json)?,
        _ => return Err(other()),
    })
}

fn list(of: &'static Type, items: &[Json]) -> Result<Value, String> {
    let items = items.iter().map(|item| decode(of, item)).collect::<Result<_, _>>()?;
    Ok(Value::List(Rc::new(List { items: Some(items), of })))
}

fn bytes(of: &'static Type, text: &str) -> Option<Value> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(Value::List(Rc::new(List { items: Some(bytes.into_iter().map(|byte| Value::Uint(byte.into())).collect()), of })))
}

fn record(class: &'static Class, object: &serde_json::Map<String, Json>, json: &Json) -> Result<Value, String> {
    let fields = class.fields.iter().map(|field| {
        if field.embedded {
            return decode(&field.kind, json);
        }
        let value = object.get(field.key).or_else(|| {
            let mut others = object.iter().filter(|(key, _)| !field.key.is_empty() && key.eq_ignore_ascii_case(field.key));
            others.next().map(|(_, value)| value)
        });
        match value {
            Some(json) => decode(&field.kind, json).map_err(|why| format!("{}: {why}", field.key)),
            None => Ok(zero(&field.kind)),
        }
    });
    Ok(Value::Record(Rc::new(Record { class, fields: fields.collect::<Result<_, String>>()? })))
}

/// JSON as it is: what templates are run on when there is nothing that they ask for among the known fields.
pub fn raw(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(is) => Value::Bool(*is),
        Json::Number(number) => Value::Number(Rc::from(number.to_string())),
        Json::String(text) => Value::text(text),
        Json::Array(items) => Value::List(Rc::new(List { items: Some(items.iter().map(raw).collect()), of: &Type::Any })),
        Json::Object(object) => {
            let mut entries: Vec<(Rc<str>, Value)> = object.iter().map(|(key, json)| (Rc::from(key.as_str()), raw(json))).collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Map(Rc::new(Map { entries: Some(entries), of: &Type::Any, ports: false }))
        }
    }
}
