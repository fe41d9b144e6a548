//! What a store holds, as its users see it: names with their values, and files with their bytes.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rcontainerd_tests::{TestHost, image::hex_sha256};

/// Things by name: `image NAME` → id, `container NAME` → how it ended, `volume NAME`, `network NAME`, `file PATH` → what it is.
pub type View = BTreeMap<String, String>;

/// Files with this name have been synced by whoever wrote them, wherever they are.
pub const SYNCED: &str = "synced";

/// Every manager that starts has it.
const SHIPPED: &str = "image rcontainerd/hello:latest";

/// What the manager tells.
pub fn told(host: &TestHost) -> View {
    let mut view = View::new();
    for (kind, args) in [
        ("image", &["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}}={{.ID}}"][..]),
        ("container", &["ps", "-a", "--no-trunc", "--format", "{{.Names}}={{.ID}} {{.State}} {{.Image}}"]),
        ("volume", &["volume", "ls", "--format", "{{.Name}}={{.Driver}}"]),
        ("network", &["network", "ls", "--no-trunc", "--format", "{{.Name}}={{.ID}}"]),
    ] {
        let listed = host.rdocker(args.iter().copied()).success().stdout;
        let named =
            listed.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (format!("{kind} {name}"), value.to_owned()));
        view.extend(named.filter(|(name, _)| name != SHIPPED));
    }
    let names: Vec<String> = view.keys().filter_map(|key| key.strip_prefix("container ")).map(str::to_owned).collect();
    if !names.is_empty() {
        let codes = host.rdocker(["inspect", "-f", "{{.Name}}={{.State.ExitCode}}"].into_iter().chain(names.iter().map(String::as_str)));
        for (name, code) in codes.success().stdout.lines().filter_map(|line| line.split_once('=')) {
            view.insert(format!("exit code {}", name.trim_start_matches('/')), code.to_owned());
        }
    }
    view
}

/// What lies in the root directory that must not change: blobs, layers, and what was synced of containers and volumes.
pub fn stored(root: &Path) -> View {
    let mut view = View::new();
    collect(root, &root.join("content/blobs"), &|_| true, &mut view);
    for snapshotter in ["overlayfs", "native"] {
        for dir in entries(&root.join("snapshots").join(snapshotter)) {
            // A layer, or something that is still written to.
            let active = dir.join("work").exists();
            collect(root, &dir.join("fs"), &|path| !active || path.file_name().is_some_and(|name| name == SYNCED), &mut view);
        }
    }
    collect(root, &root.join("volumes"), &|path| path.file_name().is_some_and(|name| name == SYNCED), &mut view);
    view
}

fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn collect(root: &Path, dir: &Path, wanted: &dyn Fn(&Path) -> bool, view: &mut View) {
    for path in entries(dir) {
        // Removed while we look.
        let Ok(found) = path.symlink_metadata() else { continue };
        if wanted(&path) {
            let name = path.strip_prefix(root).expect("below the root").display();
            view.insert(format!("file {name}"), description(&path, &found));
        }
        if found.is_dir() {
            collect(root, &path, wanted, view);
        }
    }
}

fn description(path: &Path, found: &std::fs::Metadata) -> String {
    let kind = found.file_type();
    let content = if kind.is_file() {
        // A damaged file system is something to be told, not to fail by.
        std::fs::read(path).map_or_else(|err| err.to_string(), |bytes| hex_sha256(&bytes))
    } else if kind.is_symlink() {
        std::fs::read_link(path).map_or_else(|err| err.to_string(), |to| to.display().to_string())
    } else if kind.is_char_device() {
        format!("device {}", found.rdev())
    } else {
        String::new()
    };
    let times = if kind.is_file() { format!("{}.{:09}", found.mtime(), found.mtime_nsec()) } else { String::new() };
    format!("{:o} {}:{} {times} {content}", found.mode(), found.uid(), found.gid())
}
