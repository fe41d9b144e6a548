//! What a stdio string of a request means.

use std::path::PathBuf;

use shim_logger::LogUri;
use shim_ttrpc::{Code, Status};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Null,
    Fifo(PathBuf),
    /// Appended to, made if missing.
    File(PathBuf),
    /// Our own log format and attached clients.
    Log(LogUri),
    /// containerd's logging binary: the program and its arguments (`binary:///path?key=value` gives `key value`).
    Binary {
        program: PathBuf,
        args: Vec<String>,
    },
}

impl Target {
    /// # Errors
    /// `InvalidArgument` for a scheme or form that is not understood.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(if text.is_empty() { Self::Null } else { Self::Fifo(text.into()) });
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        match scheme {
            "rrun-log" => LogUri::parse(text).map(Self::Log).map_err(|err| invalid(err.to_string())),
            _ if !path.starts_with('/') => Err(invalid(format!("stdio {text:?}: the path must be absolute"))),
            "fifo" => Ok(Self::Fifo(path.into())),
            "file" => Ok(Self::File(path.into())),
            "binary" => Ok(Self::Binary { program: path.into(), args: arguments(query) }),
            _ => Err(invalid(format!("stdio {text:?}: unknown scheme {scheme:?}, expected fifo, file, binary or rrun-log"))),
        }
    }
}

fn invalid(message: String) -> Status {
    Status::new(Code::InvalidArgument, message)
}

fn arguments(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .flat_map(|pair| {
            pair.split_once('=').map_or(vec![pair], |(key, value)| if value.is_empty() { vec![key] } else { vec![key, value] })
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms() {
        assert_eq!(Target::parse(""), Ok(Target::Null));
        assert_eq!(Target::parse("/run/f"), Ok(Target::Fifo("/run/f".into())));
        assert_eq!(Target::parse("file:///tmp/x"), Ok(Target::File("/tmp/x".into())));
        let binary = Target::Binary { program: "/bin/l".into(), args: vec!["a".into(), "1".into(), "b".into()] };
        assert_eq!(Target::parse("binary:///bin/l?a=1&b"), Ok(binary));
        assert!(matches!(Target::parse("rrun-log:///x"), Ok(Target::Log(_))));
        for bad in ["npipe:///x", "file://x", "rrun-log:///x?y=z"] {
            assert_eq!(Target::parse(bad).expect_err(bad).code, Code::InvalidArgument);
        }
    }
}
