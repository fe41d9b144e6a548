//! What of a container each record of its log carries: labels, variables, and a tag.

use std::collections::BTreeMap;

use rcontainerd_types::{Error, Result, id};
use regex::Regex;

use super::super::super::model::Container;

/// Of a tag.
const FIELDS: [&str; 7] = ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName"];

/// What of the container each record is to carry.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub labels: Wanted,
    pub variables: Wanted,
    /// As it was given, with placeholders.
    tag: String,
}

/// Names by a list, by a pattern, or both.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    names: Vec<String>,
    pub pattern: Option<Regex>,
}

impl Wanted {
    pub fn list(&mut self, value: &str) {
        self.names = value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }

    fn choose<'a>(&self, all: impl Iterator<Item = (&'a str, &'a str)>, into: &mut BTreeMap<String, String>) {
        let wanted =
            |name: &str| self.names.iter().any(|wanted| wanted == name) || self.pattern.as_ref().is_some_and(|regex| regex.is_match(name));
        into.extend(all.filter(|(name, _)| wanted(name)).map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

impl Attributes {
    /// # Errors
    /// `InvalidArgument` for a field that there is not.
    pub fn set_tag(&mut self, template: &str) -> Result<()> {
        fill(template, [""; FIELDS.len()])?;
        template.clone_into(&mut self.tag);
        Ok(())
    }

    /// Labels and variables.
    pub fn chosen(&self, container: &Container) -> BTreeMap<String, String> {
        let mut chosen = BTreeMap::new();
        self.labels.choose(container.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())), &mut chosen);
        self.variables.choose(container.config.env.iter().filter_map(|pair| pair.split_once('=')), &mut chosen);
        chosen
    }

    /// The container's, if one was asked for.
    ///
    /// # Errors
    /// `InvalidArgument` for a field that there is not.
    pub fn tag(&self, container: &Container) -> Result<Option<String>> {
        if self.tag.is_empty() {
            return Ok(None);
        }
        let (image, name) = (container.image_id.trim_start_matches("sha256:"), container.config.image.as_str());
        // In the order of `FIELDS`.
        let values = [id::short(&container.id), &container.id, &container.name, id::short(image), &container.image_id, name, "docker"];
        fill(&self.tag, values).map(Some)
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
