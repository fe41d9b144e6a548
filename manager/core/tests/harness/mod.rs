//! An engine of the test's own: real store, real shim, real runtime, an image made from busybox.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;
use rcontainerd_core::containers::{
    AttachContainer, Config, CreateContainer, HostConfig, InspectContainer, RemoveContainer, StartContainer, State, WaitCondition,
    WaitContainer,
};
use rcontainerd_core::io::{OutputKind, ProcessIo};
use rcontainerd_core::{Core, CoreConfig};
use rcontainerd_network::NetworkConfig;
use rcontainerd_store::Store;
use rcontainerd_task::{TaskConfig, TaskService};

/// Longer than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Engine {
    pub dir: tempfile::TempDir,
    pub core: Core,
    cleanup: Cleanup,
}

/// Shim, runtime and init, built once; `CORE_TEST_RUNTIME` names another runtime.
struct Programs {
    shim: PathBuf,
    runtime: PathBuf,
    init: PathBuf,
}

fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let packages = ["-p", "containerd-shim-rrun-v2", "-p", "rrun", "-p", "rcontainerd-init"];
        let built = Command::new(env!("CARGO")).arg("build").args(packages).status().expect("run cargo");
        assert!(built.success(), "the shim and the runtime must build");
        // target/debug/deps/<this test>
        let test = std::env::current_exe().expect("own path");
        let beside = test.parent().and_then(Path::parent).expect("target directory").to_owned();
        let runtime = std::env::var_os("CORE_TEST_RUNTIME").map_or_else(|| beside.join("rrun"), PathBuf::from);
        Programs { shim: beside.join("containerd-shim-rrun-v2"), runtime, init: beside.join("rcontainerd-init") }
    })
}

/// Each engine's own: the tests run beside each other, and one that ends must not remove the cgroup that another has just made.
pub fn cgroup_of(dir: &Path) -> String {
    format!("core-test-{}", dir.file_name().expect("the engine's directory has a name").to_string_lossy())
}

pub async fn open(dir: &Path) -> Core {
    let programs = programs();
    let state_dir = dir.join("s");
    std::fs::create_dir_all(&state_dir).expect("state directory");
    let store = Store::open(&dir.join("root")).expect("store");
    let tasks = TaskConfig {
        state_dir: state_dir.clone(),
        shim: programs.shim.clone(),
        runtime: programs.runtime.clone(),
        publish_binary: programs.shim.clone(),
        timeout: Duration::from_secs(20),
    };
    let tasks = TaskService::open(tasks).await.expect("task service");
    let config = CoreConfig {
        runtimes: std::collections::BTreeMap::new(),
        network: NetworkConfig { bridge: "core0".into(), nft_table: "core_test".into(), ..NetworkConfig::new(state_dir.join("netns")) },
        netd: Vec::new(),
        state_dir,
        runtime: programs.runtime.clone(),
        init: programs.init.clone(),
        cgroup_parent: format!("/{}", cgroup_of(dir)),
        registry: rcontainerd_core::images::RegistryConfig::default(),
        caps: rcontainerd_core::images::Caps::default(),
        version: "0".into(),
        git_commit: String::new(),
    };
    Core::open(config, store, tasks).await.expect("core")
}

/// Also after a failure nothing stays: shims and their children end, mounts and cgroups go.
pub struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let script = r#"
            for process in /proc/[0-9]*; do
                case "$(readlink $process/cwd 2>/dev/null)" in
                    "$1"/*) kill -9 $(cat $process/task/*/children 2>/dev/null) "${process#/proc/}" 2>/dev/null;;
                esac
            done
            grep -F "$1" /proc/self/mountinfo | cut -d' ' -f5 | sort -r | while read -r mount; do umount -l "$mount"; done
            find /sys/fs/cgroup -depth -type d \( -path "*/$2" -o -path "*/$2/*" \) -exec rmdir {} + 2>/dev/null
            rm -rf "$1"
        "#;
        let ran = Command::new("sh").args(["-c", script, "sh"]).arg(&self.0).arg(cgroup_of(&self.0)).status();
        assert!(ran.is_ok() || std::thread::panicking(), "clean up: {ran:?}");
    }
}

