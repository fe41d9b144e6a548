//! At every system call by which an operation changes the store: the manager is killed, the disk is full from there on, or that call
//! fails with an I/O error. The next manager, or the same one when the fault is over, finds a clean store, has all that was acknowledged,
//! nothing half-made, and does what it was asked for when it is asked again.

use std::collections::BTreeSet;

use rcontainerd_tests::{Registry, TestHost, image};

use crate::effort;
use crate::inject::Injector;
use crate::view::{View, stored, told};

/// Points per operation and fault that CI tries.
const SAMPLE: usize = 4;

/// Something that changes the store, with what makes it undone.
struct Operation {
    what: &'static str,
    /// Makes what it works on.
    before: &'static [&'static [&'static str]],
    run: &'static [&'static str],
    /// Takes back what it made; not all of it is there when it failed.
    after: &'static [&'static [&'static str]],
}

/// `@` stands for the registry's address.
const OPERATIONS: &[Operation] = &[
    Operation { what: "pull and unpack", before: &[], run: &["pull", "-q", "@/app:1"], after: &[&["rmi", "-f", "@/app:1"]] },
    Operation { what: "load", before: &[], run: &["load", "-q", "-i", "@load.tar"], after: &[&["rmi", "-f", "loaded:1"]] },
    Operation {
        what: "create",
        before: &[],
        run: &["create", "--name", "made", "--network", "none", "-v", "kept:/kept", "base:1"],
        after: &[&["rm", "-f", "made"], &["volume", "rm", "-f", "kept"]],
    },
    Operation {
        what: "run",
        before: &[],
        run: &["run", "--name", "ran", "--network", "none", "base:1", "/bin/busybox", "touch", "/new"],
        after: &[&["rm", "-f", "ran"]],
    },
    Operation {
        what: "run --rm",
        before: &[],
        run: &["run", "--rm", "--name", "passing", "--network", "none", "base:1"],
        after: &[&["rm", "-f", "passing"]],
    },
    Operation {
        what: "commit",
        before: &[&["run", "--name", "source", "--network", "none", "base:1", "/bin/busybox", "touch", "/new"]],
        run: &["commit", "source", "committed:1"],
        after: &[&["rmi", "-f", "committed:1"], &["rm", "-f", "source"]],
    },
    Operation { what: "tag", before: &[], run: &["tag", "base:1", "other:1"], after: &[&["rmi", "-f", "other:1"]] },
    Operation {
        what: "rm",
        before: &[&["create", "--name", "going", "--network", "none", "-v", "/anonymous", "base:1"]],
        run: &["rm", "-v", "going"],
        after: &[&["rm", "-f", "-v", "going"], &["volume", "prune", "-f"]],
    },
    Operation { what: "rmi", before: &[&["pull", "-q", "@/app:1"]], run: &["rmi", "@/app:1"], after: &[&["rmi", "-f", "@/app:1"]] },
    Operation {
        what: "image prune",
        before: &[&["pull", "-q", "@/app:1"]],
        run: &["image", "prune", "-a", "-f"],
        after: &[&["rmi", "-f", "@/app:1"]],
    },
    Operation {
        what: "container prune",
        before: &[&["create", "--name", "dead", "--label", "dead", "--network", "none", "base:1"]],
        run: &["container", "prune", "-f", "--filter", "label=dead"],
        after: &[&["rm", "-f", "dead"]],
    },
];

/// A host with an image that is never removed, and a container that keeps it.
struct Scene {
    host: TestHost,
    injector: Injector,
    registry: Registry,
    base: View,
}

impl Scene {
    fn new() -> Self {
        let mut host = TestHost::start();
        let registry = Registry::start(&host);
        let archive = host.path().join("image.tar");
        let (layer, config) = (image::static_layer(), serde_json::json!({"Cmd": ["/bin/busybox", "true"]}));
        image::archive_of(&archive, "app:1", &[&layer, &small_layer("app")], &config);
        registry.push(&host, &archive, "app:1", "oci");
        image::archive(&host.path().join("load.tar"), "loaded:1", &small_layer("loaded"), &config);
        image::archive(&archive, "base:1", &layer, &config);
        host.rdocker(["load", "-q", "-i", archive.to_str().expect("a path")]).success();
        host.rdocker(["create", "--name", "keeper", "--network", "none", "base:1"]).success();
        let injector = Injector::attach(&mut host);
        let mut scene = Self { host, injector, registry, base: View::new() };
        scene.base = scene.look();
        scene
    }

    fn look(&self) -> View {
        let mut view = told(&self.host);
        view.extend(stored(&self.host.root()));
        view
    }

    fn docker(&self, args: &[&str]) -> rcontainerd_tests::Outcome {
        let load = self.host.path().join("load.tar").display().to_string();
        let args: Vec<String> = args.iter().map(|arg| arg.replace("@load.tar", &load).replace('@', &self.registry.address)).collect();
        self.host.rdocker(args.iter().map(String::as_str))
    }

    fn prepare(&self, operation: &Operation) {
        operation.before.iter().for_each(|args| drop(self.docker(args).success()));
    }

    fn undo(&self, operation: &Operation) {
        operation.after.iter().for_each(|args| drop(self.docker(args)));
    }

