//! The power goes: after any flush, or among the writes behind it, a fresh boot finds a clean store and everything that had been
//! acknowledged, bit by bit.
//!
//! A manager works on a disk that records every write and flush. Its answers are tied to the log by the number of flushes done when they
//! came: what was acknowledged after n flushes must be on the disk as it was after the nth, whatever came later.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use rcontainerd_tests::{Registry, TestHost, image};

use crate::disk::{Recorder, Recording, Replay, done};
use crate::effort;
use crate::inject::Injector;
use crate::view::{SYNCED, View, stored, told};

/// Megabytes of the disk: the smallest that holds the scenario.
const DISK: u64 = 192;
/// States that CI looks at.
const SAMPLE: usize = 24;

/// A stretch of the recording: what held before an operation and what held when it had been acknowledged.
struct Step {
    what: String,
    before: View,
    after: View,
    /// Flushes done when it was asked for, and when it was answered.
    asked: usize,
    answered: usize,
}

/// A host on a recording disk, and what happened on it.
struct Scene {
    host: TestHost,
    registry: Option<Registry>,
    recorder: Option<Recorder>,
    /// Where the recording disk is mounted.
    _place: tempfile::TempDir,
    steps: Vec<Step>,
    now: View,
}

impl Scene {
    /// With a number of a system call that the manager believes done, and is not.
    fn new(left_out: Option<&str>) -> Self {
        let place = tempfile::Builder::new().prefix("rct-disk-").tempdir().expect("temp dir");
        let mut recorder = None;
        let mut host = TestHost::start_on(|root| {
            let made = Recorder::start(place.path(), DISK);
            mount(&["-t", "ext4"], made.device(), root);
            recorder = Some(made);
        });
        let registry = Registry::start(&host);
        if let Some(call) = left_out {
            Injector::attach(&mut host).arm(0, &format!("skip {call}"));
        }
        let mut scene = Self { host, registry: Some(registry), recorder, _place: place, steps: Vec::new(), now: View::new() };
        scene.push("app:1", &[&image::static_layer(), &application("one")]);
        scene.push("app:2", &[&image::static_layer(), &application("two")]);
        done(Command::new("sync").arg("-f").arg(scene.host.root()));
        scene.now = scene.look();
        scene
    }

    fn push(&self, name: &str, layers: &[&[u8]]) {
        let archive = self.host.path().join("push.tar");
        image::archive_of(&archive, name, layers, &serde_json::json!({"Cmd": ["/bin/busybox", "true"]}));
        self.registry.as_ref().expect("it runs").push(&self.host, &archive, name, "oci");
    }

    fn look(&self) -> View {
        let mut view = told(&self.host);
        view.extend(stored(&self.host.root()));
        view
    }

    fn flushes(&self) -> usize {
        self.recorder.as_ref().expect("it records").flushes()
    }

    /// Does something, and notes when it was acknowledged and what holds since.
    fn step(&mut self, args: &[&str]) {
        self.step_ending_with(0, args);
    }

    /// The same, with a container whose exit code that is.
    fn step_ending_with(&mut self, code: i32, args: &[&str]) {
        let asked = self.flushes();
        self.host.rdocker(args.iter().copied()).code(code);
        let answered = self.flushes();
        let after = self.look();
        let before = std::mem::replace(&mut self.now, after.clone());
        self.steps.push(Step { what: args.join(" "), before, after, asked, answered });
    }

    /// A bit of everything that writes.
    fn play(&mut self) {
        let archive = self.host.path().join("load.tar");
        image::archive(&archive, "loaded:1", &application("three"), &serde_json::json!({}));
        let archive = archive.to_str().expect("a path").to_owned();
        let (one, two) = (self.name("app:1"), self.name("app:2"));
        let writes = |place: &str| format!("echo precious | /bin/busybox dd of={place}/{SYNCED} conv=fsync 2>/dev/null; exit 7");
        self.step(&["pull", "-q", &one]);
        self.step(&["load", "-q", "-i", &archive]);
        self.step(&["create", "--name", "written", "--network", "none", &one, "/bin/busybox", "sh", "-c", &writes("")]);
        self.step_ending_with(7, &["start", "-a", "written"]);
        self.step(&["commit", "written", "made:1"]);
        self.step(&["tag", "made:1", "made:2"]);
        self.step(&["volume", "create", "kept"]);
        let volume = writes("/kept");
        let run = ["run", "--name", "other", "--network", "none", "-v", "kept:/kept", &two, "/bin/busybox", "sh", "-c", &volume];
        self.step_ending_with(7, &run);
        self.step(&["run", "--rm", "--network", "none", "made:1", "/bin/busybox", "true"]);
        self.step(&["network", "create", "mine"]);
        self.step(&["rename", "other", "another"]);
        self.step(&["rm", "written"]);
        self.step(&["rmi", &one]);
        self.step(&["rmi", "made:1"]);
        self.step(&["container", "prune", "-f"]);
        self.step(&["image", "prune", "-a", "-f"]);
        self.step(&["network", "rm", "mine"]);
        self.step(&["pull", "-q", &two]);
        self.step(&["system", "prune", "-a", "-f"]);
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.as_ref().expect("it runs").address)
    }

    /// The end of the recording; the host stays, with an empty place where its root was.
    fn cut(&mut self) -> Recording {
        self.host.kill_manager();
        drop(self.registry.take());
        self.unmount();
        self.recorder.take().expect("it recorded").finish()
    }

    /// What the killed manager was just forking has its files, too, until it executes something.
    fn unmount(&self) {
        let root = self.host.root();
        self.host.eventually("the disk is left", || Command::new("umount").arg(&root).output().expect("run umount").status.success());
    }

    /// What is wrong with the disk after that flush, for a fresh boot.
    fn examine(&mut self, replay: &mut Replay<'_>, flush: usize, torn: Option<u64>) -> Vec<String> {
        replay.advance(flush);
        let image = self.host.path().join("after");
        replay.copy(&image, torn);
        let (root, state) = (self.host.root(), self.host.state());
        mount(&["-o", "loop"], &image, &root);
        std::fs::remove_dir_all(&state).ok();
        let (done_steps, under_way) = self.split(flush, torn.is_some());
        let mut wrong = differences(&stored(&root), &done_steps, &under_way, true);
        let checked = self.host.fsck(&[]);
        if checked.code != 0 {
            wrong.push(checked.to_string());
        } else {
            self.host.start_manager();
            wrong.extend(differences(&told(&self.host), &done_steps, &under_way, false));
            self.host.kill_manager();
        }
        self.unmount();
        std::fs::remove_file(&image).expect("remove the image");
        wrong
    }

    /// What had been acknowledged after so many flushes, and what may be there besides.
    fn split(&self, flush: usize, torn: bool) -> (View, Vec<View>) {
        let acknowledged = self.steps.iter().rev().find(|step| step.answered <= flush).map(|step| step.after.clone());
        let begun = |step: &&Step| step.answered > flush && (step.asked < flush || torn && step.asked == flush);
        let under_way = self.steps.iter().filter(begun).map(|step| step.after.clone()).collect();
        (acknowledged.unwrap_or_else(|| self.steps[0].before.clone()), under_way)
    }

    fn at(&self, flush: usize) -> String {
        let step = self.steps.iter().find(|step| flush < step.answered).or(self.steps.last()).expect("steps");
        format!("{} (flushes {} to {})", step.what, step.asked, step.answered)
    }
}

