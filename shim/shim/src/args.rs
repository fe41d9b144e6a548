//! The command line that containerd gives every shim: Go's flag style (`-id x`, `--id x`, `-id=x`), then an action.

use std::path::PathBuf;

use anyhow::{Result, bail};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve the task API on the listener that `start` passed on as standard input, or on `-socket`.
    #[default]
    Serve,
    Start,
    Delete,
    /// Sleep until SIGTERM or SIGINT: what a sandbox without a program runs.
    Pause,
    Version,
    Info,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    /// The manager's gRPC socket.
    pub address: String,
    pub publish_binary: String,
    /// Only given to `delete`; the working directory otherwise.
    pub bundle: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub debug: bool,
}

/// # Errors
/// One line for an unknown flag or action, or a missing value.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args> {
    let mut args = Args::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            args.action = action(&word)?;
            continue;
        };
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if let Some(switch) = args.switch(name) {
            switch(&mut args, inline.as_deref() != Some("false"));
            continue;
        }
        let Some(value) = inline.or_else(|| words.next()) else { bail!("flag -{name} needs a value") };
        args.set(name, value)?;
    }
    args.validate()
}

fn action(word: &str) -> Result<Action> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        "pause" => Ok(Action::Pause),
        _ => bail!("unknown action {word:?}: expected start or delete (or none, to serve)"),
    }
}

impl Args {
    fn switch(&self, name: &str) -> Option<fn(&mut Self, bool)> {
        match name {
            "debug" => Some(|args, on| args.debug = on),
            "v" | "version" => Some(|args, on| args.action = if on { Action::Version } else { args.action }),
            "info" => Some(|args, on| args.action = if on { Action::Info } else { args.action }),
            _ => None,
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "publish-binary" => self.publish_binary = value,
            "bundle" => self.bundle = Some(value.into()),
            "socket" => self.socket = Some(value.into()),
            _ => bail!("unknown flag -{name}"),
        }
        Ok(())
    }

    fn validate(self) -> Result<Self> {
        if !matches!(self.action, Action::Version | Action::Info | Action::Pause) {
            identifier("namespace", &self.namespace)?;
            identifier("id", &self.id)?;
        }
        Ok(self)
    }
}

/// Names become file names: containerd's identifier rule, checked here too since we run as root.
///
/// # Errors
/// When `value` could be anything but one path component.
pub fn identifier(what: &str, value: &str) -> Result<()> {
    let well_formed = !value.is_empty()
        && value.len() <= 255
        && !value.starts_with('.')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if well_formed { Ok(()) } else { bail!("{what} {value:?} is invalid: expected letters, digits, '.', '_', '-'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Args> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerds_start_line() {
        let args = words("-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id abc -debug start").expect("valid");
        assert_eq!(args.action, Action::Start);
        assert_eq!((args.namespace.as_str(), args.id.as_str(), args.debug), ("k8s.io", "abc", true));
        assert_eq!(words("--namespace=a -id=b").expect("valid").action, Action::Serve);
        assert_eq!(words("-v").expect("valid").action, Action::Version);
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in
            ["-namespace a", "-namespace a -id ../x", "-namespace a -id b stop", "-colour red", "-namespace a -id", "-namespace . -id b"]
        {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
