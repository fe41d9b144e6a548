//! What a parsed command line says.

use super::check;

#[derive(Debug, Default, Clone)]
pub struct Matches {
    /// The command as typed, such as `container ls`.
    pub path: String,
    values: Vec<(&'static str, Vec<String>)>,
    pub args: Vec<String>,
}

impl Matches {
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    pub fn set(&mut self, name: &'static str, value: String, keep: bool) {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                if !keep {
                    values.clear();
                }
                values.push(value);
            }
            None => self.values.push((name, vec![value])),
        }
    }

    /// Whether the flag was given.
    pub fn changed(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| *known == name)
    }

    pub fn list(&self, name: &str) -> &[String] {
        self.values.iter().find(|(known, _)| *known == name).map_or(&[], |(_, values)| values)
    }

    pub fn list_owned(&self, name: &str) -> Vec<String> {
        self.list(name).to_vec()
    }

    pub fn str(&self, name: &str) -> Option<&str> {
        self.list(name).last().map(String::as_str)
    }

    /// The value, empty if not given.
    pub fn string(&self, name: &str) -> String {
        self.str(name).unwrap_or_default().to_owned()
    }

    pub fn bool(&self, name: &str) -> bool {
        self.bool_or(name, false)
    }

    pub fn bool_or(&self, name: &str, default: bool) -> bool {
        self.str(name).and_then(check::parse_bool).unwrap_or(default)
    }

    /// An integer; the parser has checked its form.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.str(name).and_then(|text| check::parse_int(text).ok())
    }

    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    /// A size in bytes.
    pub fn bytes(&self, name: &str) -> i64 {
        self.str(name).and_then(|text| check::parse_bytes(text).ok()).unwrap_or(0)
    }

    /// A duration in nanoseconds.
    pub fn duration(&self, name: &str) -> i64 {
        self.str(name).and_then(|text| check::parse_duration(text).ok()).unwrap_or(0)
    }

    /// The n-th positional argument; the parser has checked how many there are.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }
}
