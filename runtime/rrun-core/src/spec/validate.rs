//! Judges a whole config.json before anything is made: every refusal names the JSON path, the value and the rule.

use std::fmt::Debug;
use std::path::Component;

use super::{Device, Hook, Hooks, IdMapping, Linux, Mount, Namespace, Process, Scheduler, Spec};
use crate::{Error, Result};

const NAMESPACES: [&str; 8] = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];

fn refuse<T>(path: &str, value: impl Debug, rule: &str) -> Result<T> {
    Err(Error::invalid(format!("config.json: {path}: {value:?}: {rule}")))
}

const NOTHING: Option<()> = None;

/// Checks everything that can be judged without looking at the host.
pub fn validate(spec: &Spec) -> Result<()> {
    version(&spec.oci_version)?;
    let Some(root) = &spec.root else { return refuse("root", NOTHING, "must be given") };
    if root.path.as_os_str().is_empty() {
        return refuse("root.path", "", "must name the root file system's directory");
    }
    let Some(process) = &spec.process else { return refuse("process", NOTHING, "must be given") };
    validate_process(process)?;
    if spec.annotations.contains_key("") {
        return refuse("annotations", "", "a key must not be empty");
    }
    spec.mounts.iter().enumerate().try_for_each(|(n, m)| mount(n, m))?;
    hooks(&spec.hooks)?;
    linux(spec)
}

/// SemVer, as the specification asks; also without its last parts, and absent, which the field's runtimes pass over.
fn version(version: &str) -> Result<()> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = numbers.split('.').collect();
    let well_formed = numbers.len() <= 3 && numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    match version {
        "" => Ok(()),
        _ if !well_formed => refuse("ociVersion", version, "must be a version such as 1.2.0"),
        _ if numbers[0] != "1" => refuse("ociVersion", version, "this runtime knows versions 1.x"),
        _ => Ok(()),
    }
}

/// The part that `exec -p` shares.
pub fn validate_process(process: &Process) -> Result<()> {
    if process.args.is_empty() || process.args[0].is_empty() {
        return refuse("process.args", &process.args, "must name a program");
    }
    if !process.cwd.starts_with('/') {
        return refuse("process.cwd", &process.cwd, "must be an absolute path");
    }
    let user = &process.user;
    let ids = [("uid", user.uid), ("gid", user.gid)].into_iter().chain(user.additional_gids.iter().map(|gid| ("additionalGids", *gid)));
    // -1 means "no change" to setresuid(2): the process would stay root.
    if let Some((name, id)) = ids.into_iter().find(|(_, id)| *id == u32::MAX) {
        return refuse(&format!("process.user.{name}"), id, "is no id: ids are below 4294967295");
    }
    if let Some(umask) = user.umask.filter(|umask| *umask > 0o7777) {
        return refuse("process.user.umask", umask, "must not be above 4095 (octal 7777)");
    }
    environment("process.env", &process.env)?;
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
    if let Some(io) = &process.io_priority {
        if crate::plan::io_class(&io.class).is_none() {
            return refuse("process.ioPriority.class", &io.class, "must be IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE");
        }
        if !(0..=7).contains(&io.priority) {
            return refuse("process.ioPriority.priority", io.priority, "must be from 0 to 7");
        }
    }
    for (name, list) in [("initial", &process.exec_cpu_affinity.initial), ("final", &process.exec_cpu_affinity.last)] {
        if let Some(e) = crate::plan::number_mask(list).err().filter(|_| !list.is_empty()) {
            return refuse(&format!("process.execCPUAffinity.{name}"), list, &e);
        }
    }
    process.scheduler.as_ref().map_or(Ok(()), scheduler)
}