    /// How many calls the operation makes.
    fn count(&self, operation: &Operation) -> usize {
        self.prepare(operation);
        self.injector.arm(0, "none");
        self.docker(operation.run).success();
        let counted = self.injector.disarm();
        self.undo(operation);
        usize::try_from(counted).expect("not that many")
    }

    /// Tries the operation with a fault at its `at`th call; tells what is wrong then.
    fn attempt(&mut self, operation: &Operation, fault: &Fault, at: usize) -> Vec<String> {
        self.prepare(operation);
        let before = self.look();
        self.injector.arm(at as u64, fault.mode);
        let outcome = self.docker(operation.run);
        let mut wrong = Vec::new();
        if fault.kills {
            self.host.kill_manager();
            self.host.start_manager();
        } else {
            self.injector.disarm();
            if outcome.code != 0 && !fault.words.iter().any(|word| outcome.stderr.contains(word)) {
                wrong.push(format!("the cause is not told: {outcome}"));
            }
        }
        wrong.extend(self.lost(&before, operation));
        let checked = self.checked();
        // What a disk that fails would not let go of is told and mended; nothing may be broken.
        let rubbish = fault.breaks && !checked.stdout.contains("BROKEN");
        if checked.code != 0 && !(rubbish && self.host.fsck(&["--repair"]).code == 0) {
            wrong.push(checked.to_string());
        }
        if wrong.is_empty() {
            wrong.extend(self.again(operation, outcome.code == 0 && !fault.kills));
        }
        self.undo(operation);
        wrong
    }

    /// A manager that follows one which was killed sweeps in the background.
    fn checked(&self) -> rcontainerd_tests::Outcome {
        let mut checked = self.host.fsck(&[]);
        for _ in 0..20 {
            if checked.code == 0 {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(100));
            checked = self.host.fsck(&[]);
        }
        checked
    }

    /// What is not as it was, of what the operation had no business with.
    fn lost(&self, before: &View, operation: &Operation) -> Vec<String> {
        let after = self.look();
        let own: BTreeSet<&str> =
            operation.before.iter().flat_map(|args| args.iter().copied()).chain(operation.run.iter().copied()).collect();
        let concerns = |key: &str| {
            let name = key.split_once(' ').map_or(key, |(_, name)| name);
            own.iter().any(|word| name == word.replace('@', &self.registry.address))
        };
        let of_base = |key: &&String| self.base.contains_key(*key) || !key.starts_with("file ") && !concerns(key);
        let same = |key: &&String| before.get(*key) == after.get(*key);
        let changed = before.keys().filter(of_base).filter(|key| !same(key));
        changed
            .filter(|key| self.base.contains_key(*key))
            .map(|key| format!("{key} is {:?}, was {:?}", after.get(key), before.get(key)))
            .collect()
    }

    /// The same once more, without a fault; what the first attempt did is no reason to fail, what it left half-done would be.
    fn again(&self, operation: &Operation, succeeded: bool) -> Vec<String> {
        if succeeded {
            return Vec::new();
        }
        let outcome = self.docker(operation.run);
        let done_already = ["already in use", "No such", "no such"].iter().any(|words| outcome.stderr.contains(words));
        if outcome.code == 0 || done_already { Vec::new() } else { vec![format!("asked again: {outcome}")] }
    }
}

fn small_layer(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    image::directory(&mut tar, "d/", 0o750);
    image::append(&mut tar, &format!("d/{name}"), 0o640, &[b'x'; 5000]);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "d/link", name).expect("append a link");
    tar.into_inner().expect("finish the layer")
}

struct Fault {
    /// As `inject.c` has it.
    mode: &'static str,
    kills: bool,
    /// Also what gives room back may fail.
    breaks: bool,
    /// One of these tells a client why.
    words: &'static [&'static str],
}

fn everywhere(fault: &Fault) {
    let mut scene = Scene::new();
    let (mut random, sample) = effort(SAMPLE);
    let mut failures = Vec::new();
    for operation in OPERATIONS {
        let count = scene.count(operation);
        assert!(count > 0, "{} changes nothing", operation.what);
        let points = random.sample(sample, count);
        for point in &points {
            let wrong = scene.attempt(operation, fault, point + 1);
            if !wrong.is_empty() {
                failures.push(format!("{}, {} at call {} of {count}:\n{}", operation.what, fault.mode, point + 1, wrong.join("\n")));
                println!("{}", failures.last().expect("just pushed"));
            }
        }
        println!("{}: {} at {} of {count} calls", operation.what, fault.mode, points.len());
    }
    let Scene { mut host, injector, registry, .. } = scene;
    drop(registry);
    injector.detach(&mut host);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn killed_at_every_write() {
    everywhere(&Fault { mode: "kill", kills: true, breaks: false, words: &[] });
}

#[test]
fn a_full_disk_at_every_write() {
    everywhere(&Fault { mode: "ENOSPC full", kills: false, breaks: false, words: &["no space left", "No space left"] });
}

#[test]
fn an_io_error_at_every_write() {
    everywhere(&Fault { mode: "EIO", kills: false, breaks: true, words: &["input/output error", "Input/output error", "I/O error"] });
}
