use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::Spec;

/// `rrun spec`: a config.json to start from; an existing one is never overwritten.
pub fn spec(args: &Spec) -> Result<i32> {
    let path = args.bundle.clone().unwrap_or_else(|| PathBuf::from(".")).join("config.json");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("{}: remove it first", path.display()))?;
    let document = if args.rootless { rootless() } else { example() };
    writeln!(file, "{}", serde_json::to_string_pretty(&document)?).with_context(|| path.display().to_string())?;
    Ok(0)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

fn example() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "rrun",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces(&["pid", "network", "ipc", "uts", "mount"]),
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                            "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// runc's rule: a cgroup namespace of its own where the host has the v2 tree alone.
fn has_cgroup_namespace() -> bool {
    rrun_cgroup::Host::detect().and_then(|h| h.mode()).is_ok_and(|mode| mode == rrun_cgroup::Mode::V2)
}

fn namespaces(kinds: &[&str]) -> Value {
    let own_cgroups = has_cgroup_namespace().then_some("cgroup");
    kinds.iter().copied().chain(own_cgroups).map(|kind| json!({"type": kind})).collect()
}

/// What an ordinary user may have: no network namespace of its own, its id as root, the host's /sys bound.
fn rootless() -> Value {
    let mut document = example();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    document["linux"]["namespaces"] = namespaces(&["pid", "ipc", "uts", "mount", "user"]);
    document["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    document["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = document["linux"].as_object_mut() {
        linux.remove("resources");
    }
    let kept = document["mounts"].as_array().cloned().unwrap_or_default();
    let mounts = kept.into_iter().map(|m| match m["destination"].as_str() {
        Some("/dev/pts") => mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        Some("/sys") => mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
        _ => m,
    });
    document["mounts"] = mounts.collect();
    document
}
