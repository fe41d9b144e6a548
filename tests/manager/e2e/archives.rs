//! Archives between us and Debian's docker, podman, skopeo and umoci, in both directions and both formats.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rcontainerd_tests::{Outcome, TestHost};

const IMAGE: &str = "two:1";

/// A host with an image of two layers.
fn host() -> TestHost {
    let host = TestHost::with_busybox();
    host.rdocker(["run", "--name", "maker", "--network", "none", "busybox", "sh", "-c", "echo carried >/carried"]).success();
    host.rdocker(["commit", "-m", "a file", "maker", IMAGE]).success();
    host.rdocker(["rm", "maker"]).success();
    host
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn save(host: &TestHost, file: &str) -> PathBuf {
    let path = host.path().join(file);
    host.rdocker(["save", "-o", text(&path), IMAGE]).success();
    path
}

/// Loads what another program wrote, finds the same image, and runs it.
fn comes_back(host: &TestHost, archive: &Path, name: &str, id: Option<&str>) {
    host.rdocker(["rmi", "-f", IMAGE]).success();
    let loaded = host.rdocker(["load", "-i", text(archive)]).success();
    assert!(loaded.stdout.contains("Loaded image"), "{loaded}");
    let found = host.rdocker(["inspect", "-f", "{{.Id}}", name]).success().word();
    assert!(id.is_none_or(|id| id == found), "{found} is not {id:?}");
    host.rdocker(["run", "--rm", "--network", "none", name, "cat", "/carried"]).success().stdout("carried\n");
}

fn id(host: &TestHost) -> String {
    host.rdocker(["inspect", "-f", "{{.Id}}", IMAGE]).success().word()
}

#[test]
fn two_saves_are_the_same_bytes() {
    let host = host();
    let (one, other) = (save(&host, "one.tar"), save(&host, "other.tar"));
    assert!(std::fs::read(one).expect("read") == std::fs::read(other).expect("read"));
}

#[test]
fn skopeo_reads_and_writes_both_formats() {
    let host = host();
    let (ours, wanted) = (save(&host, "ours.tar"), id(&host));
    let skopeo = |from: &str, to: &str| host.run(Path::new("skopeo"), ["copy", "--insecure-policy", from, to]).success();
    for (n, from) in [format!("docker-archive:{}", ours.display()), format!("oci-archive:{}", ours.display())].iter().enumerate() {
        let docker = host.path().join(format!("docker-{n}.tar"));
        skopeo(from, &format!("docker-archive:{}:{IMAGE}", docker.display()));
        comes_back(&host, &docker, IMAGE, None);
        let oci = host.path().join(format!("oci-{n}.tar"));
        skopeo(from, &format!("oci-archive:{}:{IMAGE}", oci.display()));
        comes_back(&host, &oci, IMAGE, Some(&wanted).filter(|_| n == 1).map(String::as_str));
    }
}

#[test]
fn umoci_unpacks_and_changes_what_we_save() {
    let host = host();
    let (ours, layout) = (save(&host, "ours.tar"), host.path().join("layout"));
    std::fs::create_dir(&layout).expect("make a directory");
    host.run(Path::new("tar"), ["-xf", text(&ours), "-C", text(&layout)]).success();
    let (image, bundle) = (format!("{}:1", layout.display()), host.path().join("bundle"));
    host.run(Path::new("umoci"), ["unpack", "--image", &image, text(&bundle)]).success();
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/carried")).expect("read"), "carried\n");
    std::fs::write(bundle.join("rootfs/more"), "more\n").expect("write");
    let changed = format!("{}:changed", layout.display());
    host.run(Path::new("umoci"), ["repack", "--image", &changed, text(&bundle)]).success();
    let alone = format!("oci:{}:changed", layout.display());
    let archive = host.path().join("changed.tar");
    host.run(Path::new("skopeo"), ["copy", "--insecure-policy", &alone, &format!("oci-archive:{}:more:1", archive.display())]).success();
    comes_back(&host, &archive, "more:1", None);
    host.rdocker(["run", "--rm", "--network", "none", "more:1", "cat", "/more"]).success().stdout("more\n");
}

#[test]
fn podman_reads_and_writes_both_formats() {
    let host = host();
    let (ours, wanted) = (save(&host, "ours.tar"), id(&host));
    let place = host.path().join("podman");
    let podman = |args: &[&str]| {
        let dir = |name: &str| text(&place.join(name)).to_owned();
        let (root, run, tmp) = (dir("root"), dir("run"), dir("tmp"));
        let own = ["--root", &root, "--runroot", &run, "--tmpdir", &tmp, "--storage-driver", "vfs", "--events-backend", "file"];
        host.run(Path::new("podman"), own.into_iter().chain(args.iter().copied())).success()
    };
    podman(&["load", "-i", text(&ours)]);
    let name = format!("docker.io/library/{IMAGE}");
    assert_eq!(format!("sha256:{}", podman(&["inspect", "-f", "{{.Id}}", &name]).word()), wanted);
    for format in ["docker-archive", "oci-archive"] {
        let theirs = host.path().join(format!("{format}.tar"));
        podman(&["save", "--format", format, "-o", text(&theirs), &name]);
        comes_back(&host, &theirs, IMAGE, None);
    }
}

/// Debian's dockerd in the host's network, without a network of its own.
struct Dockerd<'a> {
    host: &'a TestHost,
    daemon: Child,
    socket: String,
}

