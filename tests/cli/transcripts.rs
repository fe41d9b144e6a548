//! Replays `transcripts/*.txt` with our client and with docker's own (28 and 20.10) against one engine.
//!
//! `TRANSCRIPTS_HOST` names an engine that runs already (`unix:///…`); without it a [`TestHost`] is started for each client, with a
//! registry in it that stands for docker.io. `TRANSCRIPTS_ONLY` chooses files by a part of their names.

mod runner;

use std::path::{Path, PathBuf};
use std::process::Command;

use rcontainerd_tests::{Client, Registry, TestHost, image};
use runner::play::Stage;
use runner::script::{self, Kind};

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

/// One replay at a time: with one engine for all, they would take each other's names.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn replay(client: Client) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let program = client.program();
    let images = images();
    let engine = Engine::start(images.path());
    let (mut done, mut later, mut failures) = (0, 0, Vec::new());
    for path in transcripts() {
        let root = tempfile::tempdir().expect("create a temporary directory");
        let stage = Stage::new(root.path(), &program, &engine, images.path());
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

/// Archives for `docker load -i $IMAGES/NAME.tar` and for the registry.
fn images() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let layer = image::busybox_layer();
    let make = |name: &str, layer: &[u8], command: &[&str]| {
        let config = serde_json::json!({"Cmd": command, "Env": ["PATH=/usr/bin:/bin"], "Labels": {"name": name}});
        image::archive(&directory.path().join(format!("{name}.tar")), &format!("{name}:latest"), layer, &config);
    };
    for name in NAMES {
        // One layer, four images: each has an id of its own.
        make(name, &layer, &["sh"]);
    }
    make("hello-world", &image::static_layer(), &["/bin/busybox", "echo", "Hello from Docker!"]);
    directory
}

const NAMES: [&str; 4] = ["alpine", "busybox", "debian", "ubuntu"];

/// The engine that the clients speak to.
pub enum Engine {
    Given(String),
    // Fields are dropped in order: the registry lives in the host's network.
    Own(Registry, Box<TestHost>),
}

impl Engine {
    fn start(images: &Path) -> Self {
        if let Ok(host) = std::env::var("TRANSCRIPTS_HOST") {
            return Self::Given(host);
        }
        let host = Box::new(TestHost::start_with("[registry]\nmirrors = [\"http://127.0.0.1:5000\"]\n"));
        let registry = Registry::start(&host);
        for name in NAMES.into_iter().chain(["hello-world"]) {
            registry.push(&host, &images.join(format!("{name}.tar")), &format!("library/{name}:latest"), "v2s2");
        }
        Self::Own(registry, host)
    }

    /// A shell beside the engine: where its ports are.
    pub fn shell(&self) -> Command {
        match self {
            Self::Given(_) => Command::new("sh"),
            Self::Own(_, host) => host.command("sh"),
        }
    }

    /// Whether it is not ours, as `TRANSCRIPTS_ENGINE=docker` says.
    fn is_another(&self) -> bool {
        matches!(self, Self::Given(_)) && std::env::var("TRANSCRIPTS_ENGINE").is_ok_and(|name| name == "docker")
    }

    /// As `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        match self {
            Self::Given(host) => host.clone(),
            Self::Own(_, host) => format!("unix://{}", host.socket().display()),
        }
    }
}

#[test]
fn rdocker() {
    Client::Ours.run(replay);
}

#[test]
fn docker_28() {
    Client::Docker28.run(replay);
}

#[test]
fn docker_20_10() {
    Client::Docker20.run(replay);
}
