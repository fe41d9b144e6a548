//! The mounts of a container, in the order in which they are made.

use std::path::Path;

use serde_json::{Value, json};

use super::{INIT_PATH, Inputs};
use crate::containers::{Container, MountKind, MountPoint};

pub(super) fn all(container: &Container, inputs: &Inputs<'_>) -> Vec<Value> {
    let taken = |destination: &str| container.mounts.iter().any(|mount| mount.destination == destination);
    let mut list: Vec<(String, Value)> = base(container, inputs);
    list.extend(files(inputs));
    if container.host_config.init == Some(true) {
        list.push((INIT_PATH.to_owned(), bind(inputs.init, INIT_PATH, &["bind", "ro"])));
    }
    list.retain(|(destination, _)| !taken(destination));
    let own = container.mounts.iter().map(mount_point);
    list.into_iter().map(|(_, mount)| mount).chain(own).collect()
}

fn base(container: &Container, inputs: &Inputs<'_>) -> Vec<(String, Value)> {
    let host_config = &container.host_config;
    let access = if host_config.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        (destination.to_owned(), json!({ "destination": destination, "type": kind, "source": source, "options": options }))
    };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ];
    // In the host's IPC namespace this shows the host's queues, whether or not the host has them mounted.
    list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    match (inputs.joined.shm.as_deref(), host_config.ipc_mode.as_str()) {
        (Some(shared), _) => list.push(("/dev/shm".to_owned(), bind(shared, "/dev/shm", &["bind", "rw", "rprivate"]))),
        (None, "host") => list.push(("/dev/shm".to_owned(), bind(Path::new("/dev/shm"), "/dev/shm", &["rbind", "rw"]))),
        (None, "none") => {}
        (None, _) => {
            let size = format!("size={}", host_config.shm_size);
            list.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
        }
    }
    list
}

fn files(inputs: &Inputs<'_>) -> Vec<(String, Value)> {
    let files = &inputs.files;
    let places = [(&files.resolv_conf, "/etc/resolv.conf"), (&files.hostname, "/etc/hostname"), (&files.hosts, "/etc/hosts")];
    places.map(|(source, destination)| (destination.to_owned(), bind(source, destination, &["bind", "rw", "rprivate"]))).to_vec()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn mount_point(mount: &MountPoint) -> Value {
    let access = if mount.read_write { "rw" } else { "ro" };
    if mount.kind == MountKind::Tmpfs {
        return json!({ "destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": tmpfs_options(&mount.tmpfs_options, access) });
    }
    let recursion = if mount.non_recursive { "bind" } else { "rbind" };
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
    bind(Path::new(&mount.source), &mount.destination, &[recursion, access, propagation])
}

/// The safe flags unless their opposites were asked for.
fn tmpfs_options(asked: &[String], access: &str) -> Vec<String> {
    let has = |option: &str| asked.iter().any(|word| word == option);
    let safe = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
    let mut options: Vec<String> =
        safe.iter().filter(|(flag, opposite)| !has(opposite) && !has(flag)).map(|(flag, _)| (*flag).to_owned()).collect();
    options.extend(asked.iter().filter(|option| !matches!(option.as_str(), "ro" | "rw")).cloned());
    options.push(access.to_owned());
    options
}