fn mount(options: &[&str], what: &Path, place: &Path) {
    done(Command::new("mount").args(options).arg(what).arg(place));
}

fn application(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    image::directory(&mut tar, "app/", 0o755);
    for n in 0..12 {
        image::append(&mut tar, &format!("app/{name}-{n}"), 0o640, format!("{name} {n}\n").repeat(700 * n + 1).as_bytes());
    }
    tar.into_inner().expect("finish the layer")
}

/// Where `found` is neither what was acknowledged nor what something under way makes of it.
fn differences(found: &View, acknowledged: &View, under_way: &[View], files: bool) -> Vec<String> {
    let views = || std::iter::once(acknowledged).chain(under_way);
    let keys: BTreeSet<&String> = views().chain([found]).flat_map(View::keys).filter(|key| key.starts_with("file ") == files).collect();
    let mut wrong = Vec::new();
    for key in keys {
        let allowed: Vec<Option<&String>> = views().map(|view| view.get(key)).collect();
        let changing = allowed.iter().any(|value| *value != allowed[0]);
        let passing = changing && ["file ", "container ", "exit code "].iter().any(|kind| key.starts_with(kind));
        // What nobody asked for is rubbish, which is for `fsck` to tell.
        let unasked = files && allowed.iter().all(Option::is_none);
        if !passing && !unasked && !allowed.contains(&found.get(key)) {
            wrong.push(format!("{key} is {:?}, allowed is {allowed:?}", found.get(key)));
        }
    }
    wrong
}

/// Another boot: what is good for one boot only is worth nothing now.
fn another_boot(host: &TestHost) -> Vec<OsString> {
    let id = host.path().join("boot-id");
    std::fs::write(&id, "00000000-1111-4222-8333-444444444444\n").expect("write a boot id");
    // Whatever goes in circles over such a disk ends, and does not hold the test up.
    let script = "ulimit -t 60 && mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-c", script].map(OsString::from);
    words.into_iter().chain([id.into_os_string()]).collect()
}

fn record(left_out: Option<&str>) -> (Scene, Recording) {
    let mut scene = Scene::new(left_out);
    scene.play();
    let recording = scene.cut();
    let launcher = another_boot(&scene.host);
    // What a disk that has lied holds may send a reader in circles.
    let patient = ["timeout", "-s", "KILL", "60"].map(OsString::from).into_iter().chain(launcher.clone()).collect();
    scene.host.set_launchers(launcher, patient);
    (scene, recording)
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let (mut scene, recording) = record(None);
    let (first, last) = (scene.steps[0].asked, recording.flushes());
    let (mut random, sample) = effort(SAMPLE);
    let mut replay = recording.replay(&scene.host.path().join("replay"));
    let mut failures = Vec::new();
    let states = random.sample(sample, last - first + 1);
    for state in &states {
        for torn in [None, Some(random.below(u64::MAX) | 1)] {
            let flush = first + state;
            let wrong = scene.examine(&mut replay, flush, torn);
            if !wrong.is_empty() {
                failures.push(format!("flush {flush}, torn {torn:?}, {}:\n{}", scene.at(flush), wrong.join("\n")));
            }
        }
    }
    println!("{} of {} flushes, twice each", states.len(), last - first + 1);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The test above can fail: each kind of sync is missed.
fn is_missed(call: &str) {
    let (mut scene, recording) = record(Some(call));
    let (first, last) = (scene.steps[0].asked, recording.flushes());
    let mut replay = recording.replay(&scene.host.path().join("replay"));
    let missed = (first..=last).step_by(3).any(|flush| !scene.examine(&mut replay, flush, None).is_empty());
    assert!(missed, "nobody noticed that {call} did nothing");
}

#[test]
fn a_blob_that_is_not_synced_is_noticed() {
    is_missed("fsync");
}

#[test]
fn a_layer_that_is_not_synced_is_noticed() {
    is_missed("syncfs");
}

#[test]
fn a_database_that_is_not_synced_is_noticed() {
    is_missed("fdatasync");
}
