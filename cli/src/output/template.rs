//! `--format`: `table`, `json`, `table TEMPLATE` or a Go template, over rows of named fields.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::{json, table};
use crate::failure::Failure;

/// What a kind of listing has to offer.
pub struct Columns {
    /// The template of the table that is shown without `--format`.
    pub table: &'static str,
    /// The template for `-q`.
    pub quiet: &'static str,
    /// Field and column title.
    pub headers: &'static [(&'static str, &'static str)],
    /// Name of the thing in error texts.
    pub type_name: &'static str,
}

/// One row: fields by name.
#[derive(Debug, Clone, Default)]
pub struct Row(BTreeMap<Arc<str>, Value>);

impl Row {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(Arc::from(name), Value::String(Arc::from(value.into())));
        self
    }

    pub fn set_value(mut self, name: &str, value: Value) -> Self {
        self.0.insert(Arc::from(name), value);
        self
    }

    /// The `Label` and `Labels` fields.
    pub fn labels(self, labels: &BTreeMap<String, String>) -> Self {
        let joined: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let labels = labels.clone();
        let look_up = move |args: &[Value]| {
            let key = args.first().and_then(Value::as_str).unwrap_or_default();
            Ok(Value::String(Arc::from(labels.get(key).map_or("", String::as_str))))
        };
        self.set("Labels", joined.join(",")).set_value("Label", Value::Function(Arc::new(look_up)))
    }
}

/// The user's choice of format.
pub struct Format<'a> {
    /// `--format`, or the user's default from the configuration.
    pub source: Option<&'a str>,
    pub quiet: bool,
}

/// Renders rows in the chosen format.
///
/// # Errors
/// A template that cannot be parsed or names an unknown field.
pub fn render(format: &Format<'_>, columns: &Columns, rows: Vec<Row>) -> Result<String, Failure> {
    let (source, is_table) = resolve(format, columns);
    let template = compile(&source, None).map_err(|err| Failure::message(format!("failed to parse template: {}", parse_error(&err))))?;
    let fail =
        |err: TemplateError| Failure::message(format!("failed to execute template: {}", field_error(&err, &source, columns.type_name)));
    let mut out = String::new();
    if is_table {
        out.push_str(&header(&source, columns).map_err(fail)?);
        out.push('\n');
    }
    for row in rows {
        out.push_str(&template.execute_to_string(&Value::Map(Arc::new(row.0))).map_err(fail)?);
        out.push('\n');
    }
    Ok(if is_table { table::align(&out) } else { out })
}

fn resolve(format: &Format<'_>, columns: &Columns) -> (String, bool) {
    let (source, is_table) = match format.source.unwrap_or("table") {
        "table" if format.quiet => (columns.quiet, false),
        "table" => (columns.table, true),
        "json" => ("{{json .}}", false),
        text => match text.strip_prefix("table") {
            Some(rest) => (rest.trim(), true),
            None => (text, false),
        },
    };
    (source.replace(r"\t", "\t").replace(r"\n", "\n"), is_table)
}

/// The title line: the template with titles in place of fields; functions leave titles alone.
fn header(source: &str, columns: &Columns) -> Result<String, TemplateError> {
    let mut titles: BTreeMap<Arc<str>, Value> =
        columns.headers.iter().map(|(field, title)| (Arc::from(*field), Value::String(Arc::from(*title)))).collect();
    let label = |args: &[Value]| {
        let name = args.first().and_then(Value::as_str).unwrap_or_default();
        let word = name.rsplit('.').next().unwrap_or(name).replace('-', " ");
        Ok(Value::String(Arc::from(word)))
    };
    titles.insert(Arc::from("Label"), Value::Function(Arc::new(label)));
    let same = |args: &[Value]| Ok(args.first().cloned().unwrap_or(Value::Nil));
    let mut template = Template::new("");
    for name in ["json", "split", "join", "title", "lower", "upper", "truncate", "pad"] {
        template = template.func(name, same);
    }
    template.parse(&method_calls(source))?.execute_to_string(&Value::Map(Arc::new(titles)))
}

/// Order in which objects had their keys in a JSON text, by address of the map made from them.
pub type KeyOrder = HashMap<usize, Vec<String>>;

