//! `--security-opt`: a profile is read here, as the engine may be on another host.

use crate::failure::Failure;

/// What the options ask for; the two lists are empty ones if system paths are to be unmasked.
#[derive(Debug, Default)]
pub struct Security {
    pub options: Vec<String>,
    pub unmask: bool,
}

/// # Errors
/// A malformed option or a profile that cannot be read.
pub fn parse(flags: &[String]) -> Result<Security, Failure> {
    let mut security = Security::default();
    for flag in flags {
        if flag == "systempaths=unconfined" {
            security.unmask = true;
            continue;
        }
        security.options.push(option(flag)?);
    }
    Ok(security)
}

fn option(flag: &str) -> Result<String, Failure> {
    let pair = flag.split_once('=').or_else(|| flag.split_once(':'));
    match pair {
        None if flag == "no-new-privileges" => Ok(flag.to_owned()),
        None => Err(Failure::message(format!("Invalid --security-opt: {flag:?}"))),
        Some(("seccomp", profile)) if !matches!(profile, "unconfined" | "builtin") => {
            let text = std::fs::read_to_string(profile)
                .map_err(|err| Failure::message(format!("opening seccomp profile ({profile}) failed: {err}")))?;
            let value: serde_json::Value = serde_json::from_str(&text)
                .map_err(|err| Failure::message(format!("compacting json for seccomp profile ({profile}) failed: {err}")))?;
            Ok(format!("seccomp={value}"))
        }
        Some(_) => Ok(flag.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let flags = [
            "systempaths=unconfined".to_owned(),
            "no-new-privileges".to_owned(),
            "label=disable".to_owned(),
            "seccomp=unconfined".to_owned(),
        ];
        let security = parse(&flags).expect("parses");
        assert!(security.unmask);
        assert_eq!(security.options, ["no-new-privileges", "label=disable", "seccomp=unconfined"]);
        assert_eq!(parse(&["foo".into()]).expect_err("no option").text(), Some("Invalid --security-opt: \"foo\""));
    }
}
