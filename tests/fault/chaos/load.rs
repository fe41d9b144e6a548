//! One user of the engine: does this and that with things of its own, and remembers what it was told.

use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rcontainerd_tests::{Client, Outcome, Random, TestHost};

use crate::lock;

/// What an engine that answered has promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Absent,
    Present,
    /// The engine went away before it answered.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Volume,
    Network,
    Image,
}

struct Thing {
    kind: Kind,
    name: String,
    known: Known,
    /// A container that was told to run and never to end.
    runs: bool,
    /// What the file in a volume was told to be.
    content: Option<String>,
}

pub struct Worker<'a> {
    host: &'a Mutex<TestHost>,
    random: Random,
    things: Vec<Thing>,
    done: u64,
    wrong: Vec<String>,
}

/// Counts, so that a gap in the log shows.
const COUNT: &str = "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
/// A client of an engine that went away must end soon by itself.
const PATIENCE: Duration = Duration::from_secs(60);

impl<'a> Worker<'a> {
    pub fn new(host: &'a Mutex<TestHost>, n: usize, random: Random) -> Self {
        let thing = |kind, name| Thing { kind, name, known: Known::Absent, runs: false, content: None };
        let mut things: Vec<Thing> = (0..4).map(|m| thing(Kind::Container, format!("c{n}-{m}"))).collect();
        things.extend((0..2).map(|m| thing(Kind::Volume, format!("v{n}-{m}"))));
        things.push(thing(Kind::Network, format!("n{n}")));
        things.push(thing(Kind::Image, format!("i{n}")));
        Self { host, random, things, done: 0, wrong: Vec::new() }
    }

    /// How many commands succeeded.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// One command on one thing.
    pub fn step(&mut self) {
        let at = usize::try_from(self.random.below(self.things.len() as u64 + 1)).expect("small");
        match self.things.get(at).map(|thing| thing.kind) {
            Some(Kind::Container) => self.container(at),
            Some(Kind::Volume) => self.volume(at),
            Some(Kind::Network) => self.make_or_remove(at, &["network", "create"], &["network", "rm"]),
            Some(Kind::Image) => self.image(at),
            None => self.passing(),
        }
    }

    fn docker(&mut self, args: &[&str]) -> Outcome {
        let outcome = run(self.host, args);
        match outcome.code {
            0 => self.done += 1,
            // Not to spin while the engine is away.
            _ => std::thread::park_timeout(Duration::from_millis(10)),
        }
        outcome
    }

    fn container(&mut self, at: usize) {
        let name = self.things[at].name.clone();
        if self.things[at].known == Known::Absent {
            return self.new_container(at, &name);
        }
        match self.random.below(10) {
            0..3 => self.remove(at, &["rm", "-f"]),
            3 => drop(self.docker(&["exec", &name, "true"])),
            4 => drop(self.docker(&["logs", "--tail", "3", &name])),
            5 => {
                self.things[at].runs = false;
                self.docker(&["stop", "-t", "1", &name]);
            }
            6 => {
                let started = self.docker(&["start", &name]).code == 0;
                self.things[at].runs |= started;
            }
            7 => {
                let done = self.docker(&["restart", "-t", "1", &name]).code == 0;
                self.things[at].runs &= done;
            }
            8 => {
                self.docker(&["pause", &name]);
                let done = self.docker(&["unpause", &name]).code == 0;
                self.things[at].runs &= done;
            }
            _ => {
                let network = self.things.iter().find(|thing| thing.kind == Kind::Network).map(|thing| thing.name.clone()).expect("one");
                self.docker(&["network", "connect", &network, &name]);
                self.docker(&["network", "disconnect", &network, &name]);
            }
        }
    }

    fn new_container(&mut self, at: usize, name: &str) {
        let network = if self.random.below(2) == 0 { "none" } else { "bridge" };
        let create = self.random.below(4) == 0;
        let first: &[&str] = if create { &["create"] } else { &["run", "-d"] };
        let rest = ["--name", name, "--network", network, "busybox", "sh", "-c", COUNT];
        let outcome = self.docker(&[first, &rest].concat());
        let thing = &mut self.things[at];
        thing.known = made(&outcome, name, &mut self.wrong);
        thing.runs = thing.known == Known::Present && !create;
    }

    fn volume(&mut self, at: usize) {
        let name = self.things[at].name.clone();
        if self.things[at].known != Known::Present || self.random.below(4) == 0 {
            return self.make_or_remove(at, &["volume", "create"], &["volume", "rm"]);
        }
        let word = format!("{}", self.random.number());
        let bind = format!("{name}:/v");
        let script = format!("echo {word} >/v/new && sync && mv /v/new /v/word");
        let written = self.docker(&["run", "--rm", "--network", "none", "-v", &bind, "busybox", "sh", "-c", &script]).code == 0;
        self.things[at].content = written.then_some(word);
    }

    fn image(&mut self, at: usize) {
        let name = self.things[at].name.clone();
        let present = self.things.iter().find(|thing| thing.kind == Kind::Container && thing.known == Known::Present);
        let Some(container) = present.map(|thing| thing.name.clone()) else { return };
        if self.things[at].known == Known::Absent {
            let outcome = self.docker(&["commit", &container, &name]);
            let gone = outcome.stderr.contains("No such container");
            self.things[at].known = if gone { Known::Unknown } else { made(&outcome, &name, &mut self.wrong) };
        } else {
            self.remove(at, &["rmi", "-f"]);
        }
    }

