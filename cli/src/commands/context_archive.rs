//! `context export` and `context import`: a context as a tar archive, `meta.json` and `tls/docker/*.pem`, as docker writes it.

use std::io::{Read, Write};
use std::path::Path;

use crate::cli::Cli;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};
use crate::config::context::{Context, TLS_FILES, check_name};
use crate::failure::Failure;
use crate::{output, terminal};

/// No honest archive is larger; one that is would fill the memory.
const LIMIT: u64 = 10 * 1024 * 1024;

pub static EXPORT: Command = Command {
    usage: "[OPTIONS] CONTEXT [FILE|-]",
    about: "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    args: Args::Between(1, 2),
    ..leaf(|cli, matches| Box::pin(async move { export(cli, matches) }))
};

pub static IMPORT: Command = Command {
    usage: "CONTEXT FILE|-",
    about: "Import a context from a tar file",
    args: Args::Exactly(2),
    ..leaf(|cli, matches| Box::pin(async move { import(cli, matches) }))
};

fn export(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    check_name(name)?;
    let archive = pack(cli, name)?;
    let usual = format!("{name}.dockercontext");
    let to = matches.args.get(1).map_or(usual.as_str(), String::as_str);
    if to == "-" {
        if terminal::stdout_is_terminal() {
            return Err(Failure::message("cowardly refusing to export to a terminal, specify a file path"));
        }
        return output::bytes(&archive);
    }
    write_new(Path::new(to), &archive)?;
    eprintln!("Written file {to:?}");
    Ok(())
}

/// Never over a file that is there: it may be the only copy of other keys.
fn write_new(path: &Path, archive: &[u8]) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(archive)).map_err(|err| match err.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::message(format!("open {}: file exists", path.display())),
        _ => Failure::message(format!("cannot write {}: {err}", path.display())),
    })
}

fn pack(cli: &Cli, name: &str) -> Result<Vec<u8>, Failure> {
    let store = cli.contexts();
    let context = store.read(name)?;
    let meta = serde_json::to_vec(&context).map_err(|err| Failure::message(err.to_string()))?;
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "meta.json", &meta)?;
    for file in TLS_FILES {
        let path = store.tls_directory(name).join("docker").join(file);
        match std::fs::read(&path) {
            Ok(bytes) => add(&mut tar, &format!("tls/docker/{file}"), &bytes)?,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(Failure::message(format!("{}: {err}", path.display()))),
        }
    }
    Ok(tar.into_inner()?)
}

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Outcome {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_size(bytes.len() as u64);
    Ok(tar.append_data(&mut header, name, bytes)?)
}

fn import(cli: &Cli, matches: &Matches) -> Outcome {
    let (name, from) = (matches.arg(0), matches.arg(1));
    check_name(name)?;
    let store = cli.contexts();
    if store.exists(name) {
        return Err(Failure::message(format!("context {name:?} already exists")));
    }
    let mut archive = read(from)?;
    // docker leaves out what fills the last block, and the two empty ones behind it.
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    let done = unpack(&archive).and_then(|(mut context, files)| {
        name.clone_into(&mut context.name);
        files.iter().try_for_each(|(file, bytes)| store.write_tls(name, file, bytes))?;
        store.write(&context)
    });
    if let Err(failure) = done {
        store.remove(name)?;
        return Err(failure);
    }
    output::line(name)?;
    eprintln!("Successfully imported context {name:?}");
    Ok(())
}

fn read(from: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limited = |source: &mut dyn Read, bytes: &mut Vec<u8>| source.take(LIMIT + 1).read_to_end(bytes).map(drop);
    let done = if from == "-" {
        limited(&mut std::io::stdin().lock(), &mut bytes)
    } else {
        std::fs::File::open(from).and_then(|mut file| limited(&mut file, &mut bytes))
    };
    done.map_err(|err| match err.kind() {
        std::io::ErrorKind::NotFound => Failure::message(format!("open {from}: no such file or directory")),
        _ => Failure::message(format!("cannot read {from}: {err}")),
    })?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::message(format!("{from} is larger than a context can be ({LIMIT} bytes)")));
    }
    Ok(bytes)
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// The context and its TLS files; anything else in the archive makes it none of docker's.
fn unpack(archive: &[u8]) -> Result<(Context, Files), Failure> {
    let broken = |why: &dyn std::fmt::Display| Failure::message(format!("the archive is not that of a context: {why}"));
    let (mut context, mut files) = (None, Files::new());
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry.map_err(|err| broken(&err))?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let path = entry.path().map_err(|err| broken(&err))?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|err| broken(&err))?;
        let pem = path.strip_prefix("tls/docker/").and_then(|file| TLS_FILES.into_iter().find(|known| *known == file));
        match (path.as_str(), pem) {
            ("meta.json", _) => context = Some(serde_json::from_slice(&bytes).map_err(|err| broken(&err))?),
            (_, Some(file)) => files.push((file, bytes)),
            _ => return Err(broken(&format!("unexpected file {path:?}"))),
        }
    }
    Ok((context.ok_or_else(|| broken(&"it has no meta.json"))?, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_context_has_is_taken() {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "meta.json", br#"{"Name":"a","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":false}}}"#)
            .expect("adds");
        add(&mut tar, "tls/docker/ca.pem", b"pem").expect("adds");
        let (context, files) = unpack(&tar.into_inner().expect("ends")).expect("is one");
        assert_eq!((context.endpoints.docker.host.as_str(), files), ("tcp://h:1", vec![("ca.pem", b"pem".to_vec())]));
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "other", b"").expect("adds");
        assert!(unpack(&tar.into_inner().expect("ends")).is_err());
        assert!(unpack(b"no archive at all").is_err() && unpack(b"").is_err());
    }
}
