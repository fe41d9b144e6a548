//! What templates compute with: Go's values, their text and their JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use base64::Engine as _;
use serde_json::Value as Json;

use super::types::{Class, Type};

/// A method of one text.
pub type Method = Rc<dyn Fn(&str) -> String>;

#[derive(Clone)]
pub enum Value {
    /// No value at all: a map's entry that is not there.
    Absent,
    /// JSON's null, where anything may stand.
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// A number of JSON as it is written, where anything may stand.
    Number(Rc<str>),
    Text(Rc<str>),
    /// RFC 3339.
    Time(Rc<str>),
    /// Nanoseconds.
    Duration(i64),
    Mode(u32),
    Empty,
    List(Rc<List>),
    Map(Rc<Map>),
    Pointer(Rc<Pointer>),
    Record(Rc<Record>),
    Row(Rc<Row>),
    Method(Method),
}

pub struct List {
    pub items: Option<Vec<Value>>,
    pub of: &'static Type,
}

/// Entries in the order of their keys.
pub struct Map {
    pub entries: Option<Vec<(Rc<str>, Value)>>,
    pub of: &'static Type,
    /// Whether keys are ports, which no text of a template is.
    pub ports: bool,
}

pub struct Pointer {
    pub to: Option<Value>,
    pub kind: &'static Type,
}

pub struct Record {
    pub class: &'static Class,
    pub fields: Vec<Value>,
}

/// A line of a listing: its columns by name.
#[derive(Default)]
pub struct Row {
    pub type_name: &'static str,
    pub fields: BTreeMap<&'static str, Value>,
}

impl List {
    pub fn items(&self) -> &[Value] {
        self.items.as_deref().unwrap_or_default()
    }
}

impl Map {
    pub fn entries(&self) -> &[(Rc<str>, Value)] {
        self.entries.as_deref().unwrap_or_default()
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries().iter().find(|(known, _)| **known == *key).map(|(_, value)| value)
    }
}

impl Record {
    /// A field by its name, or one of an embedded object's.
    pub fn field(&self, name: &str) -> Option<Value> {
        let own = self.class.fields.iter().zip(&self.fields);
        own.clone().find(|(field, _)| field.name == name).map(|(_, value)| value.clone()).or_else(|| {
            own.filter(|(field, _)| field.embedded).find_map(|(_, value)| match value.pointed() {
                Value::Record(record) => record.field(name),
                _ => None,
            })
        })
    }
}

