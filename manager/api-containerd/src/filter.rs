//! containerd's filters: `field`, `field==value`, `field!=value`, `field~=regular expression`, joined by commas; several filters are
//! alternatives. Fields are paths such as `name`, `target.digest`, `labels."a.b"`.

use rcontainerd_types::{Error, Result};
use regex::{Regex, RegexBuilder};

/// Compiled size of a client's expression, in bytes.
const REGEX_MAX: usize = 1 << 20;

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Match(Regex),
}

#[derive(Debug)]
struct Condition {
    field: Vec<String>,
    test: Test,
}

/// Parsed filters; empty ones let everything pass.
pub(crate) struct Filters(Vec<Vec<Condition>>);

impl Filters {
    /// # Errors
    /// `InvalidArgument` for what is malformed.
    pub(crate) fn parse(filters: &[String]) -> Result<Self> {
        let given = filters.iter().filter(|filter| !filter.trim().is_empty());
        given.map(|filter| conditions(filter)).collect::<Result<_>>().map(Self)
    }

    /// `field` gives the value of a path, `None` where there is none.
    pub(crate) fn pass(&self, field: impl Fn(&[&str]) -> Option<String>) -> bool {
        let holds = |condition: &Condition| {
            let path: Vec<&str> = condition.field.iter().map(String::as_str).collect();
            let value = field(&path);
            match &condition.test {
                Test::Present => value.is_some_and(|value| !value.is_empty()),
                Test::Equal(wanted) => value.as_ref() == Some(wanted),
                // What is not there is as good as empty.
                Test::NotEqual(wanted) => value.as_deref().unwrap_or_default() != wanted,
                Test::Match(regex) => value.is_some_and(|value| regex.is_match(&value)),
            }
        };
        self.0.is_empty() || self.0.iter().any(|conditions| conditions.iter().all(holds))
    }
}

fn conditions(filter: &str) -> Result<Vec<Condition>> {
    let bad = |why: &str| Error::invalid(format!("filter {filter:?}: {why}"));
    let mut conditions = Vec::new();
    let mut rest = filter.trim();
    loop {
        let (field, after) = path(rest).ok_or_else(|| bad("expected a field"))?;
        let value = |quotes| word(&after[2..], quotes).ok_or_else(|| bad("a quoted value has no end"));
        let (test, after) = match after.get(..2) {
            Some("==") => value(QUOTES).map(|(value, rest)| (Test::Equal(value), rest))?,
            Some("!=") => value(QUOTES).map(|(value, rest)| (Test::NotEqual(value), rest))?,
            Some("~=") => {
                let (value, rest) = value(REGEX_QUOTES)?;
                let regex = RegexBuilder::new(&value).size_limit(REGEX_MAX).build();
                (Test::Match(regex.map_err(|err| bad(&err.to_string().replace('\n', " ")))?), rest)
            }
            _ => (Test::Present, after),
        };
        conditions.push(Condition { field, test });
        match after.trim_start().strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if after.trim().is_empty() => return Ok(conditions),
            None => return Err(bad("expected ',' between conditions")),
        }
    }
}

/// A dotted path whose parts may be quoted.
fn path(text: &str) -> Option<(Vec<String>, &str)> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.starts_with('"') {
            true => word(rest, QUOTES)?,
            false => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-' && c != '/').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None => return Some((parts, after)),
        }
    }
}

const QUOTES: &[char] = &['"'];
/// An expression may be put between these too, which spares it most backslashes.
const REGEX_QUOTES: &[char] = &['"', '/', '|'];

/// A value: quoted, or up to the next comma.
fn word<'a>(text: &'a str, quotes: &[char]) -> Option<(String, &'a str)> {
    let quote = text.chars().next().filter(|first| quotes.contains(first));
    let Some((quote, quoted)) = quote.and_then(|quote| Some((quote, text.strip_prefix(quote)?))) else {
        let end = text.find(',').unwrap_or(text.len());
        return Some((text[..end].trim_end().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            end if end == quote => return Some((value, &quoted[at + 1..])),
            '\\' => match characters.next()?.1 {
                // Between its own quotes an expression keeps its backslashes.
                other if quote != '"' && other != quote => value.extend(['\\', other]),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// The value at `labels.key`, for objects that have labels.
pub(crate) fn label(labels: &std::collections::BTreeMap<String, String>, path: &[&str]) -> Option<String> {
    match path {
        ["labels", rest @ ..] if !rest.is_empty() => labels.get(&rest.join(".")).cloned(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filters: &[&str]) -> Result<bool> {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        let labels = [("a.b".to_owned(), "x, \"y\"".to_owned())].into();
        Ok(Filters::parse(&filters)?.pass(|path| match path {
            ["name"] => Some("busybox".into()),
            path => label(&labels, path),
        }))
    }

    #[test]
    fn conditions_are_joined_filters_are_alternatives() {
        for (filters, expected) in [
            (&[][..], true),
            (&["name==busybox"][..], true),
            (&["name==other"], false),
            (&["name!=other"], true),
            (&["nothing!=\"\""], false),
            (&["nothing!=x"], true),
            (&["name==other", "name"], true),
            (&["name==busybox,labels.\"a.b\""], true),
            (&["name==busybox, nothing"], false),
            (&[r#"labels."a.b"=="x, \"y\"""#], true),
            (&["name~=^busy.*$"], true),
            (&["name~=^box"], false),
            (&[r#"name~=/^\w+$/, labels."a.b"~=|x, |"#], true),
        ] {
            assert_eq!(passes(filters).expect("filter"), expected, "{filters:?}");
        }
        for bad in ["==x", "name==\"x", "name~=(", "name~=/x", "name x"] {
            assert!(passes(&[bad]).is_err(), "{bad} should be refused");
        }
    }
}