/// sched(7) and sched_setattr(2).
fn scheduler(s: &Scheduler) -> Result<()> {
    let of = |name: &str| format!("process.scheduler.{name}");
    if crate::plan::scheduler_policy(&s.policy).is_none() {
        return refuse(&of("policy"), &s.policy, "is no scheduling policy of sched_setattr(2)");
    }
    if let Some(flag) = s.flags.iter().find(|flag| crate::plan::scheduler_flag(flag).is_none()) {
        return refuse(&of("flags"), flag, "is no flag of sched_setattr(2)");
    }
    if !(-20..=19).contains(&s.nice) {
        return refuse(&of("nice"), s.nice, "must be from -20 to 19");
    }
    let real_time = ["SCHED_FIFO", "SCHED_RR"].contains(&s.policy.as_str());
    if real_time && !(1..=99).contains(&s.priority) {
        return refuse(&of("priority"), s.priority, "must be from 1 to 99 for SCHED_FIFO and SCHED_RR");
    }
    if !real_time && s.priority != 0 {
        return refuse(&of("priority"), s.priority, "scheduler.priority can only be specified for SchedFIFO or SchedRR policy");
    }
    let times = (s.runtime, s.deadline, s.period);
    if s.policy != "SCHED_DEADLINE" {
        let rule = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        return if times == (0, 0, 0) { Ok(()) } else { refuse(&of("runtime"), times, rule) };
    }
    // sched_deadline.rst: a period of 0 is the deadline; the kernel counts nothing below 1024 ns.
    let period = if s.period == 0 { s.deadline } else { s.period };
    if s.runtime < 1024 || s.runtime > s.deadline || s.deadline > period {
        return refuse(&of("runtime"), times, "needs 1024 <= runtime <= deadline <= period (in ns) for SCHED_DEADLINE");
    }
    Ok(())
}

fn environment(path: &str, list: &[String]) -> Result<()> {
    match list.iter().position(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        Some(n) => refuse(&format!("{path}[{n}]"), &list[n], "invalid environment variable: must be NAME=value"),
        None => Ok(()),
    }
}

fn mount(n: usize, mount: &Mount) -> Result<()> {
    let path = format!("mounts[{n}]");
    if mount.destination.as_os_str().is_empty() {
        return refuse(&format!("{path}.destination"), "", "must be given");
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
            environment(&format!("hooks.{kind}[{n}].env"), &hook.env)?;
        }
    }
    Ok(())
}

fn linux(spec: &Spec) -> Result<()> {
    let linux = &spec.linux;
    for (n, ns) in linux.namespaces.iter().enumerate() {
        namespace(linux, n, ns)?;
    }
    for (path, name) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if !name.is_empty() && !linux.has("uts") {
            return refuse(path, name, "needs a uts namespace in linux.namespaces");
        }
        // __NEW_UTS_LEN.
        if name.len() > 64 {
            return refuse(path, name, "must not be longer than 64 bytes");
        }
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
    if let Some((clock, offset)) = linux.time_offsets.iter().find(|(_, offset)| offset.nanosecs > 999_999_999) {
        return refuse(&format!("linux.timeOffsets.{clock}.nanosecs"), offset.nanosecs, "must be below 1000000000");
    }
    mapped_user(spec, user)?;
    devices(linux)?;
    sysctls(linux)?;
    net_devices(linux)?;
    memory_policy(linux)?;
    intel_rdt(linux)?;
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
            return refuse(&format!("{path}[{n}]"), shown(m), "needs a size above 0 and must stay below 4294967296");
        }
        let meet = |a: u32, other: u32, size: u32| a < other.saturating_add(size) && other < a.saturating_add(m.size);
        if mappings[..n].iter().any(|o| meet(m.container_id, o.container_id, o.size) || meet(m.host_id, o.host_id, o.size)) {
            return refuse(&format!("{path}[{n}]"), shown(m), "must not share ids with an earlier range");
        }
    }
    // The kernel takes 340 lines since Linux 4.15.
    if mappings.len() > 340 { refuse(path, mappings.len(), "has more than the kernel's 340 ranges") } else { Ok(()) }
}