/// A template with docker's functions. Unknown fields are errors.
///
/// # Errors
/// When the source is no template.
pub fn compile(source: &str, order: Option<Arc<KeyOrder>>) -> Result<Template, TemplateError> {
    let escape_html = order.is_none();
    let order = order.unwrap_or_default();
    Template::new("")
        .missing_key(MissingKey::Error)
        .func("json", move |args| {
            let value = args.first().map_or(serde_json::Value::Null, |value| to_json(value, &order));
            Ok(text(json::compact(&value, escape_html)))
        })
        .func("split", |args| {
            let (whole, separator) = (string(args, 0), string(args, 1));
            let parts: Vec<Value> = if separator.is_empty() {
                whole.chars().map(|c| text(c.to_string())).collect()
            } else {
                whole.split(separator.as_str()).map(|part| text(part.to_owned())).collect()
            };
            Ok(Value::List(Arc::from(parts)))
        })
        .func("join", |args| match args.first() {
            Some(Value::List(items)) => Ok(text(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(&string(args, 1)))),
            Some(Value::Nil) | None => Ok(text(String::new())),
            Some(other) => Err(TemplateError::TypeMismatch { expected: "list", got: other.type_name() }),
        })
        .func("title", |args| Ok(text(title(&string(args, 0)))))
        .func("lower", |args| Ok(text(string(args, 0).to_lowercase())))
        .func("upper", |args| Ok(text(string(args, 0).to_uppercase())))
        .func("pad", |args| {
            let (before, after) = (count(args, 1), count(args, 2));
            let whole = string(args, 0);
            Ok(text(if whole.is_empty() { whole } else { format!("{}{whole}{}", " ".repeat(before), " ".repeat(after)) }))
        })
        .func("truncate", |args| Ok(text(string(args, 0).chars().take(count(args, 1)).collect())))
        .parse(&method_calls(source))
}

/// `.Label "x"` is a method call in Go; here it is a function in a field, which wants `call`.
fn method_calls(source: &str) -> String {
    source.replace(".Label \"", "call .Label \"").replace("call call ", "call ")
}

fn text(text: String) -> Value {
    Value::String(Arc::from(text))
}

fn string(args: &[Value], index: usize) -> String {
    args.get(index).map(ToString::to_string).unwrap_or_default()
}

fn count(args: &[Value], index: usize) -> usize {
    args.get(index).and_then(Value::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
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

fn to_json(value: &Value, order: &KeyOrder) -> serde_json::Value {
    match value {
        Value::Bool(b) => (*b).into(),
        Value::Int(n) => (*n).into(),
        Value::Uint(n) => (*n).into(),
        Value::Float(f) => (*f).into(),
        Value::String(s) => s.as_ref().into(),
        Value::List(items) => items.iter().map(|item| to_json(item, order)).collect(),
        Value::Map(map) => {
            let mut object = serde_json::Map::new();
            if let Some(keys) = order.get(&(Arc::as_ptr(map) as usize)) {
                for key in keys {
                    if let Some(value) = map.get(key.as_str()) {
                        object.insert(key.clone(), to_json(value, order));
                    }
                }
            } else {
                for (key, value) in map.iter().filter(|(_, value)| !value.is_function()) {
                    object.insert(key.to_string(), to_json(value, order));
                }
            }
            object.into()
        }
        _ => serde_json::Value::Null,
    }
}

/// Names under which templates know fields that are written otherwise in JSON; the second kind only at the top.
const ALIASES: [(&str, &str); 2] = [("Id", "ID"), ("ApiVersion", "APIVersion")];
const TOP_ALIASES: [(&str, &str); 6] =
    [("id", "ID"), ("status", "Status"), ("from", "From"), ("scope", "Scope"), ("time", "Time"), ("timeNano", "TimeNano")];

/// JSON as template data; remembers the order of keys for the `json` function.
fn from_json(value: &serde_json::Value, depth: usize, order: &mut KeyOrder) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Int(n),
            (None, Some(n)) => Value::Uint(n),
            _ => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::String(Arc::from(s.as_str())),
        serde_json::Value::Array(items) => Value::List(items.iter().map(|item| from_json(item, depth + 1, order)).collect()),
        serde_json::Value::Object(object) => {
            let mut map: BTreeMap<Arc<str>, Value> =
                object.iter().map(|(key, value)| (Arc::from(key.as_str()), from_json(value, depth + 1, order))).collect();
            add_aliases(&mut map, depth);
            let map = Arc::new(map);
            order.insert(Arc::as_ptr(&map) as usize, object.keys().cloned().collect());
            Value::Map(map)
        }
    }
}

fn add_aliases(map: &mut BTreeMap<Arc<str>, Value>, depth: usize) {
    let aliases = ALIASES.iter().filter(|_| depth <= 1).chain(TOP_ALIASES.iter().filter(|_| depth == 0));
    for (written, known) in aliases {
        if !map.contains_key(*known)
            && let Some(value) = map.get(*written).cloned()
        {
            map.insert(Arc::from(*known), value);
        }
    }
}

