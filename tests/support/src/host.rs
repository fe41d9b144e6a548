//! A manager of the test's own: directories, network namespace, cgroup parent, bridge; and what it leaves behind.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Client, Outcome, image, leftovers};

/// How long a manager may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The image that [`TestHost::with_busybox`] loads.
pub const BUSYBOX: &str = "busybox";

pub struct TestHost {
    /// Holds root, state and the log; its random name is what leftovers are recognised by.
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    cgroup: String,
    manager: Option<Child>,
    /// Keeps the network namespace alive while the manager is down.
    netns: Child,
    programs: PathBuf,
    client: Client,
    /// The root is a mount of our own making.
    small_disk: bool,
    /// Words before `rcontainerd` when the manager is started.
    launcher: Vec<OsString>,
    /// The same, when `rcontainerd fsck` is run.
    fsck_launcher: Vec<OsString>,
}

impl TestHost {
    /// Starts a manager with nothing in it.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a manager whose root is on a file system of so many MiB.
    pub fn start_on_small_disk(mebibytes: u32) -> Self {
        Self::start_on(|root| small_disk(root, mebibytes))
    }

    /// Starts a manager whose root is what `mount` makes of the empty directory that it is given.
    pub fn start_on(mount: impl FnOnce(&Path)) -> Self {
        Self::build("", Some(mount))
    }

    /// Starts a manager with further lines in its configuration file.
    pub fn start_with(config: &str) -> Self {
        Self::build(config, None::<fn(&Path)>)
    }

    fn build(config: &str, mount: Option<impl FnOnce(&Path)>) -> Self {
        let dir = tempfile::Builder::new().prefix("rct-").tempdir().expect("temp dir");
        let path = dir.path().to_owned();
        let cgroup = path.file_name().expect("a name").to_string_lossy().into_owned();
        // A process that sleeps in the new namespace for as long as its standard input is open.
        let netns = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let small_disk = mount.is_some();
        if let Some(mount) = mount {
            std::fs::create_dir(path.join("root")).expect("make the root directory");
            mount(&path.join("root"));
        }
        let mut host = Self {
            small_disk,
            launcher: Vec::new(),
            fsck_launcher: Vec::new(),
            dir: Some(dir),
            path,
            cgroup,
            manager: None,
            netns,
            programs: programs(),
            client: Client::Ours,
        };
        host.await_netns();
        std::fs::write(host.path.join("config.toml"), format!("cgroup_parent = \"/{}\"\n{config}", host.cgroup))
            .expect("write the configuration");
        host.start_manager();
        host
    }

    /// Starts a manager that has the image `busybox`.
    pub fn with_busybox() -> Self {
        let host = Self::start();
        let archive = host.path.join("busybox.tar");
        image::busybox_archive(&archive, "busybox:latest");
        host.rdocker(["load", "-i", archive.to_str().expect("a path")]).success();
        host
    }

    /// Has [`Self::docker`] run this client.
    pub fn with_client(mut self, client: Client) -> Self {
        self.client = client;
        self
    }

    pub fn client(&self) -> Client {
        self.client
    }

    fn await_netns(&mut self) {
        use std::io::Read;
        let mut ready = [0; 6];
        self.netns.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("the network namespace is made");
    }

