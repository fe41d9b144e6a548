//! containerd's filters: `field`, `field==value`, `field!=value`, joined by commas; several filters are alternatives.
//! Fields are paths such as `name`, `target.digest`, `labels."a.b"`. Regular expressions (`~=`) are refused, not ignored.

use rcontainerd_types::{Error, Result};

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
}

#[derive(Debug, PartialEq, Eq)]
struct Condition {
    field: Vec<String>,
    test: Test,
}

/// Parsed filters; empty ones let everything pass.
pub(crate) struct Filters(Vec<Vec<Condition>>);

impl Filters {
    /// # Errors
    /// `InvalidArgument` for what is malformed, `Unsupported` for `~=`.
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
                Test::NotEqual(wanted) => value.as_ref() != Some(wanted),
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
        let (operator, after) = match after.get(..2) {
            Some("==") => (Some(true), &after[2..]),
            Some("!=") => (Some(false), &after[2..]),
            Some("~=") => return Err(Error::unsupported(format!("filter {filter:?}: regular expressions are not supported"))),
            _ => (None, after),
        };
        let (test, after) = match operator {
            None => (Test::Present, after),
            Some(equal) => {
                let (value, after) = word(after).ok_or_else(|| bad("a quoted value has no end"))?;
                (if equal { Test::Equal(value) } else { Test::NotEqual(value) }, after)
            }
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
            true => word(rest)?,
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

/// A value: quoted, or up to the next comma.
fn word(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return Some((text[..end].trim_end().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
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
            (&["name==other", "name"], true),
            (&["name==busybox,labels.\"a.b\""], true),
            (&["name==busybox, nothing"], false),
            (&[r#"labels."a.b"=="x, \"y\"""#], true),
        ] {
            assert_eq!(passes(filters).expect("filter"), expected, "{filters:?}");
        }
        for bad in ["==x", "name==\"x", "name~=b.*", "name x"] {
            assert!(passes(&[bad]).is_err(), "{bad} should be refused");
        }
    }
}
