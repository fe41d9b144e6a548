//! Request + image configuration + host facts → what is recorded. Pure; the one place where a request is accepted, adjusted with a
//! warning, or refused by name.

mod limits;
mod log;
mod merge;
mod mounts;
mod namespaces;
mod ports;
mod refuse;
mod security;

use rcontainerd_types::{Error, Result};

use super::commands::CreateContainer;
use super::config::{Config, HostConfig};
use super::health::OnFailure;
use super::model::MountPoint;
use super::network;
use crate::host::{CgroupVersion, HostFacts};
use crate::images::ImageConfig;

pub use log::{DRIVERS as LOG_DRIVERS, LogPlan};
pub use mounts::{MountSource, PlannedMount};
pub use namespaces::other as other_container;
pub use ports::{parse_port, requests as port_requests};
pub use refuse::endpoint as refuse_endpoint;
pub use security::{SeccompChoice, Security};

/// The default size of /dev/shm, in bytes.
pub const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// A request that can be carried out.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub config: Config,
    pub host_config: HostConfig,
    pub path: String,
    pub args: Vec<String>,
    pub hostname: String,
    pub mounts: Vec<PlannedMount>,
    pub warnings: Vec<String>,
}

impl Resolved {
    /// The mount points once every volume has a name and a place.
    pub fn mount_points(&self, mut place: impl FnMut(&PlannedMount) -> Result<MountPoint>) -> Result<Vec<MountPoint>> {
        self.mounts.iter().map(&mut place).collect()
    }
}

/// Decides everything that can be decided without touching the host.
///
/// # Errors
/// `InvalidArgument` for what is malformed or contradicts itself, `Unsupported` for what this engine does not do; each names the option.
pub fn resolve(request: &CreateContainer, image: &ImageConfig, host: &HostFacts, id: &str) -> Result<Resolved> {
    let mut warnings = Vec::new();
    refuse::unsupported(request)?;
    let config = merge::config(&request.config, image, id)?;
    let mut host_config = request.host_config.clone();
    defaults(&mut host_config, host.cgroup);
    modes(&config, &mut host_config)?;
    limits::check(&mut host_config, host, &mut warnings)?;
    security::check(&host_config)?;
    LogPlan::parse(&host_config.log_config)?;
    OnFailure::of(&host_config.annotations, host_config.auto_remove)?;
    ports::check(&config, &host_config)?;
    host_config.extra_hosts.iter().try_for_each(|entry| network::parse_extra_host(entry).map(drop))?;
    if host_config.network_mode == "host" && host_config.port_bindings.values().any(|list| !list.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    let mounts = mounts::plan(&config, &host_config)?;
    mounts::check_driver(&host_config, &mounts)?;
    let (path, args) = command(&config)?;
    let hostname = if host_config.network_mode == "host" && config.hostname.is_empty() {
        host.hostname.clone()
    } else if config.hostname.is_empty() {
        rcontainerd_types::id::short(id).to_owned()
    } else {
        config.hostname.clone()
    };
    let config = Config { hostname: hostname.clone(), ..config };
    Ok(Resolved { config, host_config, path, args, hostname, mounts, warnings })
}

fn defaults(host: &mut HostConfig, cgroup: CgroupVersion) {
    let fill = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    fill(&mut host.network_mode, "default");
    if host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    fill(&mut host.ipc_mode, "private");
    let private = cgroup == CgroupVersion::V2 && !host.privileged;
    fill(&mut host.cgroupns_mode, if private { "private" } else { "host" });
    fill(&mut host.restart_policy.name, "no");
    fill(&mut host.log_config.driver, "json-file");
    fill(&mut host.runtime, "rrun");
    if host.shm_size == 0 {
        host.shm_size = DEFAULT_SHM_SIZE;
    }
    let unmasked = host.privileged || host.security_opt.iter().any(|option| option.trim() == "systempaths=unconfined");
    if !unmasked {
        let default = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
        host.masked_paths.get_or_insert_with(|| default(crate::spec::MASKED));
        host.readonly_paths.get_or_insert_with(|| default(crate::spec::READONLY));
    }
}

fn modes(config: &Config, host: &mut HostConfig) -> Result<()> {
    // Any name may be a network's by the time of the start, which is who looks for it.
    match namespaces::other(&host.network_mode) {
        Some("") => return Err(Error::invalid("invalid container format container:<name|id>")),
        Some(_) => namespaces::check_shared_network(config, host)?,
        None => {}
    }
    namespaces::mode("IPC mode", &host.ipc_mode, &["private", "shareable", "none", "host"])?;
    namespaces::mode("PID mode", &host.pid_mode, &["", "private", "host"])?;
    one_of("UTS mode", &host.uts_mode, &["", "private", "host"])?;
    one_of("cgroup namespace mode", &host.cgroupns_mode, &["private", "host"])?;
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    if config.network_disabled {
        "none".clone_into(&mut host.network_mode);
    }
    restart_policy(host)
}

/// The rules that hold for limits and restart policy also after creation; gives warnings.
///
/// # Errors
/// As [`resolve`].
pub fn recheck(config: &mut HostConfig, host: &HostFacts) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    restart_policy(config)?;
    limits::check(config, host, &mut warnings)?;
    Ok(warnings)
}

fn restart_policy(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    if !["no", "always", "unless-stopped", "on-failure"].contains(&policy.name.as_str()) {
        return Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            policy.name
        )));
    }
    if policy.maximum_retry_count != 0 && policy.name != "on-failure" {
        return Err(Error::invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
    }
    if policy.maximum_retry_count < 0 {
        return Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"));
    }
    if host.auto_remove && policy.name != "no" {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(())
}

fn one_of(what: &str, value: &str, supported: &[&str]) -> Result<()> {
    if supported.contains(&value) {
        return Ok(());
    }
    Err(Error::unsupported(format!("{what} {value:?} is not supported: use {}", supported.join(" or ").trim_start_matches(" or "))))
}

fn command(config: &Config) -> Result<(String, Vec<String>)> {
    let entrypoint = config.entrypoint.iter().flatten();
    let mut words = entrypoint.chain(config.cmd.iter().flatten()).cloned();
    match words.next() {
        Some(path) if !path.is_empty() => Ok((path, words.collect())),
        _ => Err(Error::invalid("no command specified")),
    }
}

#[cfg(test)]
mod tests;