impl<'a> Dockerd<'a> {
    fn start(host: &'a TestHost) -> Self {
        let dir = |name: &str| host.path().join("dockerd").join(name);
        let socket = format!("unix://{}", dir("socket").display());
        let log = host.path().join("dockerd.log");
        let mut command = host.command("dockerd");
        command.arg("--data-root").arg(dir("data")).arg("--exec-root").arg(dir("exec")).arg("--pidfile").arg(dir("pid"));
        command.args(["--host", &socket, "--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        std::fs::create_dir_all(dir("exec")).expect("make a directory");
        let log = std::fs::File::create(log).expect("make a log");
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start dockerd");
        let dockerd = Self { host, daemon, socket };
        host.eventually("dockerd answers", || dockerd.call(&["version"]).code == 0);
        dockerd
    }

    fn call(&self, args: &[&str]) -> Outcome {
        self.host.run(Path::new("/usr/bin/docker"), ["-H", &self.socket].into_iter().chain(args.iter().copied()))
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        // It ends its containerd, too, which a kill would not.
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        drop(self.daemon.wait());
    }
}

#[test]
fn docker_reads_what_we_save_and_we_read_what_it_saves() {
    let host = host();
    let (ours, wanted) = (save(&host, "ours.tar"), id(&host));
    let dockerd = Dockerd::start(&host);
    dockerd.call(&["load", "-i", text(&ours)]).success().stdout_has(&format!("Loaded image: {IMAGE}"));
    assert_eq!(dockerd.call(&["inspect", "-f", "{{.Id}}", IMAGE]).success().word(), wanted);
    let theirs = host.path().join("theirs.tar");
    dockerd.call(&["save", "-o", text(&theirs), IMAGE]).success();
    comes_back(&host, &theirs, IMAGE, Some(&wanted));

    // A file system goes the same way.
    let exported = host.path().join("exported.tar");
    host.rdocker(["create", "--name", "source", "--network", "none", IMAGE]).success();
    host.rdocker(["export", "-o", text(&exported), "source"]).success();
    host.rdocker(["rm", "source"]).success();
    dockerd.call(&["import", "-c", "CMD [\"sh\"]", text(&exported), "imported:1"]).success();
    dockerd.call(&["create", "--name", "back", "imported:1"]).success();
    let again = host.path().join("again.tar");
    dockerd.call(&["export", "-o", text(&again), "back"]).success();
    host.rdocker(["import", text(&again), "round:1"]).success();
    host.rdocker(["run", "--rm", "--network", "none", "round:1", "/bin/busybox", "cat", "/carried"]).success().stdout("carried\n");
}
