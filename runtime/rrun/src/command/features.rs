use anyhow::Result;
use serde_json::json;

/// Every option of a mount that has a meaning here; others go to the file system as they are.
const MOUNT_OPTIONS: &str = "acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand move noacl noatime nodev nodiratime noexec \
    noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime ridmap relatime remount rexec \
    rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared \
    rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable";

/// What a profile may ask for, each with its bit of seccomp(2).
const SECCOMP_FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1 << 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5),
];

/// `rrun features` (runtime-spec, features.md): what is true of this build, nothing else; checkpoints take a criu that is configured.
pub fn features(checkpoints: bool) -> Result<i32> {
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS.split(' ').collect::<Vec<_>>(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": rrun_core::caps::names(u64::MAX),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                            "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "knownFlags": SECCOMP_FLAGS.map(|(name, _)| name),
                "supportedFlags": SECCOMP_FLAGS.iter().filter(|(_, bit)| rrun_sys::seccomp::flags_available(*bit)).map(|(name, _)| *name).collect::<Vec<_>>(),
                "archs": rrun_core::seccomp::architectures(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {
                "modes": ["MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        // Of config.json's annotations those that change what the runtime does (features.md, Unsafe annotations in config.json).
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
        "annotations": {
            "io.rcontainerd.rrun.version": env!("CARGO_PKG_VERSION"),
            // runc's name for it, which callers ask for.
            "org.opencontainers.runc.checkpoint.enabled": checkpoints.to_string(),
        },
    });
    super::print(&serde_json::to_string_pretty(&document)?)?;
    Ok(0)
}
