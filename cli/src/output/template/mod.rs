//! `--format`: `table`, `json`, `table TEMPLATE` or a Go template, over lines of named columns or over the engine's answers.

mod exec;
mod functions;
mod types;
mod value;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

use super::table;
use crate::failure::Failure;
use exec::{Missing, Piece, Template};
use types::Type;
pub use value::Value;
use value::{Map, Pointer};

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

impl Columns {
    /// The fields that a listing in that format may ask for.
    pub fn wanted(&self, format: &Format<'_>) -> Wanted {
        if !matches!(format.source, None | Some("table")) {
            return Wanted::ALL;
        }
        let (source, _) = resolve(format, self);
        let names = self.headers.iter().map(|(field, _)| *field).filter(|field| source.contains(&format!("{{{{.{field}}}}}")));
        Wanted(Some(names.collect()))
    }
}

/// Which fields of a row are looked at; `None`: who knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Option<Vec<&'static str>>);

impl Wanted {
    pub const ALL: Self = Self(None);

    fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(&name))
    }
}

/// One row: fields by name, each once.
#[derive(Clone, Default)]
pub struct Row(Vec<(&'static str, Value)>);

impl Row {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(self, name: &'static str, value: impl Into<String>) -> Self {
        self.set_value(name, Value::text(&value.into()))
    }

    pub fn set_value(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }

    /// As [`Self::set`], of a text that is made only where it is wanted: most of a listing's columns are not shown.
    pub fn set_if<T: Into<String>>(self, wanted: &Wanted, name: &'static str, value: impl FnOnce() -> T) -> Self {
        if wanted.has(name) { self.set(name, value()) } else { self }
    }

    /// As [`Self::labels`], where they are wanted.
    pub fn labels_if(self, wanted: &Wanted, labels: &BTreeMap<String, String>) -> Self {
        if wanted.has("Labels") || wanted.has("Label") { self.labels(labels) } else { self }
    }

    /// Writes a template that only puts fields one after the other; `false`, and nothing, where a field is none of the row's or no text.
    fn write(&self, pieces: &[Piece<'_>], out: &mut String) -> bool {
        let start = out.len();
        for piece in pieces {
            let text: &str = match piece {
                Piece::Text(text) => text,
                Piece::Field(name) => match self.0.iter().find(|(known, _)| known == name) {
                    Some((_, Value::Text(text))) => text,
                    _ => {
                        out.truncate(start);
                        return false;
                    }
                },
            };
            out.push_str(text);
        }
        true
    }

    fn into_value(self, columns: &Columns) -> Value {
        Value::Row(Rc::new(value::Row { type_name: columns.type_name, fields: self.0.into_iter().collect() }))
    }

    /// The `Label` and `Labels` fields.
    pub fn labels(self, labels: &BTreeMap<String, String>) -> Self {
        let joined: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let labels = labels.clone();
        let look_up = move |key: &str| labels.get(key).cloned().unwrap_or_default();
        self.set("Labels", joined.join(",")).set_value("Label", Value::Method(Rc::new(look_up)))
    }
}

/// The user's choice of format.
pub struct Format<'a> {
    /// `--format`, or the user's default from the configuration.
    pub source: Option<&'a str>,
    pub quiet: bool,
}

/// Renders rows in the chosen format, each when its turn comes.
///
/// # Errors
/// A template that cannot be parsed or names an unknown field.
pub fn render(format: &Format<'_>, columns: &Columns, rows: impl IntoIterator<Item = Row>) -> Result<String, Failure> {
    let (source, is_table) = resolve(format, columns);
    let refused = |why: String| Failure::message(format!("template parsing error: {why}"));
    let template = Template::parse("", &source).map_err(refused)?;
    let mut out = String::new();
    if is_table {
        header(&template, columns, &mut out);
        out.push('\n');
    }
    let pieces = template.pieces();
    for row in rows {
        // Tables are of this kind, and long.
        if !pieces.as_ref().is_some_and(|pieces| row.write(pieces, &mut out)) {
            template.execute(&row.into_value(columns), Missing::NoValue, &mut out).map_err(refused)?;
        }
        out.push('\n');
    }
    Ok(if is_table { table::align(&out) } else { out })
}

/// Tries a format, whatever its kind, on a row that tells nothing.
///
/// # Errors
/// A template that cannot be parsed or names an unknown field.
pub fn try_on(source: &str, columns: &Columns, row: Row) -> Result<(), Failure> {
    let template = Template::parse("", source).map_err(|why| Failure::message(format!("failed to parse template: {why}")))?;
    let done = template.execute(&row.into_value(columns), Missing::NoValue, &mut String::new());
    done.map_err(|why| Failure::message(format!("failed to execute template: {why}")))
}

fn resolve(format: &Format<'_>, columns: &Columns) -> (String, bool) {
    let (source, is_table) = match format.source.unwrap_or("table") {
        "table" if format.quiet => (columns.quiet, false),
        "table" => (columns.table, true),
        "json" => ("{{json .}}", false),
        text => match text.strip_prefix("table") {
            Some(rest) => (rest.trim_matches(' '), true),
            None => (text, false),
        },
    };
    (source.replace(r"\t", "\t").replace(r"\n", "\n"), is_table)
}

/// The title line: the template with titles in place of fields, which functions leave alone. What cannot be had of it is left out.
fn header(template: &Template, columns: &Columns, out: &mut String) {
    let label = |name: &str| name.rsplit('.').next().unwrap_or(name).replace('-', " ");
    let titles = columns.headers.iter().map(|(field, title)| (Rc::from(*field), Value::text(title)));
    let entries = titles.chain([(Rc::from("Label"), Value::Method(Rc::new(label)))]).collect();
    let titles = Value::Map(Rc::new(Map { entries: Some(entries), of: &Type::Text, ports: false }));
    drop(template.execute_header(&titles, out));
}

/// The kinds of answers that templates are run on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Container,
    Image,
    Network,
    /// By `inspect`, which has the engine's text, too.
    Volume,
    /// By `volume inspect`, which has not.
    VolumeAlone,
    Context,
    Info,
    Version,
    Event,
}

impl Subject {
    fn kind(self) -> &'static Type {
        static KINDS: [Type; 8] = [
            Type::Object("container.InspectResponse"),
            Type::Object("image.InspectResponse"),
            Type::Object("network.Inspect"),
            Type::Object("volume.Volume"),
            Type::Object("context.contextWithTLSListing"),
            Type::Object("system.dockerInfo"),
            Type::Object("system.versionInfo"),
            Type::Object("events.Message"),
        ];
        &KINDS[match self {
            Self::Container => 0,
            Self::Image => 1,
            Self::Network => 2,
            Self::Volume | Self::VolumeAlone => 3,
            Self::Context => 4,
            Self::Info => 5,
            Self::Version => 6,
            Self::Event => 7,
        }]
    }

    /// Whether a template that the known fields do not satisfy is tried on the answer as it came.
    fn has_text(self) -> bool {
        matches!(self, Self::Container | Self::Image | Self::Network | Self::Volume)
    }
}

