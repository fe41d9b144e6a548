//! Judges a whole config.json before anything is made: every refusal names the JSON path, the value and the rule.

use std::fmt::Debug;
use std::path::Component;

use super::{Hook, Hooks, IdMapping, Linux, Mount, Namespace, Process, Scheduler, Spec};
use crate::{Error, Result};

const NAMESPACES: [&str; 8] = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];

fn refuse<T>(path: &str, value: impl Debug, rule: &str) -> Result<T> {
    Err(Error::invalid(format!("config.json: {path}: {value:?}: {rule}")))
}

/// Checks everything that can be judged without looking at the host.
pub fn validate(spec: &Spec) -> Result<()> {
    version(&spec.oci_version)?;
    let Some(root) = &spec.root else { return refuse("root", (), "must be given") };
    if root.path.as_os_str().is_empty() {
        return refuse("root.path", "", "must name the root file system's directory");
    }
    let Some(process) = &spec.process else { return refuse("process", (), "must be given") };
    validate_process(process)?;
    spec.mounts.iter().enumerate().try_for_each(|(n, m)| mount(n, m))?;
    hooks(&spec.hooks)?;
    linux(spec)
}

fn version(version: &str) -> Result<()> {
    let major = version.split('.').next().unwrap_or_default();
    if version.is_empty() || major == "1" { Ok(()) } else { refuse("ociVersion", version, "this runtime knows versions 1.x") }
}

/// The part that `exec -p` shares.
pub fn validate_process(process: &Process) -> Result<()> {
    if process.args.is_empty() || process.args[0].is_empty() {
        return refuse("process.args", &process.args, "must name a program");
    }
    if !process.cwd.starts_with('/') {
        return refuse("process.cwd", &process.cwd, "must be an absolute path");
    }
    no_nul("process.args", &process.args)?;
    no_nul("process.env", &process.env)?;
    for (n, limit) in process.rlimits.iter().enumerate() {
        if crate::plan::rlimit_number(&limit.kind).is_none() {
            return refuse(&format!("process.rlimits[{n}].type"), &limit.kind, "is no resource limit of Linux");
        }
        if process.rlimits[..n].iter().any(|earlier| earlier.kind == limit.kind) {
            return refuse(&format!("process.rlimits[{n}].type"), &limit.kind, "must not be given twice");
        }
        if limit.soft > limit.hard {
            return refuse(&format!("process.rlimits[{n}].soft"), limit.soft, "must not be above the hard limit");
        }
    }
    if let Some(adj) = process.oom_score_adj.filter(|adj| !(-1000..=1000).contains(adj)) {
        return refuse("process.oomScoreAdj", adj, "must be from -1000 to 1000");
    }
    if let Some(io) = &process.io_priority
        && crate::plan::io_class(&io.class).is_none_or(|_| !(0..=7).contains(&io.priority))
    {
        return refuse("process.ioPriority", io, "needs a class of IOPRIO_CLASS_RT, _BE or _IDLE and a priority from 0 to 7");
    }
    process.scheduler.as_ref().map_or(Ok(()), scheduler)
}

fn scheduler(s: &Scheduler) -> Result<()> {
    if crate::plan::scheduler_attr(s).is_none() {
        return refuse("process.scheduler", s, "policy or flags are not of sched_setattr(2), or nice is not from -20 to 19");
    }
    Ok(())
}

fn no_nul(path: &str, strings: &[String]) -> Result<()> {
    match strings.iter().position(|s| s.contains('\0')) {
        Some(n) => refuse(&format!("{path}[{n}]"), &strings[n], "must not hold a NUL byte"),
        None => Ok(()),
    }
}

fn mount(n: usize, mount: &Mount) -> Result<()> {
    let path = format!("mounts[{n}]");
    if mount.destination.as_os_str().is_empty() {
        return refuse(&format!("{path}.destination"), "", "must be given");
    }
    if mount.source.contains('\0') || mount.options.iter().any(|o| o.contains('\0')) {
        return refuse(&path, &mount.source, "must not hold a NUL byte");
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return refuse(&path, &mount.destination, "uidMappings and gidMappings must be given together");
    }
    mappings(&format!("{path}.uidMappings"), &mount.uid_mappings)?;
    mappings(&format!("{path}.gidMappings"), &mount.gid_mappings)
}