/// Executes a template over one JSON value.
///
/// # Errors
/// A template that cannot be parsed, or a field that is not there.
pub fn execute_json(source: &str, value: &serde_json::Value) -> Result<String, Failure> {
    let mut order = KeyOrder::new();
    let data = from_json(value, 0, &mut order);
    let source = source.replace(r"\t", "\t").replace(r"\n", "\n");
    let source = if source == "json" { "{{json .}}".to_owned() } else { source };
    let template = compile(&source, Some(Arc::new(order)))
        .map_err(|err| Failure::exit_with(64, format!("template parsing error: {}", parse_error(&err))))?;
    template.execute_to_string(&data).map_err(|err| Failure::message(format!("template parsing error: {}", entry_error(&err, &source))))
}

fn place(source: &str, key: &str) -> (usize, usize) {
    let at = source.find(&format!(".{key}")).unwrap_or(0);
    let line = source[..at].matches('\n').count() + 1;
    let column = at - source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    (line, column)
}

/// The path around a field as Go quotes it: `<.State.Foo>`.
fn quoted_path(source: &str, key: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let Some(at) = source.find(&format!(".{key}")) else { return format!(".{key}") };
    let start = source[..at].rfind(|c| !word(c)).map_or(0, |i| i + 1);
    let end = source[at..].find(|c| !word(c)).map_or(source.len(), |i| at + i);
    source[start..end].to_owned()
}

fn field_error(err: &TemplateError, source: &str, type_name: &str) -> String {
    match err {
        TemplateError::MissingKey { key } => {
            let (line, column) = place(source, key);
            format!(
                "template: :{line}:{column}: executing \"\" at <{}>: can't evaluate field {key} in type *formatter.{type_name}",
                quoted_path(source, key)
            )
        }
        other => format!("template: {other}"),
    }
}

fn entry_error(err: &TemplateError, source: &str) -> String {
    match err {
        TemplateError::MissingKey { key } => {
            let (line, column) = place(source, key);
            format!("template: :{line}:{column}: executing \"\" at <{}>: map has no entry for key {key:?}", quoted_path(source, key))
        }
        other => format!("template: {other}"),
    }
}

fn parse_error(err: &TemplateError) -> String {
    match err {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => format!("template: :{line}: {message}"),
        other => format!("template: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: Columns = Columns {
        table: "table {{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
        headers: &[("ID", "THE ID"), ("Name", "NAME")],
        type_name: "thingContext",
    };

    fn rows() -> Vec<Row> {
        let labels = BTreeMap::from([("a.b".to_owned(), "c".to_owned())]);
        vec![Row::new().set("ID", "1").set("Name", "<x>").labels(&labels)]
    }

    fn rendered(source: &str) -> String {
        render(&Format { source: Some(source), quiet: false }, &COLUMNS, rows())
            .unwrap_or_else(|err| err.text().unwrap_or_default().to_owned())
    }

    #[test]
    fn formats_of_listings() {
        assert_eq!(rendered(r"table {{.Name}}\t{{.ID}}"), "NAME      THE ID\n<x>       1\n");
        assert_eq!(rendered("{{.ID}}-{{upper .Name}}"), "1-<X>\n");
        assert_eq!(rendered(r#"table {{.Label "a.b"}}"#), "b\nc\n");
        assert_eq!(rendered("json"), "{\"ID\":\"1\",\"Labels\":\"a.b=c\",\"Name\":\"\\u003cx\\u003e\"}\n");
    }

    #[test]
    fn unknown_fields_are_errors() {
        let want = "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.thingContext";
        assert_eq!(rendered("{{.Foo}}"), want);
        assert!(rendered("{{.ID").starts_with("failed to parse template: template: :1: unclosed action"));
    }

    #[test]
    fn templates_over_json() {
        let value = serde_json::json!({"State": {"Zeta": 1, "Alpha": [true, "<a>"]}});
        assert_eq!(execute_json("{{json .State}}", &value).expect("runs"), r#"{"Zeta":1,"Alpha":[true,"<a>"]}"#);
        assert_eq!(execute_json("{{.State.Zeta}} {{join .State.Alpha \",\"}}", &value).expect("runs"), "1 true,<a>");
        assert_eq!(execute_json("{{range .State.Alpha}}{{println .}}{{end}}", &value).expect("runs"), "true\n<a>\n");
        let missing = execute_json("{{.State.Foo}}", &value).expect_err("no such key");
        assert_eq!(
            missing.text(),
            Some("template parsing error: template: :1:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\"")
        );
    }
}