/// A template for the engine's answers.
pub struct Answers(Template);

impl Answers {
    /// Parses `--format`.
    ///
    /// # Errors
    /// What is no template, with docker's exit status for it.
    pub fn parse(source: &str, subject: Subject) -> Result<Self, Failure> {
        let source = if source == "json" { "{{json .}}" } else { source };
        let name = if subject == Subject::Version { "version" } else { "" };
        let words = if subject == Subject::Event { "Error parsing format" } else { "template parsing error" };
        Template::parse(name, source).map(Self).map_err(|why| Failure::exit_with(64, format!("{words}: {why}")))
    }

    /// Runs it on one answer; `out` gets what was written before an error, too.
    ///
    /// # Errors
    /// A field that is not there.
    pub fn execute(&self, subject: Subject, answer: &Json, out: &mut String) -> Result<(), Failure> {
        let known = types::decode(subject.kind(), answer)
            .map_err(|why| Failure::message(format!("the daemon's answer is not understood: {why}")))?;
        let words = if matches!(subject, Subject::Info | Subject::Version | Subject::Event) { "" } else { "template parsing error: " };
        let start = out.len();
        let done = self.0.execute(&known, Missing::NoValue, out);
        let done = done.or_else(|why| {
            if !subject.has_text() {
                return Err(why);
            }
            out.truncate(start);
            self.0.execute(&types::raw(answer), Missing::Error, out)
        });
        done.map_err(|why| Failure::message(format!("{words}{why}")))
    }

