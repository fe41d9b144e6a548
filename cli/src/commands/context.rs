//! `context create|ls|show|use|inspect|rm|update`; `export` and `import` are in `context_archive`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::common::{for_each, format_flag, json_format_flag, print_rows};
use super::{context_archive, inspect};
use crate::cli::{Cli, host_variable};
use crate::client::Endpoint;
use crate::client::endpoint::TlsFiles;
use crate::cmdline::{Args, Command, Entry, Flag, Matches, Outcome, Section, check, entry, group, leaf, many, string, switch};
use crate::config::context::{Context, DEFAULT, DockerEndpoint, Endpoints, Metadata, TLS_FILES, check_name};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{self, Columns, Row, Subject};

static ENTRIES: &[Entry] = &[
    entry("create", &CREATE),
    entry("export", &context_archive::EXPORT),
    entry("import", &context_archive::IMPORT),
    entry("inspect", &INSPECT),
    Entry { name: "ls", aliases: &["list"], command: &LS },
    Entry { name: "rm", aliases: &["remove"], command: &RM },
    entry("show", &SHOW),
    entry("update", &UPDATE),
    entry("use", &USE),
];

pub static COMMAND: Command = group("Manage contexts", &[Section { title: "Commands", entries: ENTRIES }]);

static CREATE_FLAGS: &[Flag] = &[
    string("description", "", "Description of the context"),
    many("docker", "", "stringToString", "Engine of the context (host=…,ca=…,cert=…,key=…,skip-tls-verify=…,from=…)")
        .check(check::key_value),
    string("from", "", "Take the engine from another context"),
];

static CREATE: Command = Command {
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context",
    flags: &[CREATE_FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(async move { create(cli, matches) }))
};

static UPDATE_FLAGS: &[Flag] = &[
    string("description", "", "Description of the context"),
    many("docker", "", "stringToString", "Engine of the context (host=…,ca=…,cert=…,key=…,skip-tls-verify=…,from=…)")
        .check(check::key_value),
];

static UPDATE: Command = Command {
    usage: "[OPTIONS] CONTEXT",
    about: "Update a context",
    flags: &[UPDATE_FLAGS],
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(async move { update(cli, matches) }))
};

static LS_FLAGS: &[Flag] = &[format_flag(), switch("quiet", "q", "Only show context names")];

static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List contexts",
    names: &["context ls", "context list"],
    flags: &[LS_FLAGS],
    ..leaf(|cli, matches| Box::pin(async move { list(cli, matches) }))
};

static SHOW: Command = Command {
    usage: "",
    about: "Print the name of the current context",
    ..leaf(|cli, _| Box::pin(async move { output::line(&cli.context_name()) }))
};

static USE: Command = Command {
    usage: "CONTEXT",
    about: "Set the current docker context",
    args: Args::Exactly(1),
    ..leaf(|cli, matches| Box::pin(async move { use_context(cli, matches) }))
};

static INSPECT_FLAGS: &[Flag] = &[json_format_flag("f")];

static INSPECT: Command = Command {
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Display detailed information on one or more contexts",
    flags: &[INSPECT_FLAGS],
    args: Args::Any,
    ..leaf(|cli, matches| Box::pin(show(cli, matches)))
};

static RM_FLAGS: &[Flag] = &[switch("force", "f", "Remove a context that is in use too")];

static RM: Command = Command {
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    names: &["context rm", "context remove"],
    flags: &[RM_FLAGS],
    args: Args::AtLeast(1),
    ..leaf(|cli, matches| Box::pin(remove(cli, matches)))
};

/// `--docker host=…,ca=…` as pairs.
fn options(matches: &Matches) -> Vec<(String, String)> {
    let pairs = matches.list("docker").iter().flat_map(|text| text.split(','));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(key, value)| (key.trim().to_lowercase(), value.to_owned())).collect()
}

/// What `--docker` says, on top of what was there.
#[derive(Default)]
struct Wanted {
    endpoint: DockerEndpoint,
    files: TlsFiles,
}

fn wanted(cli: &Cli, matches: &Matches, mut start: DockerEndpoint) -> Result<Wanted, Failure> {
    let mut files = TlsFiles::default();
    for (key, value) in options(matches) {
        match key.as_str() {
            "host" => start.host = value,
            "ca" => files.ca = Some(expand(&value)),
            "cert" => files.cert = Some(expand(&value)),
            "key" => files.key = Some(expand(&value)),
            "skip-tls-verify" => {
                start.skip_tls_verify = check::parse_bool(&value)
                    .ok_or_else(|| Failure::message(format!("failed to parse {key}: {value:?} is neither true nor false")))?;
            }
            "from" => start = source(cli, &value)?,
            other => return Err(Failure::message(format!("unrecognized config key: {other}"))),
        }
    }
    Endpoint::parse(&start.host, None).map_err(|why| Failure::message(format!("unable to parse docker host: {why}")))?;
    Ok(Wanted { endpoint: start, files })
}

fn expand(path: &str) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| crate::config::home().join(rest))
}

fn source(cli: &Cli, name: &str) -> Result<DockerEndpoint, Failure> {
    if name == DEFAULT {
        return Ok(DockerEndpoint { host: cli.default_host(), skip_tls_verify: false });
    }
    Ok(cli.contexts().read(name)?.endpoints.docker)
}

fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    check_name(name)?;
    let store = cli.contexts();
    if store.exists(name) {
        return Err(Failure::message(format!("context {name:?} already exists")));
    }
    let start = match matches.str("from") {
        Some(from) => source(cli, from)?,
        None if matches.changed("docker") => DockerEndpoint::default(),
        None => source(cli, &cli.context_name())?,
    };
    let wanted = wanted(cli, matches, start)?;
    let context = Context {
        name: name.to_owned(),
        metadata: Metadata { description: matches.string("description"), ..Metadata::default() },
        endpoints: Endpoints { docker: wanted.endpoint, ..Endpoints::default() },
    };
    if let Err(failure) = import(cli, name, &wanted.files).and_then(|()| store.write(&context)) {
        store.remove(name)?;
        return Err(failure);
    }
    eprintln!("Successfully created context {name:?}");
    output::line(name)
}

fn import(cli: &Cli, name: &str, files: &TlsFiles) -> Outcome {
    let put = |file: &Option<PathBuf>, target: &str| match file {
        Some(path) => cli.contexts().import_tls(name, target, Path::new(path)),
        None => Ok(()),
    };
    put(&files.ca, "ca.pem")?;
    put(&files.cert, "cert.pem")?;
    put(&files.key, "key.pem")
}

fn update(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    check_name(name)?;
    let store = cli.contexts();
    let mut context = store.read(name)?;
    if let Some(description) = matches.str("description") {
        description.clone_into(&mut context.metadata.description);
    }
    let wanted = wanted(cli, matches, context.endpoints.docker)?;
    context.endpoints.docker = wanted.endpoint;
    import(cli, name, &wanted.files)?;
    store.write(&context)?;
    eprintln!("Successfully updated context {name:?}");
    output::line(name)
}

const COLUMNS: Columns = Columns {
    table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    quiet: "{{.Name}}",
    headers: &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("DockerEndpoint", "DOCKER ENDPOINT"), ("Error", "ERROR")],
    type_name: "formatter.clientContextContext",
};

fn list(cli: &Cli, matches: &Matches) -> Outcome {
    let current = cli.context_name();
    let row = |name: &str, description: &str, host: &str, error: &str| {
        Row::new()
            .set("Name", name)
            .set("Description", description)
            .set("DockerEndpoint", host)
            .set("Error", error)
            .set_value("Current", template::Value::Bool(name == current))
    };
    let mut rows = vec![row(DEFAULT, "Current DOCKER_HOST based configuration", &cli.default_host(), "")];
    let contexts = cli.contexts().list();
    rows.extend(contexts.iter().map(|context| row(&context.name, &context.metadata.description, &context.endpoints.docker.host, "")));
    if current != DEFAULT && !contexts.iter().any(|context| context.name == current) {
        rows.push(row(&current, "", "", "context not found"));
    }
    print_rows(cli, matches, "contextFormat", &COLUMNS, rows)?;
    if !matches.bool("quiet") && host_variable().is_some() {
        eprintln!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable."
        );
    }
    Ok(())
}

fn use_context(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    if name != DEFAULT {
        cli.contexts().read(name)?;
    }
    let mut config = cli.config_for_writing();
    config.set_string("currentContext", Some(name).filter(|name| *name != DEFAULT));
    config.save()?;
    output::line(name)?;
    eprintln!("Current context is now {name:?}");
    if name != DEFAULT && host_variable().is_some() {
        eprintln!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        );
    }
    Ok(())
}

async fn show(cli: &Cli, matches: &Matches) -> Outcome {
    let mut matches = matches.clone();
    if matches.args.is_empty() {
        matches.args.push(cli.context_name());
    }
    inspect::show(&matches, async |name| document(cli, name).map(|value| (Subject::Context, crate::output::json::compact(&value, true))))
        .await
}

fn document(cli: &Cli, name: &str) -> Result<Value, Failure> {
    let store = cli.contexts();
    if name == DEFAULT {
        let endpoint = json!({"Host": cli.default_host(), "SkipTLSVerify": false});
        let storage = json!({"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"});
        return Ok(json!({"Name": DEFAULT, "Metadata": {}, "Endpoints": {"docker": endpoint}, "TLSMaterial": {}, "Storage": storage}));
    }
    let context = store.read(name)?;
    let mut document = serde_json::to_value(&context).map_err(|err| Failure::message(err.to_string()))?;
    let tls = store.tls_directory(name);
    let files: Vec<&str> = TLS_FILES.into_iter().filter(|file| tls.join("docker").join(file).exists()).collect();
    document["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({"docker": files}) };
    document["Storage"] = json!({"MetadataPath": store.meta_directory(name), "TLSPath": tls});
    Ok(document)
}

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let current = cli.config().string("currentContext").unwrap_or(DEFAULT).to_owned();
    let force = matches.bool("force");
    for_each(&matches.args, async |name| {
        if name == DEFAULT {
            return Err(Failure::message("context \"default\" cannot be removed"));
        }
        let store = cli.contexts();
        if !store.exists(name) && !force {
            return Err(Failure::message(format!("context {name:?} does not exist")));
        }
        if name == current {
            if !force {
                return Err(Failure::message(format!("context {name:?} is in use, set -f flag to force remove")));
            }
            let mut config = cli.config_for_writing();
            config.set_string("currentContext", None);
            config.save()?;
        }
        store.remove(name)?;
        Ok(Some(name.to_owned()))
    })
    .await
}