/// In config.json's words.
fn shown(m: &IdMapping) -> String {
    format!("containerID {}, hostID {}, size {}", m.container_id, m.host_id, m.size)
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
        if d.path.file_name().is_none() {
            return refuse(&format!("{path}.path"), &d.path, "must have a name");
        }
        // The kernel's dev_t: 12 and 20 bits; more would be another device.
        for (name, number, limit) in [("major", d.major, 1 << 12), ("minor", d.minor, 1 << 20)] {
            if d.kind != "p" && !(0..limit).contains(&number) {
                return refuse(&format!("{path}.{name}"), number, &format!("must be from 0 to {}", limit - 1));
            }
        }
        for (name, id) in [("uid", d.uid), ("gid", d.gid)] {
            if id == Some(u32::MAX) {
                return refuse(&format!("{path}.{name}"), u32::MAX, "is no id: ids are below 4294967295");
            }
        }
        let other = |o: &&Device| o.path == d.path && (o.kind != d.kind || (o.major, o.minor) != (d.major, d.minor));
        if linux.devices[..n].iter().any(|o| other(&o)) {
            return refuse(&format!("{path}.path"), &d.path, "must not be that of an earlier, different device");
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
        if linux.sysctl[key].is_empty() {
            return refuse(&path, "", "must not be empty");
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

fn net_devices(linux: &Linux) -> Result<()> {
    if !linux.net_devices.is_empty() && !linux.has("network") {
        return refuse("linux.netDevices", linux.net_devices.keys(), "need a network namespace in linux.namespaces");
    }
    for (host, device) in &linux.net_devices {
        let rule = "is no name of a network device: up to 15 bytes without spaces, slashes and colons";
        if !crate::netdev::is_valid_name(host) {
            return refuse("linux.netDevices", host, rule);
        }
        if !device.name.is_empty() && !crate::netdev::is_valid_name(&device.name) {
            return refuse(&format!("linux.netDevices.{host}.name"), &device.name, rule);
        }
    }
    let mut names: Vec<&String> = linux.net_devices.iter().map(|(host, d)| if d.name.is_empty() { host } else { &d.name }).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => refuse("linux.netDevices", pair[0], "must not be the name of two devices"),
        None => Ok(()),
    }
}

fn memory_policy(linux: &Linux) -> Result<()> {
    match linux.memory_policy.as_ref().and_then(|p| crate::plan::memory_policy(p).err()) {
        Some(e) => refuse("linux.memoryPolicy", linux.memory_policy.as_ref().map_or("", |p| &p.mode), &e),
        None => Ok(()),
    }
}

fn intel_rdt(linux: &Linux) -> Result<()> {
    let Some(rdt) = &linux.intel_rdt else { return Ok(()) };
    if !crate::rdt::is_valid_class(&rdt.clos_id) {
        return refuse("linux.intelRdt.closID", &rdt.clos_id, "must be the name of one directory of resctrl, or \"/\"");
    }
    Ok(())
}

fn personality(linux: &Linux) -> Result<()> {
    match &linux.personality {
        Some(p) if !["LINUX", "LINUX32"].contains(&p.domain.as_str()) => {
            refuse("linux.personality.domain", &p.domain, "must be LINUX or LINUX32")
        }
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
            (
                r#""linux":{"netDevices":{"eth0":{}}}"#,
                r#"config.json: linux.netDevices: ["eth0"]: need a network namespace in linux.namespaces"#,
            ),
            (
                r#""linux":{"namespaces":[{"type":"network"}],"netDevices":{"eth0":{"name":"a/b"}}}"#,
                r#"config.json: linux.netDevices.eth0.name: "a/b": is no name of a network device: up to 15 bytes without spaces, slashes and colons"#,
            ),
            (
                r#""linux":{"namespaces":[{"type":"network"}],"netDevices":{"eth0":{"name":"x"},"eth1":{"name":"x"}}}"#,
                r#"config.json: linux.netDevices: "x": must not be the name of two devices"#,
            ),
            (
                r#""linux":{"intelRdt":{"closID":"../x"}}"#,
                r#"config.json: linux.intelRdt.closID: "../x": must be the name of one directory of resctrl, or "/""#,
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
    fn names_numbers_and_environments_are_judged() {
        let table = [
            (
                r#""hostname":"0123456789012345678901234567890123456789012345678901234567890123456789","linux":{"namespaces":[{"type":"uts"}]}"#,
                r#"config.json: hostname: "0123456789012345678901234567890123456789012345678901234567890123456789": must not be longer than 64 bytes"#,
            ),
            (r#""annotations":{"":"x"}"#, r#"config.json: annotations: "": a key must not be empty"#),
            (
                r#""linux":{"devices":[{"path":"/dev/x","type":"c","major":4096,"minor":1}]}"#,
                r#"config.json: linux.devices[0].major: 4096: must be from 0 to 4095"#,
            ),
            (
                r#""linux":{"devices":[{"path":"/dev/x","type":"c","major":1,"minor":3},{"path":"/dev/x","type":"c","major":1,"minor":5}]}"#,
                r#"config.json: linux.devices[1].path: "/dev/x": must not be that of an earlier, different device"#,
            ),
            (
                r#""linux":{"devices":[{"path":"/dev/x","type":"p","uid":4294967295}]}"#,
                r#"config.json: linux.devices[0].uid: 4294967295: is no id: ids are below 4294967295"#,
            ),
            (
                r#""linux":{"namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"secs":1,"nanosecs":1000000000}}}"#,
                r#"config.json: linux.timeOffsets.boottime.nanosecs: 1000000000: must be below 1000000000"#,
            ),
            (
                r#""hooks":{"poststop":[{"path":"/x","env":["A"]}]}"#,
                r#"config.json: hooks.poststop[0].env[0]: "A": invalid environment variable: must be NAME=value"#,
            ),
        ];
        for (extra, expected) in table {
            assert_eq!(verdict(extra), expected);
        }
    }

    #[test]
    fn a_process_is_judged_field_by_field() {
        let table = [
            (r#""env":["A=1","B"]"#, r#"process.env[1]: "B": invalid environment variable: must be NAME=value"#),
            (r#""env":["=x"]"#, r#"process.env[0]: "=x": invalid environment variable: must be NAME=value"#),
            (r#""user":{"umask":4096}"#, "process.user.umask: 4096: must not be above 4095 (octal 7777)"),
            (
                r#""ioPriority":{"class":"X"}"#,
                r#"process.ioPriority.class: "X": must be IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE"#,
            ),
            (r#""ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#, "process.ioPriority.priority: 8: must be from 0 to 7"),
            (r#""scheduler":{"policy":"X"}"#, r#"process.scheduler.policy: "X": is no scheduling policy of sched_setattr(2)"#),
            (r#""scheduler":{"policy":"SCHED_OTHER","nice":20}"#, "process.scheduler.nice: 20: must be from -20 to 19"),
            (
                r#""scheduler":{"policy":"SCHED_OTHER","priority":5}"#,
                "process.scheduler.priority: 5: scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
            ),
            (
                r#""scheduler":{"policy":"SCHED_FIFO","priority":100}"#,
                "process.scheduler.priority: 100: must be from 1 to 99 for SCHED_FIFO and SCHED_RR",
            ),
            (
                r#""scheduler":{"policy":"SCHED_BATCH","period":5}"#,
                "process.scheduler.runtime: (0, 0, 5): scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
            ),
            (
                r#""scheduler":{"policy":"SCHED_DEADLINE","runtime":5000,"deadline":4000,"period":9000}"#,
                "process.scheduler.runtime: (5000, 4000, 9000): needs 1024 <= runtime <= deadline <= period (in ns) for SCHED_DEADLINE",
            ),
        ];
        for (field, told) in table {
            let process: Process = serde_json::from_str(&format!(r#"{{"args":["a"],"cwd":"/",{field}}}"#)).unwrap();
            assert_eq!(validate_process(&process).unwrap_err().to_string(), format!("config.json: {told}"));
        }
        for good in [r#"{"policy":"SCHED_DEADLINE","runtime":5000,"deadline":6000}"#, r#"{"policy":"SCHED_RR","priority":1}"#] {
            let process: Process = serde_json::from_str(&format!(r#"{{"args":["a"],"cwd":"/","scheduler":{good}}}"#)).unwrap();
            validate_process(&process).unwrap();
        }
    }

    #[test]
    fn versions_are_semver_of_1() {
        for good in ["", "1", "1.0", "1.3.0", "1.0.2-dev", "1.2.0+x.1"] {
            version(good).unwrap();
        }
        for bad in ["2.0.0", "0.5.0", "1.x.y", "1.", "1.2.3.4", "x", "-1"] {
            assert!(version(bad).unwrap_err().to_string().starts_with("config.json: ociVersion: "), "{bad}");
        }
    }

    #[test]
    fn ranges_of_ids_must_not_meet() {
        let told = |maps: &str| {
            verdict(&format!(
                r#""linux":{{"namespaces":[{{"type":"user"}}],"uidMappings":{maps},"gidMappings":[{{"containerID":0,"hostID":1,"size":9}}]}}"#
            ))
        };
        let meet = r#"[{"containerID":0,"hostID":100,"size":10},{"containerID":9,"hostID":200,"size":10}]"#;
        assert_eq!(
            told(meet),
            r#"config.json: linux.uidMappings[1]: "containerID 9, hostID 200, size 10": must not share ids with an earlier range"#
        );
        assert!(told(&meet.replace("9,", "10,").replace("200", "109")).contains("must not share"));
        assert_eq!(told(&meet.replace("9,", "10,")), "ok");
    }

    #[test]
    fn minus_one_is_no_user() {
        for user in [r#"{"uid":4294967295}"#, r#"{"gid":4294967295}"#, r#"{"additionalGids":[5,4294967295]}"#] {
            let process: Process = serde_json::from_str(&format!(r#"{{"args":["a"],"cwd":"/","user":{user}}}"#)).unwrap();
            assert!(validate_process(&process).unwrap_err().to_string().contains("ids are below 4294967295"), "{user}");
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