    /// Runs it on an event that tells nothing, to see at once whether it fits events.
    ///
    /// # Errors
    /// A field that events do not have, with docker's exit status for it.
    pub fn fits_events(&self) -> Result<(), Failure> {
        let event = types::zero(Subject::Event.kind());
        let event = Value::Pointer(Rc::new(Pointer { to: Some(event), kind: Subject::Event.kind() }));
        let done = self.0.execute(&event, Missing::NoValue, &mut String::new());
        done.map_err(|why| Failure::exit_with(64, format!("Error parsing format: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: Columns = Columns {
        table: "table {{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
        headers: &[("ID", "THE ID"), ("Name", "NAME")],
        type_name: "formatter.thingContext",
    };

    fn rows() -> Vec<Row> {
        let labels = BTreeMap::from([("a.b".to_owned(), "c".to_owned())]);
        vec![Row::new().set("ID", "1").set("Name", "<x>").labels(&labels)]
    }

    fn rendered(source: &str) -> String {
        render(&Format { source: Some(source), quiet: false }, &COLUMNS, rows())
            .unwrap_or_else(|err| err.text().unwrap_or_default().to_owned())
    }

    fn inspected(source: &str, subject: Subject, answer: &Json) -> String {
        let mut out = String::new();
        let done = Answers::parse(source, subject).and_then(|template| template.execute(subject, answer, &mut out));
        done.map_or_else(|failure| failure.text().unwrap_or_default().to_owned(), |()| out)
    }

    #[test]
    fn formats_of_listings() {
        assert_eq!(rendered(r"table {{.Name}}\t{{.ID}}"), "NAME      THE ID\n<x>       1\n");
        assert_eq!(rendered("{{.ID}}-{{upper .Name}}"), "1-<X>\n");
        assert_eq!(rendered(r#"table {{.Label "a.b"}}"#), "b\nc\n");
        assert_eq!(rendered(r#"table {{upper .Name}}{{ .Label `a.b` | printf "%3s" }}"#), "NAME  b\n<X>  c\n");
        assert_eq!(rendered("json"), "{\"ID\":\"1\",\"Labels\":\"a.b=c\",\"Name\":\"\\u003cx\\u003e\"}\n");
        assert_eq!(rendered("{{json .Name}}"), "\"<x>\"\n");
    }

    #[test]
    fn only_what_a_table_shows_is_made() {
        let wanted = |source, quiet| COLUMNS.wanted(&Format { source, quiet });
        assert_eq!(wanted(None, true), Wanted(Some(vec!["ID"])));
        assert_eq!(wanted(Some("table"), false), Wanted(Some(vec!["ID", "Name"])));
        for source in ["json", "{{.}}", "table {{.ID}}", "{{range $k, $v := .}}{{end}}"] {
            assert_eq!(wanted(Some(source), false), Wanted::ALL, "{source}: it may ask for anything");
        }
        let made = std::cell::Cell::new(0);
        let make = || {
            made.set(made.get() + 1);
            "x"
        };
        let row = Row::new().set_if(&wanted(None, true), "ID", make).set_if(&wanted(None, true), "Name", make);
        assert_eq!((row.0.len(), made.get()), (1, 1));
    }

    #[test]
    fn what_only_puts_fields_in_a_row_is_written_as_the_template_would() {
        for (source, is_plain) in
            [("{{.ID}}\t{{ .Name }}|", true), ("plain", true), ("{{.Labels}}{{.ID}}", true), ("{{.Foo}}", true)].into_iter().chain([
                ("{{upper .Name}}", false),
                ("{{.Label `a.b`}}", false),
                ("{{.}}", false),
                ("{{.Name | upper}}", false),
                ("{{$x := .ID}}", false),
            ])
        {
            let template = Template::parse("", source).expect(source);
            let pieces = template.pieces();
            assert_eq!(pieces.is_some(), is_plain, "{source}");
            for row in rows() {
                let (mut written, mut executed) = (String::new(), String::new());
                let done = pieces.as_ref().is_some_and(|pieces| row.write(pieces, &mut written));
                let ran = template.execute(&row.into_value(&COLUMNS), Missing::NoValue, &mut executed);
                assert_eq!(done, is_plain && ran.is_ok(), "{source}: what the row lacks is the template's to tell");
                assert!(!done || written == executed, "{source}: {written} {executed}");
                assert!(done || written.is_empty(), "{source}: {written}");
            }
        }
    }

    #[test]
    fn unknown_fields_are_errors() {
        let want =
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.thingContext";
        assert_eq!(rendered("{{.Foo}}"), want);
        assert_eq!(rendered("{{.ID"), "template parsing error: template: :1: unclosed action");
        assert_eq!(rendered("{{foo}}"), "template parsing error: template: :1: function \"foo\" not defined");
    }

    #[test]
    fn fields_that_an_answer_leaves_out_are_there() {
        let answer = serde_json::json!({"Id": "1", "State": {"Status": "exited", "Pid": 0}, "Config": {"Labels": {"a": "<b>"}}});
        for (source, wanted) in [
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
            ("{{json .State.Health}} {{.State.Health}} {{.State.OOMKilled}} {{.ID}}", "null <nil> false 1"),
            ("{{.Config.Healthcheck}} {{.Config.StopTimeout}} {{.HostConfig}} {{.Config.Shell}}", "<nil> <nil> <nil> []"),
            ("{{.Mounts}} {{.Config.ExposedPorts}} {{json .Mounts}} {{len .Mounts}}", "[] map[] null 0"),
            ("{{.Config.Labels.a}} {{.Config.Labels.none}} {{index .Config.Labels `none`}}|", "<b> <no value> |"),
            ("{{json .Config.Labels}}{{range $k, $v := .Config.Labels}} {{$k}}={{$v}}{{end}}", r#"{"a":"<b>"} a=<b>"#),
            ("{{with .State}}{{.Pid}}{{end}}{{if eq .State.Pid 0}} none{{end}}", "0 none"),
            (".Name {{.Name}}{{/* nothing */ -}}   |", ".Name |"),
            ("{{.ContainerJSONBase.ID}} {{join .Config.Env `,`}}{{printf `%05d|%-3s|` .State.Pid .ID}}", "1 00000|1  |"),
        ] {
            assert_eq!(inspected(source, Subject::Container, &answer), wanted, "{source}");
        }
    }

    #[test]
    fn what_no_field_is_named_after_is_looked_for_in_the_answer() {
        let answer = serde_json::json!({"Id": "1", "State": {"New": {"b": 1, "a": 1.50}}});
        assert_eq!(inspected("{{json .State.New}} {{.Id}}", Subject::Container, &answer), r#"{"a":1.5,"b":1} 1"#);
        let error = |source| inspected(source, Subject::Container, &answer);
        let wanted = "template parsing error: template: :1:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\"";
        assert_eq!(error("{{.State.Foo}}"), wanted);
        let wanted = "template parsing error: template: :2:6: executing \"\" at <.Id.Foo>: can't evaluate field Foo in type interface {}";
        assert_eq!(error("x\n {{.Id.Foo}}"), wanted);
        let wanted = "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type volume.Volume";
        assert_eq!(inspected("{{.Foo}}", Subject::VolumeAlone, &answer), wanted);
    }

    #[test]
    fn every_kind_of_answer_is_known() {
        let kinds = [Subject::Container, Subject::Image, Subject::Network, Subject::Volume, Subject::Context, Subject::Info];
        for subject in kinds.into_iter().chain([Subject::Version, Subject::Event]) {
            assert!(inspected("{{json .}}", subject, &serde_json::json!({})).starts_with('{'));
        }
    }
}
