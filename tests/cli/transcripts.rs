//! Replays `transcripts/*.txt` with our client and with docker's own (28 and 20.10) against one engine.
//!
//! `TRANSCRIPTS_HOST` names an engine that runs already (`unix:///…`); without it a [`TestHost`] is started for each client.
//! A docker client that is not installed is told and left out, unless `TRANSCRIPTS_ALL` is set: then it fails the test.

mod runner;

use std::path::{Path, PathBuf};
use std::process::Command;

use rcontainerd_tests::{TestHost, image};
use runner::play::Stage;
use runner::script::{self, Client, Kind};

fn transcripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/transcripts");
    let only = std::env::var("TRANSCRIPTS_ONLY").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("read the directory of transcripts")
        .map(|entry| entry.expect("read an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt") && path.display().to_string().contains(&only))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are no transcripts");
    files
}

/// The client's program, if it is there.
fn program(client: Client) -> Option<PathBuf> {
    let (variable, usual, version) = match client {
        Client::Ours => return Some(ours()),
        Client::Docker28 => ("DOCKER_28", "/usr/local/bin/docker", "version 28."),
        Client::Docker20 => ("DOCKER_20", "/usr/bin/docker", "version 20.10"),
    };
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    let said = Command::new(&path).arg("--version").output().ok()?;
    String::from_utf8_lossy(&said.stdout).contains(version).then_some(path)
}

/// `RDOCKER`, or the one that was built with this test.
fn ours() -> PathBuf {
    if let Some(path) = std::env::var_os("RDOCKER") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("this program has a path");
    let built = test.ancestors().nth(2).expect("tests lie in target/*/deps").join("rdocker");
    assert!(built.exists(), "{} is missing: build rdocker first", built.display());
    built
}

/// One replay at a time: with one engine for all, they would take each other's names.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn replay(client: Client) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(program) = program(client) else {
        assert!(std::env::var_os("TRANSCRIPTS_ALL").is_none(), "{client:?} is not installed");
        eprintln!("left out: {client:?} is not installed");
        return;
    };
    let engine = Engine::start();
    let images = images();
    let (mut done, mut later, mut failures) = (0, 0, Vec::new());
    for path in transcripts() {
        let root = tempfile::tempdir().expect("create a temporary directory");
        let stage = Stage::new(root.path(), &program, &engine.host(), images.path());
        for step in script::read(&path, client, engine.is_another()) {
            println!("{client:?} {}: {}", step.place, step.command);
            match (&step.kind, stage.play(&step)) {
                (Kind::Later, _) => later += 1,
                (Kind::Prepare, Ok(())) => {}
                (_, Ok(())) => done += 1,
                (_, Err(why)) => {
                    println!("FAILED {client:?} {}: {}\n{why}", step.place, step.command);
                    failures.push(format!("{}: {}\n{why}", step.place, step.command));
                }
            }
        }
    }
    let total = done + failures.len();
    println!("{client:?}: {done}/{total} ({later} belong to later work)");
    assert!(failures.is_empty(), "{client:?}: {done}/{total}\n\n{}", failures.join("\n\n"));
}

/// Archives for `docker load -i $IMAGES/NAME.tar`.
fn images() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let layer = image::busybox_layer();
    for name in ["alpine", "busybox", "debian", "ubuntu"] {
        // One layer, four images: each has an id of its own.
        let config = serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"], "Labels": {"name": name}});
        image::archive(&directory.path().join(format!("{name}.tar")), &format!("{name}:latest"), &layer, &config);
    }
    directory
}

/// The engine that the clients speak to.
enum Engine {
    Given(String),
    Own(Box<TestHost>),
}

impl Engine {
    fn start() -> Self {
        match std::env::var("TRANSCRIPTS_HOST") {
            Ok(host) => Self::Given(host),
            Err(_) => Self::Own(Box::new(TestHost::start())),
        }
    }

    /// Whether it is not ours, as `TRANSCRIPTS_ENGINE=docker` says.
    fn is_another(&self) -> bool {
        matches!(self, Self::Given(_)) && std::env::var("TRANSCRIPTS_ENGINE").is_ok_and(|name| name == "docker")
    }

    fn host(&self) -> String {
        match self {
            Self::Given(host) => host.clone(),
            Self::Own(host) => format!("unix://{}", host.socket().display()),
        }
    }
}

#[test]
fn rdocker() {
    replay(Client::Ours);
}

#[test]
fn docker_28() {
    replay(Client::Docker28);
}

#[test]
fn docker_20_10() {
    replay(Client::Docker20);
}