fn hooks(hooks: &Hooks) -> Result<()> {
    let kinds: [(&str, &[Hook]); 6] = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (n, hook) in list.iter().enumerate() {
            if !hook.path.is_absolute() {
                return refuse(&format!("hooks.{kind}[{n}].path"), &hook.path, "must be an absolute path");
            }
            if hook.timeout.is_some_and(|t| t <= 0) {
                return refuse(&format!("hooks.{kind}[{n}].timeout"), hook.timeout, "must be above 0 seconds");
            }
        }
    }
    Ok(())
}

fn linux(spec: &Spec) -> Result<()> {
    let linux = &spec.linux;
    for (n, ns) in linux.namespaces.iter().enumerate() {
        namespace(linux, n, ns)?;
    }
    if !spec.hostname.is_empty() && !linux.has("uts") {
        return refuse("hostname", &spec.hostname, "needs a uts namespace in linux.namespaces");
    }
    if !spec.domainname.is_empty() && !linux.has("uts") {
        return refuse("domainname", &spec.domainname, "needs a uts namespace in linux.namespaces");
    }
    let user = linux.makes("user");
    let mapped = !linux.uid_mappings.is_empty() && !linux.gid_mappings.is_empty();
    if user && !mapped {
        return refuse("linux.uidMappings", &linux.uid_mappings, "a new user namespace needs uidMappings and gidMappings");
    }
    if !linux.has("user") && (!linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty()) {
        return refuse("linux.uidMappings", &linux.uid_mappings, "mappings need a user namespace in linux.namespaces");
    }
    mappings("linux.uidMappings", &linux.uid_mappings)?;
    mappings("linux.gidMappings", &linux.gid_mappings)?;
    if !linux.time_offsets.is_empty() && !linux.makes("time") {
        return refuse("linux.timeOffsets", linux.time_offsets.keys(), "needs a new time namespace in linux.namespaces");
    }
    if let Some(clock) = linux.time_offsets.keys().find(|c| !["monotonic", "boottime"].contains(&c.as_str())) {
        return refuse("linux.timeOffsets", clock, "only the clocks monotonic and boottime have offsets");
    }
    mapped_user(spec, user)?;
    devices(linux)?;
    sysctls(linux)?;
    unsupported(linux)?;
    if !linux.rootfs_propagation.is_empty() && crate::plan::propagation(&linux.rootfs_propagation).is_none() {
        return refuse("linux.rootfsPropagation", &linux.rootfs_propagation, "must be (r)shared, (r)slave, (r)private or (r)unbindable");
    }
    for (name, paths) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
        if let Some(path) = paths.iter().find(|p| !p.is_absolute() || p.components().any(|c| c == Component::ParentDir)) {
            return refuse(&format!("linux.{name}"), path, "must be absolute and without \"..\"");
        }
    }
    if (!linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty()) && !linux.has("mount") {
        return refuse("linux.maskedPaths", &linux.masked_paths, "masked and read-only paths need a mount namespace");
    }
    personality(linux)
}

fn namespace(linux: &Linux, n: usize, ns: &Namespace) -> Result<()> {
    if !NAMESPACES.contains(&ns.kind.as_str()) {
        return refuse(&format!("linux.namespaces[{n}].type"), &ns.kind, "is no namespace of Linux");
    }
    if linux.namespaces[..n].iter().any(|earlier| earlier.kind == ns.kind) {
        return refuse(&format!("linux.namespaces[{n}].type"), &ns.kind, "must not be given twice");
    }
    if !ns.path.as_os_str().is_empty() && !ns.path.is_absolute() {
        return refuse(&format!("linux.namespaces[{n}].path"), &ns.path, "must be an absolute path");
    }
    Ok(())
}

