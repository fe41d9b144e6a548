//! `completion SHELL`, and `__complete`, which the scripts call with the words typed so far.

use serde_json::Value;

use crate::cli::Cli;
use crate::cmdline::{Args, Body, Command, Entry, Flag, Kind, Matches, Outcome, Section, entry, group, leaf};
use crate::output;

const BASH: &str = r#"# bash completion for rdocker; load it by: source <(rdocker completion bash)
_rdocker() {
    local reply before
    local -a words
    read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]] && words+=("")
    # bash breaks words at colons: what stands before the last one is not to be repeated.
    before=${words[-1]%"${words[-1]##*:}"}
    COMPREPLY=()
    while IFS=$'\t' read -r reply _; do
        COMPREPLY+=("${reply#"$before"}")
    done < <(rdocker __complete "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _rdocker rdocker
"#;

const ZSH: &str = r#"#compdef rdocker
# zsh completion for rdocker; put it as _rdocker into a directory of $fpath
_rdocker() {
    local line
    local -a names texts
    for line in "${(@f)$(rdocker __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -n $line ]] || continue
        names+=("${line%%$'\t'*}")
        texts+=("${line/$'\t'/  -- }")
    done
    if (( $#names )); then compadd -l -d texts -a names; else _files; fi
}
compdef _rdocker rdocker
"#;

const FISH: &str = r#"# fish completion for rdocker; load it by: rdocker completion fish | source
complete -c rdocker -a '(rdocker __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"#;

static BASH_COMMAND: Command =
    Command { about: "Generate the autocompletion script for bash", ..leaf(|_, _| Box::pin(async { output::print(BASH) })) };
static ZSH_COMMAND: Command =
    Command { about: "Generate the autocompletion script for zsh", ..leaf(|_, _| Box::pin(async { output::print(ZSH) })) };
static FISH_COMMAND: Command =
    Command { about: "Generate the autocompletion script for fish", ..leaf(|_, _| Box::pin(async { output::print(FISH) })) };

static ENTRIES: &[Entry] = &[entry("bash", &BASH_COMMAND), entry("fish", &FISH_COMMAND), entry("zsh", &ZSH_COMMAND)];

pub static COMMAND: Command =
    group("Generate the autocompletion script for the specified shell", &[Section { title: "Commands", entries: ENTRIES }]);

pub static COMPLETE: Command = Command {
    usage: "WORD...",
    about: "Complete the last of the words",
    args: Args::Any,
    interspersed: false,
    ..leaf(|cli, matches| Box::pin(complete(cli, matches)))
};

async fn complete(cli: &Cli, matches: &Matches) -> Outcome {
    let Some((last, before)) = matches.args.split_last() else { return Ok(()) };
    let place = Place::find(before);
    let mut found = place.of_the_line(last);
    if found.is_empty() && !last.starts_with('-') && !place.wants_value {
        found = objects(cli, place.command).await;
    }
    found.retain(|(name, _)| name.starts_with(last.as_str()));
    let lines = found.iter().map(|(name, about)| if about.is_empty() { format!("{name}\n") } else { format!("{name}\t{about}\n") });
    output::print(&lines.collect::<String>())
}

/// Where in the tree of commands the words lead to.
struct Place {
    command: &'static Command,
    /// The word before is a flag that takes the next one.
    wants_value: bool,
    /// An argument was given: what follows is no subcommand.
    arguments: usize,
}

impl Place {
    fn find(words: &[String]) -> Self {
        let mut place = Self { command: &super::ROOT, wants_value: false, arguments: 0 };
        for word in words {
            if std::mem::take(&mut place.wants_value) {
                continue;
            }
            match place.command.find(word) {
                _ if word.starts_with('-') => place.wants_value = place.takes_next(word),
                Some(entry) if place.arguments == 0 => place.command = entry.command,
                _ => place.arguments += 1,
            }
        }
        place
    }

    fn takes_next(&self, word: &str) -> bool {
        let named = |flag: &&Flag| match word.strip_prefix("--") {
            Some(long) => flag.name == long,
            None => !flag.short.is_empty() && word.ends_with(flag.short),
        };
        !word.contains('=') && self.command.all_flags().find(named).is_some_and(|flag| flag.kind != Kind::Bool)
    }

    /// Flags and subcommands.
    fn of_the_line(&self, last: &str) -> Vec<(String, String)> {
        if self.wants_value {
            return Vec::new();
        }
        if last.starts_with('-') {
            let flags = self.command.all_flags().filter(|flag| !flag.hidden);
            return flags.map(|flag| (format!("--{}", flag.name), first_line(flag.about))).collect();
        }
        let Body::Group(sections) = self.command.body else { return Vec::new() };
        let shown = sections.iter().filter(|section| !section.title.is_empty()).flat_map(|section| section.entries);
        shown.map(|entry| (entry.name.to_owned(), entry.command.about.to_owned())).collect()
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Names of what the command's usage asks for. An engine that does not answer has none to offer.
async fn objects(cli: &Cli, command: &Command) -> Vec<(String, String)> {
    let usage = command.usage;
    let names = match () {
        () if usage.contains("CONTEXT") => Some(cli.contexts().list().into_iter().map(|context| context.name).collect()),
        () if usage.contains("CONTAINER") => names_of(cli, "/containers/json?all=1", container_names).await,
        () if usage.contains("IMAGE") => names_of(cli, "/images/json", image_names).await,
        () if usage.contains("NETWORK") => names_of(cli, "/networks", |network| strings(&network["Name"])).await,
        () if usage.contains("VOLUME") => volumes(cli).await,
        () => None,
    };
    names.unwrap_or_default().into_iter().map(|name| (name, String::new())).collect()
}

async fn names_of(cli: &Cli, path: &str, names: fn(&Value) -> Vec<String>) -> Option<Vec<String>> {
    let all: Vec<Value> = cli.client().ok()?.get(path).fetch().await.ok()?;
    Some(all.iter().flat_map(names).collect())
}

async fn volumes(cli: &Cli) -> Option<Vec<String>> {
    let all: Value = cli.client().ok()?.get("/volumes").fetch().await.ok()?;
    Some(all["Volumes"].as_array()?.iter().flat_map(|volume| strings(&volume["Name"])).collect())
}

fn container_names(container: &Value) -> Vec<String> {
    strings(&container["Names"]).iter().map(|name| name.trim_start_matches('/').to_owned()).collect()
}

/// The latest one goes by its bare name too.
fn image_names(image: &Value) -> Vec<String> {
    let tags = strings(&image["RepoTags"]);
    tags.into_iter().flat_map(|tag| [tag.strip_suffix(":latest").map(str::to_owned), Some(tag)]).flatten().collect()
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().expect("there is one");
        let found = Place::find(before).of_the_line(last);
        found.into_iter().map(|(name, _)| name).filter(|name| name.starts_with(last.as_str())).collect()
    }

    #[test]
    fn commands_and_flags_are_offered_where_they_fit() {
        assert_eq!(offered("ren"), ["rename"]);
        assert_eq!(offered("-H unix:///x container ren"), ["rename"]);
        assert_eq!(offered("run --memory-s"), ["--memory-swappiness", "--memory-swap"]);
        assert!(offered("run --name ").is_empty() && offered("ps ").is_empty());
        assert!(!offered("").contains(&"__complete".to_owned()));
    }
}
