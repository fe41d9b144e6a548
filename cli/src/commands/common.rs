//! Pieces that several commands share.

use serde_json::{Map, Value};

use crate::cli::Cli;
use crate::cmdline::{Flag, Matches, string};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{self, Columns, Format, Row, Wanted};

const FORMAT_TABLE: &str = "Format the output:\n'table':            as a table with column headers (default)\n'table TEMPLATE':   as a table by the given Go template\n'json':             as JSON\n'TEMPLATE':         by the given Go template";
const FORMAT_JSON: &str = "Format the output:\n'json':             as JSON\n'TEMPLATE':         by the given Go template";

/// `--format` of listings.
pub const fn format_flag() -> Flag {
    string("format", "", FORMAT_TABLE)
}

/// `--format` where there is no table.
pub const fn json_format_flag(short: &'static str) -> Flag {
    string("format", short, FORMAT_JSON)
}

/// `--filter` values as the API wants them: `{"status":{"running":true}}`; empty if there are none.
pub fn filters(pairs: &[String]) -> String {
    let mut all: Map<String, Value> = Map::new();
    for (key, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
        let values = all.entry(key.trim().to_lowercase()).or_insert_with(|| Value::Object(Map::new()));
        if let Some(values) = values.as_object_mut() {
            values.insert(value.trim().to_owned(), Value::Bool(true));
        }
    }
    if all.is_empty() { String::new() } else { Value::Object(all).to_string() }
}

/// A platform (`os[/arch[/variant]]`) as the API wants it for images that are here; empty if none is given.
///
/// # Errors
/// For what is no platform.
pub fn platform(text: Option<&str>) -> Result<String, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(String::new()) };
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Failure::message(format!("invalid platform {text:?}: expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT")));
    }
    match parts[..] {
        [os, architecture] => Ok(serde_json::json!({"architecture": architecture, "os": os}).to_string()),
        [os, architecture, variant] => Ok(serde_json::json!({"architecture": architecture, "os": os, "variant": variant}).to_string()),
        _ => Err(Failure::message(format!("invalid platform {text:?}: expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT"))),
    }
}

/// Prints a listing in the format of the flags, or of the configuration's key.
///
/// # Errors
/// A template that cannot be used.
pub fn print_rows(cli: &Cli, matches: &Matches, config_key: &str, columns: &Columns, rows: Vec<Row>) -> Result<(), Failure> {
    print_rows_of(cli, matches, config_key, columns, |_| rows)
}

/// As [`print_rows`]; `rows` is told which fields are looked at.
///
/// # Errors
/// A template that cannot be used.
pub fn print_rows_of<Rows: IntoIterator<Item = Row>>(
    cli: &Cli,
    matches: &Matches,
    config_key: &str,
    columns: &Columns,
    rows: impl FnOnce(Wanted) -> Rows,
) -> Result<(), Failure> {
    let quiet = matches.bool("quiet");
    let given = matches.str("format").filter(|format| !format.is_empty());
    let configured = if quiet { None } else { cli.config().string(config_key) };
    let format = Format { source: given.or(configured), quiet };
    output::print(&template::render(&format, columns, rows(columns.wanted(&format)))?)
}

/// Does something for each argument; every failure is printed, the first exit status counts.
///
/// # Errors
/// A failure without a text if any of them failed.
pub async fn for_each<F>(args: &[String], mut each: F) -> Result<(), Failure>
where
    F: AsyncFnMut(&str) -> Result<Option<String>, Failure>,
{
    let mut code = None;
    for arg in args {
        match each(arg).await {
            Ok(Some(text)) => output::line(&text)?,
            Ok(None) => {}
            Err(failure) => {
                if let Some(text) = failure.text() {
                    eprintln!("{text}");
                }
                code.get_or_insert(failure.code());
            }
        }
    }
    code.map_or(Ok(()), |code| Err(Failure::silent(code)))
}

/// As [`for_each`], all at once; texts and failures come in the order of the arguments.
///
/// # Errors
/// A failure without a text if any of them failed.
pub async fn in_parallel<F>(args: &[String], each: F) -> Result<(), Failure>
where
    F: AsyncFn(&str) -> Result<Option<String>, Failure>,
{
    let mut results = futures_util::future::join_all(args.iter().map(|arg| each(arg))).await.into_iter();
    for_each(args, async |_| results.next().unwrap_or(Ok(None))).await
}

/// Asks on the terminal; anything but yes is no.
///
/// # Errors
/// When stdin or stdout fail.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    output::print(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// Order of names in which runs of digits count as numbers: `a2` before `a10`.
pub fn natural(one: &str, other: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (left, right) = (digits(a), digits(b));
                let number = |text: &[u8]| text.iter().skip_while(|byte| **byte == b'0').copied().collect::<Vec<u8>>();
                let (m, n) = (number(&a[..left]), number(&b[..right]));
                let order = m.len().cmp(&n.len()).then_with(|| m.cmp(&n));
                if order.is_ne() {
                    return order;
                }
                (a, b) = (&a[left..], &b[right..]);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (x, y) => return x.cmp(&y),
        }
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_grouped() {
        let pairs = ["status=running".to_owned(), "status=exited".to_owned(), "label=a=b".to_owned()];
        assert_eq!(filters(&pairs), r#"{"status":{"running":true,"exited":true},"label":{"a=b":true}}"#);
        assert_eq!(filters(&[]), "");
    }

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["a10", "a2", "b", "a", "a02x"];
        names.sort_by(|x, y| natural(x, y));
        assert_eq!(names, ["a", "a2", "a02x", "a10", "b"]);
    }
}