fn mappings(path: &str, mappings: &[IdMapping]) -> Result<()> {
    for (n, m) in mappings.iter().enumerate() {
        let fits = |start: u32| start.checked_add(m.size).is_some();
        if m.size == 0 || !fits(m.container_id) || !fits(m.host_id) {
            return refuse(&format!("{path}[{n}]"), m, "needs a size above 0 and must stay below 4294967296");
        }
    }
    // The kernel takes 340 lines since Linux 4.15.
    if mappings.len() > 340 { refuse(path, mappings.len(), "has more than the kernel's 340 ranges") } else { Ok(()) }
}

fn mapped_user(spec: &Spec, user: bool) -> Result<()> {
    let Some(process) = spec.process.as_ref().filter(|_| user) else { return Ok(()) };
    let inside = |maps: &[IdMapping], id: u32| maps.iter().any(|m| id >= m.container_id && id - m.container_id < m.size);
    if !inside(&spec.linux.uid_mappings, process.user.uid) {
        return refuse("process.user.uid", process.user.uid, "is not in linux.uidMappings");
    }
    if !inside(&spec.linux.gid_mappings, process.user.gid) {
        return refuse("process.user.gid", process.user.gid, "is not in linux.gidMappings");
    }
    match process.user.additional_gids.iter().find(|g| !inside(&spec.linux.gid_mappings, **g)) {
        Some(gid) => refuse("process.user.additionalGids", gid, "is not in linux.gidMappings"),
        None => Ok(()),
    }
}

fn devices(linux: &Linux) -> Result<()> {
    for (n, d) in linux.devices.iter().enumerate() {
        let path = format!("linux.devices[{n}]");
        if !d.path.is_absolute() || d.path.components().any(|c| c == Component::ParentDir) {
            return refuse(&format!("{path}.path"), &d.path, "must be absolute and without \"..\"");
        }
        if !["c", "u", "b", "p"].contains(&d.kind.as_str()) {
            return refuse(&format!("{path}.type"), &d.kind, "must be c, u, b or p");
        }
        if d.kind != "p" && (u32::try_from(d.major).is_err() || u32::try_from(d.minor).is_err()) {
            return refuse(&path, (d.major, d.minor), "major and minor must be given");
        }
    }
    Ok(())
}

/// The sysctls that belong to a namespace, each only with a namespace of the container's own.
fn sysctls(linux: &Linux) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for key in linux.sysctl.keys() {
        let path = format!("linux.sysctl.{key}");
        let file = crate::plan::sysctl_path(key);
        // Judged part by part, as written into the path: ".." would lead out of the namespace's own settings.
        if file.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return refuse(&path, key, "is no sysctl name");
        }
        let dotted = file.replace('/', ".");
        let needs = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            "ipc"
        } else if dotted.starts_with("net.") {
            "network"
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            "uts"
        } else if dotted.starts_with("user.") {
            "user"
        } else {
            return refuse(&path, &linux.sysctl[key], "is not a setting of a namespace: it would change the host");
        };
        if dotted == "kernel.hostname" {
            return refuse(&path, &linux.sysctl[key], "set hostname instead");
        }
        if !linux.has(needs) {
            return refuse(&path, &linux.sysctl[key], &format!("needs a {needs} namespace in linux.namespaces"));
        }
        let joined_host = linux.namespace(needs).is_some_and(|n| n.path.starts_with("/proc/self/ns") || n.path.starts_with("/proc/1/ns"));
        if joined_host {
            return refuse(&path, &linux.sysctl[key], &format!("the {needs} namespace is the host's"));
        }
    }
    Ok(())
}

/// What this version cannot do is said, never ignored.
fn unsupported(linux: &Linux) -> Result<()> {
    let rule = "is not supported by this version of rrun: remove it";
    if linux.intel_rdt.is_some() {
        return refuse("linux.intelRdt", "…", rule);
    }
    if linux.memory_policy.is_some() {
        return refuse("linux.memoryPolicy", "…", rule);
    }
    if !linux.net_devices.is_empty() {
        return refuse("linux.netDevices", linux.net_devices.keys(), rule);
    }
    Ok(())
}