    /// A directory for the test's own files, removed with the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.state().join("docker.sock")
    }

    pub fn manager_pid(&self) -> u32 {
        self.manager.as_ref().expect("the manager runs").id()
    }

    /// Runs a program inside the host's network namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.netns.id())).arg("--").arg(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).env("HOME", &self.path).current_dir(&self.path);
        command
    }

    /// Does something on a thread that is in the host's network namespace.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `work` panics.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.netns.id())).expect("open the network namespace");
        let enter = move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))
                .expect("enter the network namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("the work in the network is done"))
    }

    /// Runs `rdocker ARGS` to its end, without standard input.
    pub fn rdocker<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        self.run(&self.programs.join("rdocker"), args)
    }

    /// Runs the chosen client's `docker ARGS` to its end, without standard input.
    pub fn docker<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        self.run(&self.client.program(), args)
    }

    /// Runs any client's command to its end, without standard input.
    pub fn run<'a>(&self, program: &Path, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        let args: Vec<&str> = args.into_iter().collect();
        let output = self.command(program).args(&args).stdin(Stdio::null()).output().expect("run a client");
        Outcome::new(format!("{} {}", program.file_name().expect("a name").display(), args.join(" ")), &output)
    }

    /// `rcontainerd fsck ARGS` of this host.
    pub fn fsck(&self, args: &[&str]) -> Outcome {
        let mut command = self.manager_command(&self.fsck_launcher);
        let output = command.arg("fsck").args(args).stdin(Stdio::null()).output().expect("run rcontainerd");
        Outcome::new(format!("rcontainerd fsck {}", args.join(" ")), &output)
    }

    /// The chosen client's `docker ARGS`, started; the caller drives its pipes.
    pub fn spawn<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Child {
        let mut command = self.command(self.client.program());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the client")
    }

    /// `rcontainerd` with this host's directories, behind a launcher's words.
    fn manager_command(&self, launcher: &[OsString]) -> Command {
        let program = self.programs.join("rcontainerd").into_os_string();
        let mut words = launcher.iter().chain([&program]);
        let mut command = self.command(words.next().expect("the program at least"));
        command.args(words).arg("--root").arg(self.root()).arg("--state").arg(self.state());
        command.arg("--config").arg(self.path.join("config.toml"));
        command
    }

    /// What the next managers, and `fsck`, are started by: a program with its arguments that executes the rest of its command line in place.
    pub fn set_launchers(&mut self, manager: Vec<OsString>, fsck: Vec<OsString>) {
        (self.launcher, self.fsck_launcher) = (manager, fsck);
    }

    pub fn start_manager(&mut self) {
        assert!(self.manager.is_none(), "the manager runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("open the manager's log");
        let mut command = self.manager_command(&self.launcher);
        self.manager = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start rcontainerd"));
        self.await_answer();
    }

    /// nsenter(1) executes the manager in place, so the child's pid is the manager's.
    fn await_answer(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.listens() {
            let ended = self.manager.as_mut().expect("just started").try_wait().expect("wait for the manager");
            assert!(ended.is_none() && Instant::now() < end, "the manager does not answer ({ended:?}); its log:\n{}", self.log());
            pause();
        }
    }

    /// Whether it is this manager that listens: what a killed one was just forking holds its socket until it executes something.
    fn listens(&self) -> bool {
        let Ok(connection) = std::os::unix::net::UnixStream::connect(self.socket()) else { return false };
        let listener = rustix::net::sockopt::socket_peercred(&connection).expect("ask who listens").pid;
        u32::try_from(listener.as_raw_nonzero().get()).is_ok_and(|pid| pid == self.manager_pid())
    }

    fn log_path(&self) -> PathBuf {
        self.path.join("manager.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// `kill -9`, as a crash would.
    pub fn kill_manager(&mut self) {
        let mut manager = self.manager.take().expect("the manager runs");
        manager.kill().expect("kill");
        manager.wait().expect("wait");
    }

    /// SIGTERM, and the wait for a good end.
    pub fn stop_manager(&mut self) {
        let mut manager = self.manager.take().expect("the manager runs");
        let pid = rustix::process::Pid::from_child(&manager);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        let end = Instant::now() + PATIENCE;
        loop {
            match manager.try_wait().expect("wait") {
                Some(status) => break assert!(status.success(), "the manager ended with {status}; its log:\n{}", self.log()),
                None => assert!(Instant::now() < end, "the manager does not end; its log:\n{}", self.log()),
            }
            pause();
        }
    }

    /// Waits until `test` holds; the condition lies in another process, so there is nothing to be woken by.
    #[track_caller]
    pub fn eventually(&self, what: &str, mut test: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !test() {
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}; the manager's log:\n{}", self.log());
            pause();
        }
    }

    /// What carries this host's name beyond the manager itself: shims, mounts, cgroups, files below tasks/ and netns/.
    pub fn leftovers(&self) -> Vec<String> {
        let name = self.path.display().to_string();
        let own: Vec<i32> = self.manager.iter().map(|manager| manager.id().cast_signed()).collect();
        let processes = leftovers::processes(&name)
            .into_iter()
            .filter(|(pid, _)| !own.contains(pid))
            .map(|(pid, line)| format!("process {pid}: {line}"));
        let own_mount = self.small_disk.then(|| self.root());
        let mounts = leftovers::mounts(&self.path)
            .into_iter()
            .filter(|mount| Some(mount) != own_mount.as_ref())
            .map(|mount| format!("mount {}", mount.display()));
        let cgroups = leftovers::cgroups(&self.cgroup)
            .into_iter()
            .filter(|dir| !dir.ends_with(&self.cgroup))
            .map(|dir| format!("cgroup {}", dir.display()));
        let files = ["tasks/moby", "netns", "s"]
            .into_iter()
            .flat_map(|dir| std::fs::read_dir(self.state().join(dir)).into_iter().flatten().flatten());
        processes.chain(mounts).chain(cgroups).chain(files.map(|file| format!("file {}", file.path().display()))).collect()
    }

    /// What is still there after a while: a shim that waits to deliver its last events to a manager that was away ends a moment later.
    pub fn lasting_leftovers(&self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.leftovers();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            pause();
        }
    }

    fn remove_containers(&self) {
        let ids = self.rdocker(["ps", "-aq"]).stdout;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.rdocker(["rm", "-f"].into_iter().chain(ids));
        }
    }

    /// Ends by force whatever still carries our name, so that one failed test does not disturb the next.
    fn sweep(&mut self) {
        let name = self.path.display().to_string();
        for (pid, _) in leftovers::processes(&name) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // A process that ended meanwhile is what we want.
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        for mount in leftovers::mounts(&self.path) {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).ok();
        }
        // A container's processes carry no name of the host: their cgroups tell which they are.
        leftovers::end_cgroups(&self.cgroup, PATIENCE);
        drop(self.netns.stdin.take());
        drop(self.netns.wait());
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            eprintln!("--- the manager's log\n{}", self.log());
        } else if self.manager.is_some() {
            self.remove_containers();
        }
        let mut left = if failing { Vec::new() } else { self.lasting_leftovers() };
        if !failing && self.manager.is_some() {
            let checked = self.fsck(&["--quick"]);
            left.extend((checked.code != 0).then(|| checked.to_string()));
        }
        if let Some(mut manager) = self.manager.take() {
            drop(manager.kill());
            drop(manager.wait());
        }
        self.sweep();
        drop(self.dir.take());
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

/// Where `./run --build-only` leaves the programs.
pub fn programs() -> PathBuf {
    let dir = std::env::var_os("RCONTAINERD_PROGRAMS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"));
    let dir = dir.canonicalize().unwrap_or_else(|err| panic!("{}: {err}; run ./run --build-only first", dir.display()));
    assert!(dir.join("rcontainerd").is_file(), "{} has no rcontainerd: run ./run --build-only first", dir.display());
    dir
}

/// A tmpfs, as it is made at once; overlay works on it.
fn small_disk(root: &Path, mebibytes: u32) {
    let size = std::ffi::CString::new(format!("size={mebibytes}m,mode=0711")).expect("no zero byte");
    rustix::mount::mount("tests", root, "tmpfs", rustix::mount::MountFlags::empty(), Some(size.as_c_str())).expect("mount a tmpfs");
}

/// Between two looks at another process.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}