impl Engine {
    pub async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("core").tempdir().expect("temp dir");
        let core = open(dir.path()).await;
        core.images.load(Cursor::new(image()), None).await.expect("load the image");
        let cleanup = Cleanup(dir.path().to_owned());
        Self { dir, core, cleanup }
    }

    /// Another manager on the same directories, once the first has let go of them.
    pub async fn restart(self) -> Self {
        let Self { dir, core, cleanup } = self;
        core.close();
        drop(core);
        within(async {
            while let Err(err) = Store::open(&dir.path().join("root")) {
                assert_eq!(err.kind(), rcontainerd_types::ErrorKind::Conflict, "{err}");
                tokio::task::yield_now().await;
            }
        })
        .await;
        let core = open(dir.path()).await;
        Self { dir, core, cleanup }
    }

    pub async fn create(&self, request: CreateContainer) -> String {
        self.core.containers.create(request).await.expect("create").id
    }

    pub async fn start(&self, id: &str) {
        self.core.containers.start(StartContainer { id: id.to_owned(), console_size: None }).await.expect("start");
    }

    pub async fn state(&self, id: &str) -> State {
        let command = InspectContainer { id: id.to_owned(), size: false };
        self.core.containers.inspect(command).await.expect("inspect").container.state
    }

    pub async fn wait(&self, id: &str, condition: WaitCondition) -> i64 {
        let waiter = self.core.containers.wait(WaitContainer { id: id.to_owned(), condition }).await.expect("wait");
        within(waiter).await.expect("waited").exit_code
    }

    pub async fn remove(&self, id: &str) {
        self.core.containers.remove(RemoveContainer { id: id.to_owned(), force: true, volumes: true }).await.expect("remove");
    }

    /// Create, attach, start, wait, as `docker run` does; gives code, stdout, stderr.
    pub async fn run(&self, request: CreateContainer) -> (i64, String, String) {
        let id = self.create(request).await;
        let attach = AttachContainer { id: id.clone(), stream: true, stdout: true, stderr: true, ..AttachContainer::default() };
        let io = self.core.containers.attach(attach).await.expect("attach");
        let waiter = self.core.containers.wait(WaitContainer { id: id.clone(), condition: WaitCondition::NextExit }).await.expect("wait");
        self.start(&id).await;
        let (stdout, stderr) = within(collect(io)).await;
        let code = within(waiter).await.expect("waited").exit_code;
        (code, stdout, stderr)
    }

    /// Every container gone, with mounts, processes and run files.
    pub async fn assert_nothing_left(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let own = self.dir.path().to_string_lossy().into_owned();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&own)).collect();
        assert!(left.is_empty(), "mounts left: {left:?}");
        for sub in ["s/c", "s/tasks/moby", "root/containers", "s/s"] {
            let entries =
                std::fs::read_dir(self.dir.path().join(sub)).map(|dir| dir.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
            assert!(entries.as_ref().map_or(true, Vec::is_empty), "left in {sub}: {entries:?}");
        }
    }
}

pub async fn collect(mut io: ProcessIo) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(output) = io.output.next().await {
        let output = output.expect("output");
        let target = if output.kind == OutputKind::Stderr { &mut stderr } else { &mut stdout };
        target.extend_from_slice(&output.data);
    }
    (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// `busybox COMMAND` without network.
pub fn request(words: &[&str]) -> CreateContainer {
    CreateContainer {
        config: Config { image: "busybox".into(), cmd: Some(words.iter().map(|&word| word.to_owned()).collect()), ..Config::default() },
        host_config: HostConfig { network_mode: "none".into(), ..HostConfig::default() },
        ..CreateContainer::default()
    }
}

pub fn shell(script: &str) -> CreateContainer {
    request(&["sh", "-c", script])
}

/// A docker-archive with one layer: the host's static busybox and a few files.
fn image() -> Vec<u8> {
    let layer = layer();
    let digest = rcontainerd_types::Digest::sha256(&layer).to_string();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Env":["PATH=/bin","FROM_IMAGE=yes"],"Cmd":["sh"],"Volumes":{{}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#,
        rcontainerd_types::Platform::host().architecture
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["busybox:latest"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [("layer.tar", layer.as_slice()), ("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())] {
        append(&mut archive, name, bytes, 0o644);
    }
    archive.into_inner().expect("archive")
}

fn layer() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in
        ["sh", "cat", "echo", "true", "sleep", "id", "ls", "env", "hostname", "kill", "wc", "stat", "df", "trap", "touch", "mount"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("link");
    }
    append(&mut layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n", 0o644);
    append(&mut layer, "etc/group", b"root:x:0:\naudio:x:29:me\n", 0o644);
    append(&mut layer, "data/seed", b"seeded\n", 0o640);
    append(&mut layer, "bin/crlf", b"#!/bin/sh\r\necho no\r\n", 0o755);
    append(&mut layer, "bin/plain", b"#!/bin/sh\necho no\n", 0o644);
    append(&mut layer, "bin/nointerp", b"#!/usr/bin/python3\nprint()\n", 0o755);
    layer.into_inner().expect("layer")
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes).expect("entry");
}
