//! The `linux` section: namespaces, cgroup, devices, masks, seccomp.

use std::path::Path;

use rcontainerd_types::{Error, Result};
use rustix::fs::FileType;
use serde_json::{Map, Value, json};

use super::Inputs;
use crate::containers::config::{Resources, ThrottleDevice};
use crate::containers::resolve::{SeccompChoice, Security};
use crate::containers::{Container, DeviceMapping};
use crate::host;

pub(crate) const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
pub(crate) const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Character devices that every container may use: type, major, minor (Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, i64, i64)] =
    &[("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1), ("c", 5, 2), ("c", 136, -1)];

pub(super) fn section(container: &Container, inputs: &Inputs<'_>, security: &Security) -> Result<Value> {
    let host_config = &container.host_config;
    let (devices, device_rules) = devices(container)?;
    let mut linux = json!({
        "namespaces": namespaces(container, inputs),
        "cgroupsPath": inputs.cgroups_path,
        "resources": resources(&host_config.resources, device_rules)?,
    });
    let mut put = |key: &str, value: Value| {
        linux[key] = value;
    };
    if !devices.is_empty() {
        put("devices", Value::Array(devices));
    }
    let sysctls = sysctls(container);
    if !sysctls.is_empty() {
        put("sysctl", Value::Object(sysctls));
    }
    if !host_config.privileged && !security.unmask_paths {
        // A record of an older version has none: then Docker's defaults hold.
        let or_default = |own: &Option<Vec<String>>, default: &[&str]| match own {
            Some(own) => json!(own),
            None => json!(default),
        };
        put("maskedPaths", or_default(&host_config.masked_paths, MASKED));
        put("readonlyPaths", or_default(&host_config.readonly_paths, READONLY));
    }
    if let Some(seccomp) = seccomp(container, inputs, security)? {
        put("seccomp", seccomp);
    }
    if let Some(propagation) = rootfs_propagation(container) {
        put("rootfsPropagation", json!(propagation));
    }
    Ok(linux)
}

fn namespaces(container: &Container, inputs: &Inputs<'_>) -> Vec<Value> {
    let host_config = &container.host_config;
    let mut list = vec![json!({ "type": "mount" })];
    let joined = &inputs.joined;
    let mut unless_host = |kind: &str, mode: &str, path: Option<&Path>| match path {
        Some(path) => list.push(json!({ "type": kind, "path": path })),
        None if mode != "host" => list.push(json!({ "type": kind })),
        None => {}
    };
    unless_host("uts", &host_config.uts_mode, None);
    unless_host("pid", &host_config.pid_mode, joined.pid.as_deref());
    unless_host("ipc", &host_config.ipc_mode, joined.ipc.as_deref());
    unless_host("cgroup", &host_config.cgroupns_mode, None);
    match (inputs.netns, host_config.network_mode.as_str()) {
        (Some(path), _) => list.push(json!({ "type": "network", "path": path })),
        (None, "host") => {}
        (None, _) => list.push(json!({ "type": "network" })),
    }
    list
}

fn sysctls(container: &Container) -> Map<String, Value> {
    let host_config = &container.host_config;
    let mut map = Map::new();
    if host_config.network_mode != "host" && crate::containers::resolve::other_container(&host_config.network_mode).is_none() {
        // As Docker: no capability is needed for low ports and ping in a namespace of the container's own.
        map.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
        map.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
    }
    map.extend(host_config.sysctls.iter().map(|(key, value)| (key.replace('/', "."), json!(value))));
    map
}

/// The device nodes to make and the access rules, most general first.
fn devices(container: &Container) -> Result<(Vec<Value>, Vec<Value>)> {
    let host_config = &container.host_config;
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    if host_config.privileged {
        rules.push(json!({ "allow": true, "access": "rwm" }));
        for path in host::all_devices() {
            let path = path.to_string_lossy().into_owned();
            // A device may vanish between listing and looking.
            if let Ok(node) = node(&path, &path) {
                nodes.push(node);
            }
        }
        return Ok((nodes, rules));
    }
    rules.push(json!({ "allow": false, "access": "rwm" }));
    rules.push(json!({ "allow": true, "type": "c", "access": "m" }));
    rules.push(json!({ "allow": true, "type": "b", "access": "m" }));
    for (kind, major, minor) in DEVICES {
        rules.push(rule(kind, *major, *minor, "rwm"));
    }
    for mapping in &host_config.resources.devices {
        let (node, rule) = mapped(mapping)?;
        nodes.push(node);
        rules.push(rule);
    }
    for text in &host_config.resources.device_cgroup_rules {
        rules.push(parse_rule(text)?);
    }
    Ok((nodes, rules))
}

fn mapped(mapping: &DeviceMapping) -> Result<(Value, Value)> {
    let inside = if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
    let node = node(&mapping.path_on_host, inside)?;
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(Error::invalid(format!("invalid device mode {access:?} for {}: expected letters of rwm", mapping.path_on_host)));
    }
    let rule = rule(node["type"].as_str().unwrap_or("c"), node["major"].as_i64().unwrap_or(0), node["minor"].as_i64().unwrap_or(0), access);
    Ok((node, rule))
}

fn node(source: &str, inside: &str) -> Result<Value> {
    let gather = |why: &str| Error::invalid(format!("error gathering device information while adding custom device \"{source}\": {why}"));
    let (kind, major, minor) = host::device_numbers(source).map_err(|err| gather(&err.to_string()))?;
    let letter = match kind {
        FileType::BlockDevice => "b",
        FileType::CharacterDevice => "c",
        _ => return Err(gather("not a device node")),
    };
    Ok(json!({ "path": inside, "type": letter, "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0 }))
}

fn rule(kind: &str, major: i64, minor: i64, access: &str) -> Value {
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (key, number) in [("major", major), ("minor", minor)] {
        if number >= 0 {
            rule[key] = number.into();
        }
    }
    rule
}

/// `c 1:3 rwm`, with `a` and `*`.
fn parse_rule(text: &str) -> Result<Value> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let number = |text: &str| if text == "*" { Ok(-1) } else { text.parse::<u32>().map(i64::from).map_err(|_| invalid()) };
    let words: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words.as_slice() else { return Err(invalid()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    if access.is_empty() || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(invalid());
    }
    Ok(rule(kind, number(major)?, number(minor)?, access))
}

/// The limits alone, as `update` gives them to the runtime of a running container.
///
/// # Errors
/// When a block device that a limit names does not exist.
pub(crate) fn limits(own: &Resources) -> Result<Map<String, Value>> {
    let mut resources = Map::new();
    insert_some(&mut resources, "memory", memory(own));
    insert_some(&mut resources, "cpu", cpu(own));
    insert_some(&mut resources, "blockIO", block_io(own)?);
    if let Some(limit) = own.pids_limit.filter(|limit| *limit > 0) {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    Ok(resources)
}

fn resources(own: &Resources, devices: Vec<Value>) -> Result<Value> {
    let mut resources = Map::from_iter([("devices".to_owned(), Value::Array(devices))]);
    resources.extend(limits(own)?);
    Ok(Value::Object(resources))
}

fn insert_some(map: &mut Map<String, Value>, key: &str, section: Map<String, Value>) {
    if !section.is_empty() {
        map.insert(key.into(), Value::Object(section));
    }
}

fn memory(own: &Resources) -> Map<String, Value> {
    let mut map = Map::new();
    let numbers = [("limit", own.memory), ("swap", own.memory_swap), ("reservation", own.memory_reservation)];
    for (key, value) in numbers.into_iter().filter(|(_, value)| *value != 0) {
        map.insert(key.into(), json!(value));
    }
    if let Some(swappiness) = own.memory_swappiness {
        map.insert("swappiness".into(), json!(swappiness));
    }
    if own.oom_kill_disable == Some(true) {
        map.insert("disableOOMKiller".into(), json!(true));
    }
    map
}

fn cpu(own: &Resources) -> Map<String, Value> {
    let mut map = Map::new();
    let (mut period, mut quota) = (own.cpu_period, own.cpu_quota);
    if own.nano_cpus > 0 {
        period = 100_000;
        quota = own.nano_cpus / 10_000;
    }
    for (key, value) in [("shares", own.cpu_shares), ("period", period), ("quota", quota)].into_iter().filter(|(_, value)| *value != 0) {
        map.insert(key.into(), json!(value));
    }
    for (key, value) in [("cpus", &own.cpuset_cpus), ("mems", &own.cpuset_mems)].into_iter().filter(|(_, value)| !value.is_empty()) {
        map.insert(key.into(), json!(value));
    }
    map
}

fn block_io(own: &Resources) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    if own.blkio_weight != 0 {
        map.insert("weight".into(), json!(own.blkio_weight));
    }
    let weights = own.blkio_weight_device.iter().map(|device| {
        let (major, minor) = block_device(&device.path)?;
        Ok(json!({ "major": major, "minor": minor, "weight": device.weight }))
    });
    let weights: Vec<Value> = weights.collect::<Result<_>>()?;
    if !weights.is_empty() {
        map.insert("weightDevice".into(), Value::Array(weights));
    }
    for (key, list) in [
        ("throttleReadBpsDevice", &own.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &own.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &own.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &own.blkio_device_write_iops),
    ] {
        if !list.is_empty() {
            map.insert(key.into(), throttle(list)?);
        }
    }
    Ok(map)
}

fn throttle(list: &[ThrottleDevice]) -> Result<Value> {
    let entry = |device: &ThrottleDevice| {
        let (major, minor) = block_device(&device.path)?;
        Ok(json!({ "major": major, "minor": minor, "rate": device.rate }))
    };
    list.iter().map(entry).collect::<Result<Vec<_>>>().map(Value::Array)
}

fn block_device(path: &str) -> Result<(u32, u32)> {
    let (kind, major, minor) = host::device_numbers(path).map_err(|err| Error::invalid(format!("block device {path}: {err}")))?;
    if kind != FileType::BlockDevice {
        return Err(Error::invalid(format!("{path} is not a block device")));
    }
    Ok((major, minor))
}

fn seccomp(container: &Container, inputs: &Inputs<'_>, security: &Security) -> Result<Option<Value>> {
    let profile = match &security.seccomp {
        SeccompChoice::Unconfined => return Ok(None),
        _ if !inputs.host.seccomp => return Ok(None),
        SeccompChoice::Builtin => crate::seccomp::Profile::builtin()?,
        SeccompChoice::Profile(text) => crate::seccomp::Profile::parse(text)?,
    };
    let host_config = &container.host_config;
    let capabilities = crate::capabilities::resolve(&host_config.cap_add, &host_config.cap_drop, host_config.privileged)?;
    let platform = rcontainerd_types::Platform::host();
    let target = crate::seccomp::Target { arch: &platform.architecture, kernel: &inputs.host.kernel, capabilities: &capabilities };
    Ok(Some(profile.resolve(&target)))
}

/// Shared and slave binds need a root that propagates.
fn rootfs_propagation(container: &Container) -> Option<&'static str> {
    let any = |words: &[&str]| container.mounts.iter().any(|mount| words.contains(&mount.propagation.as_str()));
    if any(&["shared", "rshared"]) {
        Some("shared")
    } else if any(&["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}
