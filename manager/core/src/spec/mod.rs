//! A container's record + what its start decided → the OCI runtime spec's config.json. Pure.

mod linux;
mod mounts;
pub(crate) mod propagation;

pub(crate) use linux::{MASKED, READONLY, limits};

use std::path::{Path, PathBuf};

use rcontainerd_types::Result;
use serde_json::{Map, Value, json};

use crate::containers::resolve::Security;
use crate::containers::{Container, DEFAULT_PATH};
use crate::execs::CreateExec;
use crate::host::HostFacts;
use crate::rootfs::users::User;

/// What only the start knows.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    pub host: &'a HostFacts,
    pub user: &'a User,
    /// A namespace made for the container; `None` with host networking, or when the runtime makes an empty one.
    pub netns: Option<&'a Path>,
    /// What is other containers'.
    pub joined: Joined,
    /// Absolute: `/rcontainerd/<id>`.
    pub cgroups_path: String,
    pub files: Files,
    /// The program that is PID 1 with `--init`.
    pub init: &'a Path,
    /// Rows, columns.
    pub console_size: Option<(u16, u16)>,
}

/// Namespaces that are shared with other containers, and the shared memory that goes with them.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    pub pid: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    /// A tmpfs on the host that becomes /dev/shm: another container's, or this one's to share.
    pub shm: Option<PathBuf>,
}

/// The three files that are mounted over the image's.
#[derive(Clone, Debug)]
pub struct Files {
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
}

/// Where `--init`'s program is seen in the container (Docker's place for it).
const INIT_PATH: &str = "/sbin/docker-init";

/// The whole config.json.
///
/// # Errors
/// When a device or block device that a limit names does not exist.
pub fn build(container: &Container, inputs: &Inputs<'_>) -> Result<Value> {
    let security = Security::parse(&container.host_config)?;
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process(container, inputs, &security)?,
        "root": { "path": "rootfs", "readonly": container.host_config.readonly_rootfs },
        "mounts": mounts::all(container, inputs),
        "linux": linux::section(container, inputs, &security)?,
    });
    if container.host_config.uts_mode != "host" {
        spec["hostname"] = json!(container.hostname);
        if !container.config.domainname.is_empty() {
            spec["domainname"] = json!(container.config.domainname);
        }
    }
    if !container.host_config.annotations.is_empty() {
        spec["annotations"] = json!(container.host_config.annotations);
    }
    Ok(spec)
}

fn process(container: &Container, inputs: &Inputs<'_>, security: &Security) -> Result<Value> {
    let (config, host_config) = (&container.config, &container.host_config);
    let mut args = vec![container.path.clone()];
    args.extend(container.args.iter().cloned());
    if host_config.init == Some(true) {
        args.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let wanted = crate::capabilities::resolve(&host_config.cap_add, &host_config.cap_drop, host_config.privileged)?;
    let (capabilities, _) = crate::capabilities::split_by_host(&wanted, inputs.host.bounding);
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let mut process = json!({
        "terminal": config.tty,
        "user": user(inputs.user),
        "args": args,
        "env": environment(&config.env, &container.hostname, config.tty),
        "cwd": cwd,
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj.max(i64::from(inputs.host.oom_score_adj_floor)),
    });
    if let Some((rows, columns)) = inputs.console_size.filter(|_| config.tty) {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    let rlimits = rlimits(container, inputs.host);
    if !rlimits.is_empty() {
        process["rlimits"] = Value::Array(rlimits);
    }
    Ok(process)
}

/// The `process` object of a further process: the container's, changed by what was asked.
///
/// # Errors
/// When the container's capabilities cannot be resolved.
pub fn exec_process(container: &Container, request: &CreateExec, user_ids: &User, host: &HostFacts) -> Result<Value> {
    let host_config = &container.host_config;
    let security = Security::parse(host_config)?;
    let privileged = request.privileged || host_config.privileged;
    let wanted = crate::capabilities::resolve(&host_config.cap_add, &host_config.cap_drop, privileged)?;
    let (capabilities, _) = crate::capabilities::split_by_host(&wanted, host.bounding);
    let mut env = environment(&container.config.env, &container.hostname, request.tty);
    override_with(&mut env, &request.env);
    let cwd = [request.working_dir.as_str(), container.config.working_dir.as_str(), "/"].into_iter().find(|dir| !dir.is_empty());
    let mut process = json!({
        "terminal": request.tty,
        "user": user(user_ids),
        "args": request.cmd,
        "env": env,
        "cwd": cwd,
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj.max(i64::from(host.oom_score_adj_floor)),
    });
    if let Some((rows, columns)) = request.console_size.filter(|_| request.tty) {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    let rlimits = rlimits(container, host);
    if !rlimits.is_empty() {
        process["rlimits"] = Value::Array(rlimits);
    }
    Ok(process)
}

fn user(user: &User) -> Value {
    json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids })
}

/// PATH, HOSTNAME and TERM, then the container's own: each in the place of an earlier one of its name, a bare name takes that away.
/// HOME is the runtime's to add.
fn environment(own: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    override_with(&mut env, own);
    env
}

fn override_with(env: &mut Vec<String>, own: &[String]) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in own {
        let place = env.iter().position(|have| name(have) == name(entry));
        match (place, entry.contains('=')) {
            (Some(place), true) => env[place].clone_from(entry),
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
}

fn rlimits(container: &Container, host: &HostFacts) -> Vec<Value> {
    let limit = |value: i64, ceiling: Option<u64>| u64::try_from(value).unwrap_or(u64::MAX).min(ceiling.unwrap_or(u64::MAX));
    let entries = container.host_config.resources.ulimits.iter().map(|ulimit| {
        let name = ulimit.name.to_ascii_lowercase();
        let ceiling = host.rlimit_ceiling(&name);
        let mut entry = Map::new();
        entry.insert("type".into(), json!(format!("RLIMIT_{}", name.to_ascii_uppercase())));
        entry.insert("hard".into(), json!(limit(ulimit.hard, ceiling)));
        entry.insert("soft".into(), json!(limit(ulimit.soft, ceiling)));
        Value::Object(entry)
    });
    entries.collect()
}

#[cfg(test)]
mod tests;