impl Class {
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| {
            let inner = if let Type::Pointer(to) = &field.kind { to } else { &field.kind };
            field.name == name || field.embedded && matches!(inner, Type::Object(inner) if super::types::class(inner).has(name))
        })
    }
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(Rc::from(text))
    }

    pub fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        Self::List(Rc::new(List { items: Some(texts.into_iter().map(|text| Self::text(&text)).collect()), of: &Type::Text }))
    }

    /// A pointer to a platform that is not told.
    pub fn no_platform() -> Self {
        Self::Pointer(Rc::new(Pointer { to: None, kind: &Type::Object("v1.Platform") }))
    }

    /// What a pointer that is set points to, all others are themselves.
    pub fn pointed(&self) -> Self {
        match self {
            Self::Pointer(pointer) => pointer.to.as_ref().map_or_else(|| self.clone(), Self::pointed),
            other => other.clone(),
        }
    }

    /// Whether `if` takes it for true.
    pub fn truth(&self) -> bool {
        match self {
            Self::Absent | Self::Null => false,
            Self::Bool(is) => *is,
            Self::Int(n) | Self::Duration(n) => *n != 0,
            Self::Uint(n) => *n != 0,
            Self::Mode(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Number(text) | Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items().is_empty(),
            Self::Map(map) => !map.entries().is_empty(),
            Self::Pointer(pointer) => pointer.to.is_some(),
            Self::Time(_) | Self::Empty | Self::Record(_) | Self::Row(_) | Self::Method(_) => true,
        }
    }

    /// The name of its type, for error texts.
    pub fn type_name(&self) -> String {
        match self {
            Self::Absent | Self::Null => "interface {}".to_owned(),
            Self::Bool(_) => "bool".to_owned(),
            Self::Int(_) => "int".to_owned(),
            Self::Uint(_) => "uint64".to_owned(),
            Self::Float(_) => "float64".to_owned(),
            Self::Number(_) => "json.Number".to_owned(),
            Self::Text(_) => "string".to_owned(),
            Self::Time(_) => "time.Time".to_owned(),
            Self::Duration(_) => "time.Duration".to_owned(),
            Self::Mode(_) => "fs.FileMode".to_owned(),
            Self::Empty => "struct {}".to_owned(),
            Self::List(list) => format!("[]{}", list.of),
            Self::Map(map) => format!("map[{}]{}", if map.ports { "nat.Port" } else { "string" }, map.of),
            Self::Pointer(pointer) => format!("*{}", pointer.kind),
            Self::Record(record) => record.class.name.to_owned(),
            Self::Row(row) => format!("*{}", row.type_name),
            Self::Method(_) => "func".to_owned(),
        }
    }

    /// As Go's `%v` writes it.
    pub fn show(&self) -> String {
        let mut out = String::new();
        self.pointed().write(&mut out, 0);
        out
    }

    /// As Go's `%v` writes what is within something else: a pointer is not followed.
    pub fn show_pointer(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 1);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Self::Absent => out.push_str("<no value>"),
            Self::Null => out.push_str(if depth == 0 { "<no value>" } else { "<nil>" }),
            Self::Number(text) | Self::Text(text) => out.push_str(text),
            Self::Time(text) => out.push_str(&time(text)),
            Self::Duration(nanos) => out.push_str(&duration(*nanos)),
            Self::Mode(mode) => out.push_str(&permissions(*mode)),
            Self::Empty => out.push_str("{}"),
            Self::List(list) => joined(out, "[", list.items(), "]", |out, item| item.write(out, depth + 1)),
            Self::Map(map) => joined(out, "map[", map.entries(), "]", |out, (key, value)| {
                out.push_str(key);
                out.push(':');
                value.write(out, depth + 1);
            }),
            Self::Record(record) => match spelled(record) {
                Some(text) => out.push_str(&text),
                None => joined(out, "{", &record.fields, "}", |out, value| value.write(out, depth + 1)),
            },
            Self::Pointer(pointer) => match &pointer.to {
                None => out.push_str("<nil>"),
                Some(Self::Record(record)) if spelled(record).is_some() => out.push_str(&spelled(record).unwrap_or_default()),
                Some(text) if *pointer.kind == Type::Cidr => text.write(out, depth),
                // Where it lies, which says as little as docker's number does.
                Some(_) => push(out, format_args!("{:#x}", Rc::as_ptr(pointer).addr())),
            },
            Self::Row(row) => joined(out, "{", &row.fields.values().collect::<Vec<_>>(), "}", |out, value| value.write(out, depth + 1)),
            Self::Method(_) => out.push_str("<func>"),
            Self::Bool(is) => push(out, format_args!("{is}")),
            Self::Int(n) => push(out, format_args!("{n}")),
            Self::Uint(n) => push(out, format_args!("{n}")),
            Self::Float(n) => push(out, format_args!("{n}")),
        }
    }

    /// As Go's encoder writes it; a line of a listing has no methods there.
    pub fn json(&self) -> Json {
        match self {
            Self::Absent | Self::Null | Self::Method(_) => Json::Null,
            Self::Bool(is) => (*is).into(),
            Self::Int(n) | Self::Duration(n) => (*n).into(),
            Self::Uint(n) => (*n).into(),
            Self::Mode(n) => (*n).into(),
            Self::Float(n) => (*n).into(),
            Self::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_string())),
            Self::Text(text) | Self::Time(text) => Json::String(text.to_string()),
            Self::Empty => Json::Object(serde_json::Map::new()),
            Self::List(list) => list.items.as_ref().map_or(Json::Null, |items| match list.of {
                Type::Uint("uint8") => base64::engine::general_purpose::STANDARD.encode(octets(items)).into(),
                _ => items.iter().map(Self::json).collect(),
            }),
            Self::Map(map) => map
                .entries
                .as_ref()
                .map_or(Json::Null, |entries| Json::Object(entries.iter().map(|(key, value)| (key.to_string(), value.json())).collect())),
            Self::Pointer(pointer) => pointer.to.as_ref().map_or(Json::Null, Self::json),
            Self::Record(record) => record_json(record),
            Self::Row(row) => {
                let fields = row.fields.iter().filter(|(_, value)| !matches!(value, Self::Method(_)));
                Json::Object(fields.map(|(key, value)| ((*key).to_owned(), value.json())).collect())
            }
        }
    }

    /// What `omitempty` leaves out.
    fn is_empty(&self) -> bool {
        !matches!(self, Self::Record(_)) && !self.truth()
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

fn joined<T>(out: &mut String, open: &str, items: &[T], close: &str, mut each: impl FnMut(&mut String, &T)) {
    out.push_str(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        each(out, item);
    }
    out.push_str(close);
}

fn octets(items: &[Value]) -> Vec<u8> {
    items.iter().filter_map(|item| if let Value::Uint(n) = item { u8::try_from(*n).ok() } else { None }).collect()
}

fn record_json(record: &Record) -> Json {
    let mut object = serde_json::Map::new();
    for (field, value) in record.class.fields.iter().zip(&record.fields) {
        match value.json() {
            Json::Object(inner) if field.embedded => object.extend(inner),
            _ if field.embedded || field.key.is_empty() || (field.omit_empty && value.is_empty()) => {}
            json => {
                object.insert(field.key.to_owned(), json);
            }
        }
    }
    if record.class.name == "registry.ServiceConfig" {
        let mut sorted = Json::Object(object);
        sorted.sort_all_objects();
        return sorted;
    }
    Json::Object(object)
}

/// Objects that say themselves what they are.
fn spelled(record: &Record) -> Option<String> {
    let field = |name: &str| record.field(name).map(|value| value.show()).unwrap_or_default();
    match record.class.name {
        "units.Ulimit" => Some(format!("{}={}:{}", field("Name"), field("Soft"), field("Hard"))),
        "blkiodev.ThrottleDevice" => Some(format!("{}:{}", field("Path"), field("Rate"))),
        "blkiodev.WeightDevice" => Some(format!("{}:{}", field("Path"), field("Weight"))),
        "swarm.Version" => Some(field("Index")),
        _ => None,
    }
}

/// `2026-01-02T03:04:05.5Z` as `2026-01-02 03:04:05.5 +0000 UTC`.
fn time(text: &str) -> String {
    let Some((date, rest)) = text.split_once('T') else { return text.to_owned() };
    if let Some(clock) = rest.strip_suffix('Z') {
        return format!("{date} {} +0000 UTC", fraction(clock));
    }
    let Some(at) = rest.rfind(['+', '-']) else { return text.to_owned() };
    let offset = rest[at..].replace(':', "");
    format!("{date} {} {offset} {}", fraction(&rest[..at]), if offset == "+0000" { "UTC" } else { &offset })
}

/// Seconds without the zeros that end their fraction.
fn fraction(clock: &str) -> &str {
    if clock.contains('.') { clock.trim_end_matches('0').trim_end_matches('.') } else { clock }
}

/// `1h30m0s`, `1.5s`, `20ms`.
fn duration(nanos: i64) -> String {
    let (sign, whole) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let small = |unit: u64, name: &str| {
        let rest = format!("{:09}", (whole % unit) * (1_000_000_000 / unit));
        let rest = rest.trim_end_matches('0');
        format!("{}{}{rest}{name}", whole / unit, if rest.is_empty() { "" } else { "." })
    };
    let text = match whole {
        0 => return "0s".to_owned(),
        1..1_000 => format!("{whole}ns"),
        1_000..1_000_000 => small(1_000, "µs"),
        1_000_000..1_000_000_000 => small(1_000_000, "ms"),
        _ => {
            let seconds = whole / 1_000_000_000;
            let rest = format!("{:09}", whole % 1_000_000_000);
            let rest = rest.trim_end_matches('0');
            let point = if rest.is_empty() { "" } else { "." };
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, 0, s) => format!("{s}{point}{rest}s"),
                (0, m, s) => format!("{m}m{s}{point}{rest}s"),
                (h, m, s) => format!("{h}h{m}m{s}{point}{rest}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `-rwxr-xr-x`.
fn permissions(mode: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    std::iter::once('-').chain(letters.map(|(at, letter)| if mode >> (8 - at) & 1 == 1 { letter } else { '-' })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
        assert_eq!(time("2026-01-02T03:04:05.500Z"), "2026-01-02 03:04:05.5 +0000 UTC");
        assert_eq!(time("0001-01-01T00:00:00Z"), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(time("2026-01-02T03:04:05+02:00"), "2026-01-02 03:04:05 +0200 +0200");
        assert_eq!(permissions(0o640), "-rw-r-----");
    }
}
