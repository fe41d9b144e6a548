//! `--log-driver`, `--log-opt`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, Result, id};
use regex::Regex;
use shim_logger::{Driver, LogUri};

use super::super::config::LogConfig;
use super::super::model::Container;

/// Of a tag.
const FIELDS: [&str; 7] = ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName"];

/// How a container's output is kept.
#[derive(Clone, Debug)]
pub struct LogPlan {
    driver: Driver,
    max_size: Option<u64>,
    max_file: Option<u32>,
    attributes: Attributes,
}

/// What of the container each record is to carry.
#[derive(Clone, Debug, Default)]
struct Attributes {
    labels: Wanted,
    variables: Wanted,
    /// As it was given, with placeholders.
    tag: String,
}

/// Names by a list, by a pattern, or both.
#[derive(Clone, Debug, Default)]
struct Wanted {
    names: Vec<String>,
    pattern: Option<Regex>,
}

impl Wanted {
    fn list(&mut self, value: &str) {
        self.names = value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }

    fn choose<'a>(&self, all: impl Iterator<Item = (&'a str, &'a str)>, into: &mut BTreeMap<String, String>) {
        let wanted =
            |name: &str| self.names.iter().any(|wanted| wanted == name) || self.pattern.as_ref().is_some_and(|regex| regex.is_match(name));
        into.extend(all.filter(|(name, _)| wanted(name)).map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

impl Attributes {
    fn of(&self, container: &Container) -> Result<BTreeMap<String, String>> {
        let mut chosen = BTreeMap::new();
        self.labels.choose(container.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())), &mut chosen);
        self.variables.choose(container.config.env.iter().filter_map(|pair| pair.split_once('=')), &mut chosen);
        if !self.tag.is_empty() {
            let (image, name) = (container.image_id.trim_start_matches("sha256:"), container.config.image.as_str());
            // In the order of `FIELDS`.
            let values =
                [id::short(&container.id), &container.id, &container.name, id::short(image), &container.image_id, name, "docker"];
            chosen.insert("tag".to_owned(), fill(&self.tag, values)?);
        }
        Ok(chosen)
    }
}

/// `{{.Name}}` by the value in the place of `FIELDS`' name; of Docker's templates, fields are all that a tag can have.
fn fill(template: &str, values: [&str; FIELDS.len()]) -> Result<String> {
    let known = |field: &str| FIELDS.iter().position(|name| *name == field).map(|place| values[place]);
    let refused = |what: &str| {
        Error::invalid(format!(
            "invalid value {template:?} for log opt 'tag': {what:?} is none of the fields {}",
            FIELDS.map(|field| format!(".{field}")).join(", ")
        ))
    };
    let (mut out, mut rest) = (String::new(), template);
    while let Some((text, opened)) = rest.split_once("{{") {
        let (inner, after) = opened.split_once("}}").ok_or_else(|| refused(opened))?;
        let value = inner.trim().strip_prefix('.').and_then(known).ok_or_else(|| refused(inner))?;
        out.push_str(text);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

impl LogPlan {
    /// # Errors
    /// `InvalidArgument` in Docker's words for an unknown driver or option.
    pub fn parse(config: &LogConfig) -> Result<Self> {
        let driver = match config.driver.as_str() {
            "" | "json-file" => Driver::JsonFile,
            "none" => Driver::None,
            other => return Err(Error::invalid(format!("logger: no log driver named '{other}' is registered"))),
        };
        let mut plan = Self { driver, max_size: None, max_file: None, attributes: Attributes::default() };
        for (key, value) in &config.options {
            let invalid = || Error::invalid(format!("invalid value {value:?} for log opt '{key}'"));
            match key.as_str() {
                "max-size" => plan.max_size = Some(parse_size(value).ok_or_else(invalid)?),
                "max-file" => plan.max_file = Some(value.parse().ok().filter(|count| *count > 0).ok_or_else(invalid)?),
                "labels" => plan.attributes.labels.list(value),
                "labels-regex" => plan.attributes.labels.pattern = Some(Regex::new(value).map_err(|_| invalid())?),
                "env" => plan.attributes.variables.list(value),
                "env-regex" => plan.attributes.variables.pattern = Some(Regex::new(value).map_err(|_| invalid())?),
                "tag" => {
                    fill(value, [""; FIELDS.len()])?;
                    plan.attributes.tag.clone_from(value);
                }
                _ => return Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver"))),
            }
        }
        Ok(plan)
    }

    pub fn keeps(&self) -> bool {
        self.driver == Driver::JsonFile
    }

    /// # Errors
    /// `InvalidArgument` for a tag that cannot be filled.
    pub fn uri(&self, container: &Container, path: &Path, attach: PathBuf) -> Result<LogUri> {
        let mut uri = LogUri::json_file(path, Some(attach));
        uri.driver = self.driver;
        uri.max_size = self.max_size.unwrap_or(uri.max_size);
        uri.max_file = self.max_file.unwrap_or(uri.max_file);
        let attributes = self.attributes.of(container)?;
        if !attributes.is_empty() {
            uri.attributes =
                serde_json::to_string(&attributes).map_err(|err| Error::internal(format!("write the log's attributes: {err}")))?;
        }
        Ok(uri)
    }
}

/// `10m`, `512k`, `1g`, bytes; `-1`: no limit.
fn parse_size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, shift) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(number) => (
            number,
            match lower.as_bytes().last() {
                Some(b'k') => 10,
                Some(b'm') => 20,
                _ => 30,
            },
        ),
        None => (lower, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