fn personality(linux: &Linux) -> Result<()> {
    match &linux.personality {
        Some(p) if !["LINUX", "LINUX32"].contains(&p.domain.as_str()) => {
            refuse("linux.personality.domain", &p.domain, "must be LINUX or LINUX32")
        }
        Some(p) if !p.flags.is_empty() => refuse("linux.personality.flags", &p.flags, "no flags are defined by the specification"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse_spec;

    fn verdict(extra: &str) -> String {
        let text = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"process":{{"args":["a"],"cwd":"/"}},{extra}}}"#);
        match parse_spec(text.as_bytes()).and_then(|s| validate(&s)) {
            Ok(()) => "ok".into(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn each_refusal_names_path_value_and_rule() {
        let table = [
            (r#""linux":{}"#, "ok"),
            (r#""ociVersion":"2.0.0""#, r#"config.json: ociVersion: "2.0.0": this runtime knows versions 1.x"#),
            (r#""hostname":"h""#, r#"config.json: hostname: "h": needs a uts namespace in linux.namespaces"#),
            (r#""linux":{"namespaces":[{"type":"nett"}]}"#, r#"config.json: linux.namespaces[0].type: "nett": is no namespace of Linux"#),
            (
                r#""linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#,
                r#"config.json: linux.namespaces[1].type: "pid": must not be given twice"#,
            ),
            (
                r#""linux":{"sysctl":{"vm.swappiness":"1"}}"#,
                r#"config.json: linux.sysctl.vm.swappiness: "1": is not a setting of a namespace: it would change the host"#,
            ),
            (
                r#""linux":{"sysctl":{"net.ipv4.ip_forward":"1"}}"#,
                r#"config.json: linux.sysctl.net.ipv4.ip_forward: "1": needs a network namespace in linux.namespaces"#,
            ),
            (
                r#""linux":{"sysctl":{"net/../kernel/core_pattern":"x"},"namespaces":[{"type":"network"}]}"#,
                r#"config.json: linux.sysctl.net/../kernel/core_pattern: "net/../kernel/core_pattern": is no sysctl name"#,
            ),
            (
                r#""linux":{"rootfsPropagation":"none"}"#,
                r#"config.json: linux.rootfsPropagation: "none": must be (r)shared, (r)slave, (r)private or (r)unbindable"#,
            ),
            (r#""linux":{"devices":[{"path":"/dev/x","type":"q"}]}"#, r#"config.json: linux.devices[0].type: "q": must be c, u, b or p"#),
            (
                r#""linux":{"maskedPaths":["proc"],"namespaces":[{"type":"mount"}]}"#,
                r#"config.json: linux.maskedPaths: "proc": must be absolute and without "..""#,
            ),
            (r#""hooks":{"poststop":[{"path":"x"}]}"#, r#"config.json: hooks.poststop[0].path: "x": must be an absolute path"#),
        ];
        for (extra, expected) in table {
            let got = if extra.contains("ociVersion") {
                match parse_spec(format!("{{{extra}}}").as_bytes()).and_then(|s| validate(&s)) {
                    Ok(()) => "ok".into(),
                    Err(e) => e.to_string(),
                }
            } else {
                verdict(extra)
            };
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn mappings_must_not_wrap() {
        let maps = r#"[{"containerID":0,"hostID":4294967295,"size":2}]"#;
        let got = verdict(&format!(r#""linux":{{"namespaces":[{{"type":"user"}}],"uidMappings":{maps},"gidMappings":{maps}}}"#));
        assert!(got.contains("linux.uidMappings[0]") && got.contains("must stay below"), "{got}");
    }

    #[test]
    fn an_unmapped_user_is_refused() {
        let maps = r#"[{"containerID":5,"hostID":1000,"size":2}]"#;
        let got = verdict(&format!(r#""linux":{{"namespaces":[{{"type":"user"}}],"uidMappings":{maps},"gidMappings":{maps}}}"#));
        assert_eq!(got, "config.json: process.user.uid: 0: is not in linux.uidMappings");
    }
}
