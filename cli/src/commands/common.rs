//! Pieces that several commands share.

use serde_json::{Map, Value};

use crate::cli::Cli;
use crate::cmdline::{Flag, Matches, string};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{self, Columns, Format, Row};

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

/// Prints a listing in the format of the flags, or of the configuration's key.
///
/// # Errors
/// A template that cannot be used.
pub fn print_rows(cli: &Cli, matches: &Matches, config_key: &str, columns: &Columns, rows: Vec<Row>) -> Result<(), Failure> {
    let quiet = matches.bool("quiet");
    let given = matches.str("format").filter(|format| !format.is_empty());
    let configured = if quiet { None } else { cli.config().string(config_key) };
    let format = Format { source: given.or(configured), quiet };
    output::print(&template::render(&format, columns, rows)?)
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