    fn make_or_remove(&mut self, at: usize, make: &[&str], remove: &[&str]) {
        if self.things[at].known == Known::Absent {
            let name = self.things[at].name.clone();
            let outcome = self.docker(&[make, &[name.as_str()]].concat());
            self.things[at].known = made(&outcome, &name, &mut self.wrong);
            self.things[at].content = None;
        } else {
            self.remove(at, remove);
        }
    }

    fn remove(&mut self, at: usize, command: &[&str]) {
        let name = self.things[at].name.clone();
        let was = self.things[at].known;
        let outcome = self.docker(&[command, &[name.as_str()]].concat());
        let missing = outcome.code != 0 && outcome.stderr.to_ascii_lowercase().contains("no such");
        if missing && was == Known::Present {
            self.wrong.push(format!("{name} was acknowledged, yet: {outcome}"));
        }
        let thing = &mut self.things[at];
        let refused = ["in use", "has active endpoints"].iter().any(|words| outcome.stderr.contains(words));
        thing.runs = false;
        thing.known = match outcome.code {
            0 => Known::Absent,
            _ if missing => Known::Absent,
            _ if refused => was,
            _ => Known::Unknown,
        };
    }

    /// What comes and goes.
    fn passing(&mut self) {
        let network = if self.random.below(2) == 0 { "none" } else { "bridge" };
        let outcome = self.docker(&["run", "--rm", "--network", network, "busybox", "echo", "hi"]);
        if outcome.code == 0 && outcome.stdout != "hi\n" {
            self.wrong.push(format!("success, yet: {outcome}"));
        }
    }

    /// What is otherwise than was told.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        for thing in &self.things {
            let kind = match thing.kind {
                Kind::Container => "container",
                Kind::Volume => "volume",
                Kind::Network => "network",
                Kind::Image => "image",
            };
            let inspected = run(self.host, &[kind, "inspect", &thing.name]);
            match (thing.known, inspected.code) {
                (Known::Present, 0) => self.check_present(thing, &mut wrong),
                (Known::Absent, code) if code != 0 => {}
                (Known::Unknown, _) => {}
                (known, _) => wrong.push(format!("{} is {known:?}, yet: {inspected}", thing.name)),
            }
        }
        wrong
    }

    fn check_present(&self, thing: &Thing, wrong: &mut Vec<String>) {
        if thing.kind == Kind::Container {
            let log = run(self.host, &["logs", &thing.name]);
            if let Some(gap) = gap(&log.stdout) {
                wrong.push(format!("the log of {}: {gap}", thing.name));
            }
            let state = run(self.host, &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &thing.name]).word();
            if thing.runs && state != "running 0" {
                wrong.push(format!("{} should run: {state}", thing.name));
            }
            if state.starts_with("running") {
                let outcome = run(self.host, &["exec", &thing.name, "true"]);
                wrong.extend((outcome.code != 0).then(|| outcome.to_string()));
            }
        }
        if let Some(word) = &thing.content {
            let bind = format!("{}:/v", thing.name);
            let read = run(self.host, &["run", "--rm", "--network", "none", "-v", &bind, "busybox", "cat", "/v/word"]);
            if read.stdout.trim_end() != word {
                wrong.push(format!("{} should hold {word}: {read}", thing.name));
            }
        }
    }

    /// All but containers.
    pub fn remove_all(self) {
        for thing in self.things {
            let command: &[&str] = match thing.kind {
                Kind::Container => continue,
                Kind::Volume => &["volume", "rm", "-f"],
                Kind::Network => &["network", "rm"],
                Kind::Image => &["rmi", "-f"],
            };
            let outcome = run(self.host, &[command, &[thing.name.as_str()]].concat());
            let missing = outcome.stderr.to_ascii_lowercase().contains("no such") || outcome.stderr.contains("not found");
            assert!(outcome.code == 0 || missing, "{outcome}");
        }
    }
}

/// What the answer to the making of something means.
fn made(outcome: &Outcome, name: &str, wrong: &mut Vec<String>) -> Known {
    if outcome.code == 0 {
        return Known::Present;
    }
    let taken = ["already in use", "already exists"].iter().any(|words| outcome.stderr.contains(words));
    wrong.extend(taken.then(|| format!("{name} was acknowledged to be gone, yet: {outcome}")));
    Known::Unknown
}

/// Each run of the container counts from nothing; within a run no number is left out.
fn gap(log: &str) -> Option<String> {
    let mut next = 0_u64;
    for line in log.lines() {
        match line.parse::<u64>() {
            Ok(0) => next = 1,
            Ok(number) if number == next => next += 1,
            _ => return Some(format!("{line:?} instead of {next}")),
        }
    }
    None
}

fn run(host: &Mutex<TestHost>, args: &[&str]) -> Outcome {
    let mut command = lock(host).command(Client::Ours.program());
    command.args(args).stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output().expect("run rdocker");
    let outcome = Outcome::new(format!("rdocker {}", args.join(" ")), &output);
    assert!(started.elapsed() < PATIENCE, "{:?} for {outcome}", started.elapsed());
    outcome
}
