//! Single instructions of a Dockerfile that change an image's configuration: `commit --change`, `import --change`.

use rcontainerd_types::{Error, Result};

use super::config::{Empty, Healthcheck, ImageConfig};

/// Applies them in order.
///
/// # Errors
/// `InvalidArgument` naming the instruction.
pub fn apply(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    let mut command_set = false;
    for change in changes.iter().flat_map(|change| change.lines()).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
        let word = word.to_ascii_uppercase();
        one(config, &word, rest.trim(), command_set).map_err(|err| err.context(format!("change {change:?}")))?;
        command_set |= word == "CMD";
    }
    Ok(())
}

fn one(config: &mut ImageConfig, word: &str, rest: &str, command_set: bool) -> Result<()> {
    let needs = || Error::invalid(format!("{word} requires at least one argument"));
    if rest.is_empty() && !matches!(word, "CMD" | "ENTRYPOINT") {
        return Err(needs());
    }
    match word {
        "CMD" => config.cmd = command(config, rest),
        "ENTRYPOINT" => {
            config.entrypoint = command(config, rest);
            if !command_set {
                config.cmd.clear();
            }
        }
        "ENV" => {
            for (name, value) in pairs(rest)? {
                config.env.retain(|entry| entry.split('=').next() != Some(&name));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                let (number, protocol) = crate::containers::resolve::parse_port(&port)?;
                config.exposed_ports.insert(format!("{number}/{protocol}"), Empty {});
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).map_or_else(|| words(rest), Ok)?;
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" if rest.starts_with('/') => rest.clone_into(&mut config.working_dir),
        "WORKDIR" => config.working_dir = format!("{}/{rest}", config.working_dir.trim_end_matches('/')),
        "STOPSIGNAL" => {
            crate::signal::parse(rest)?;
            rest.clone_into(&mut config.stop_signal);
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(health(rest)?),
        other => return Err(Error::invalid(format!("{other} is not a valid change command"))),
    }
    Ok(())
}

/// `["a", "b"]` as it is; anything else is a line for the shell.
fn command(config: &ImageConfig, rest: &str) -> Vec<String> {
    if let Some(words) = json_words(rest) {
        return words;
    }
    if rest.is_empty() {
        return Vec::new();
    }
    let shell = if config.shell.is_empty() { ["/bin/sh", "-c"].map(str::to_owned).to_vec() } else { config.shell.clone() };
    shell.into_iter().chain([rest.to_owned()]).collect()
}

fn json_words(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
}

/// `a=1 b="2 3"`, or the older `a 1 2`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>> {
    let words = words(rest)?;
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or_else(|| Error::invalid(format!("{first} has no value")))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').ok_or_else(|| Error::invalid(format!("Syntax error - can't find = in {word:?}")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// Words as a shell splits them, without expansion.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// `NONE`, or `[--interval=D …] CMD …`.
fn health(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, tail) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (key, value) = option.split_once('=').ok_or_else(|| Error::invalid(format!("--{option} has no value")))?;
        let duration = || {
            let parsed: jiff::SignedDuration =
                value.parse().map_err(|_| Error::invalid(format!("--{key}={value}: not a duration such as 5s")))?;
            i64::try_from(parsed.as_nanos()).map_err(|_| Error::invalid(format!("--{key}={value} is too long")))
        };
        match key {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => check.retries = value.parse().map_err(|_| Error::invalid(format!("--retries={value} is no number")))?,
            _ => return Err(Error::invalid(format!("unknown option --{key} of HEALTHCHECK"))),
        }
        rest = tail.trim_start();
    }
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" => vec!["NONE".to_owned()],
        "CMD" => match json_words(line.trim()) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), line.trim().to_owned()],
        },
        other => return Err(Error::invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    };
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ImageConfig> {
        let mut config = ImageConfig { cmd: vec!["old".into()], env: vec!["A=0".into()], ..ImageConfig::default() };
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        apply(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn every_instruction() {
        let config = changed(&[
            "ENV A=1 B=\"two words\"",
            "ENV C three words",
            "label a=b",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\", \"/more\"]",
            "USER 1000:1000",
            "WORKDIR /srv",
            "WORKDIR sub",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "ENTRYPOINT [\"/e\", \"x\"]",
            "CMD echo hi",
            "HEALTHCHECK --interval=5s --retries=2 CMD test -e /ok",
        ])
        .expect("changes");
        assert_eq!(config.env, ["A=1", "B=two words", "C=three words"]);
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str(), config.stop_signal.as_str()), ("1000:1000", "/srv/sub", "SIGINT"));
        assert_eq!((config.entrypoint.join(" "), config.cmd.join(" ")), ("/e x".into(), "/bin/sh -c echo hi".into()));
        let check = config.healthcheck.expect("a check");
        assert_eq!((check.interval, check.retries, check.test.join(" ")), (5_000_000_000, 2, "CMD-SHELL test -e /ok".into()));
        assert_eq!(config.on_build, ["RUN x"]);
    }

    #[test]
    fn an_entrypoint_drops_the_command_before_it() {
        assert!(changed(&["ENTRYPOINT [\"/e\"]"]).expect("changes").cmd.is_empty());
    }

    #[test]
    fn what_changes_no_configuration_is_refused() {
        for bad in ["RUN x", "FROM x", "ENV", "ENV A=\"open", "HEALTHCHECK MAYBE", "EXPOSE x", "STOPSIGNAL SIGX"] {
            assert!(changed(&[bad]).is_err(), "{bad}");
        }
        assert!(changed(&["RUN x"]).expect_err("refused").message().ends_with("RUN is not a valid change command"));
    }
}
