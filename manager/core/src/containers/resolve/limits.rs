//! Limits: Docker's consistency rules, and what the host forbids.

use rcontainerd_types::{Error, Result};

use super::super::config::{HostConfig, Resources};
use crate::host::HostFacts;

const MINIMUM_MEMORY: i64 = 6 << 20;

pub(super) fn check(config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    memory(&mut config.resources)?;
    cpu(&config.resources, host)?;
    cpuset("CPUs", "cpuset cpus", &config.resources.cpuset_cpus, &host.cpu_list)?;
    cpuset("memory nodes", "cpuset mems", &config.resources.cpuset_mems, &host.memory_nodes)?;
    block_io(&config.resources)?;
    ulimits(&config.resources, host, warnings)?;
    out_of_memory_score(config, host, warnings)?;
    if config.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if config.resources.pids_limit.is_some_and(|limit| limit <= 0) {
        config.resources.pids_limit = None;
    }
    sysctls(config)
}

fn memory(resources: &mut Resources) -> Result<()> {
    let Resources { memory, memory_swap, memory_reservation, .. } = *resources;
    if memory != 0 && memory < MINIMUM_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if memory == 0 && memory_swap > 0 {
        return Err(Error::invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    if memory_swap > 0 && memory_swap < memory {
        return Err(Error::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if memory_reservation != 0 && memory_reservation < MINIMUM_MEMORY {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if memory > 0 && memory_reservation > memory {
        return Err(Error::invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    if memory > 0 && memory_swap == 0 {
        resources.memory_swap = memory * 2;
    }
    match resources.memory_swappiness {
        Some(-1) => resources.memory_swappiness = None,
        Some(value) if !(0..=100).contains(&value) => {
            return Err(Error::invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100")));
        }
        _ => {}
    }
    Ok(())
}

fn cpu(resources: &Resources, host: &HostFacts) -> Result<()> {
    let nano = resources.nano_cpus;
    if nano != 0 && (resources.cpu_period != 0 || resources.cpu_quota != 0) {
        return Err(Error::invalid("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set."));
    }
    let most = i64::from(host.cpus) * 1_000_000_000;
    if nano != 0 && !(10_000_000..=most).contains(&nano) {
        return Err(Error::invalid(format!("range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available", host.cpus)));
    }
    if resources.cpu_shares < 0 {
        return Err(Error::invalid(format!("invalid CPU shares ({}): value must be a positive integer", resources.cpu_shares)));
    }
    if resources.cpu_period != 0 && !(1000..=1_000_000).contains(&resources.cpu_period) {
        return Err(Error::invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"));
    }
    if resources.cpu_quota > 0 && resources.cpu_quota < 1000 {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    Ok(())
}

fn cpuset(what: &str, option: &str, wanted: &str, online: &str) -> Result<()> {
    let asked = list(wanted).ok_or_else(|| Error::invalid(format!("Invalid value {wanted} for {option}")))?;
    let there = list(online).unwrap_or_default();
    let held = |(first, last): &(u32, u32)| (*first..=*last).all(|number| there.iter().any(|(low, high)| (*low..=*high).contains(&number)));
    if there.is_empty() || asked.iter().all(held) {
        return Ok(());
    }
    Err(Error::invalid(format!("Requested {what} are not available - requested {wanted}, available: {online}")))
}

/// `0-2,5` (cpuset(7)); `None` for what is no such list.
fn list(text: &str) -> Option<Vec<(u32, u32)>> {
    /// More than any host has; a range is walked.
    const MOST: u32 = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last && last < MOST).then_some((first, last))
    };
    text.split(',').filter(|_| !text.is_empty()).map(range).collect()
}

fn block_io(resources: &Resources) -> Result<()> {
    if resources.blkio_weight != 0 && !(10..=1000).contains(&resources.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    Ok(())
}

fn ulimits(resources: &Resources, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    for limit in &resources.ulimits {
        let Some(known) = crate::host::RLIMITS.iter().find(|name| **name == limit.name.to_ascii_lowercase()) else {
            return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
        };
        if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
        if let Some(most) = host.rlimit_ceiling(known)
            && u64::try_from(limit.hard).is_ok_and(|hard| hard > most)
        {
            warnings.push(format!("--ulimit {known}: the host allows at most {most} (no CAP_SYS_RESOURCE); it is lowered to that"));
        }
    }
    Ok(())
}

fn out_of_memory_score(config: &mut HostConfig, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
    let wanted = config.oom_score_adj;
    if !(-1000..=1000).contains(&wanted) {
        return Err(Error::invalid(format!("Invalid value {wanted}, range for oom score adj is [-1000, 1000]")));
    }
    let floor = i64::from(host.oom_score_adj_floor);
    if wanted != 0 && wanted < floor {
        warnings.push(format!("--oom-score-adj {wanted}: the host allows no less than {floor} (no CAP_SYS_RESOURCE); {floor} is used"));
        config.oom_score_adj = floor;
    }
    Ok(())
}

/// Only keys that a namespace of the container's own confines.
fn sysctls(config: &HostConfig) -> Result<()> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for key in config.sysctls.keys() {
        let dotted = key.replace('/', ".");
        let ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        let net = dotted.starts_with("net.");
        match (ipc, net) {
            (true, _) if config.ipc_mode != "host" => {}
            (_, true) if config.network_mode != "host" => {}
            (true, _) | (_, true) => return Err(Error::invalid(format!("sysctl '{key}' is not allowed in the host's namespace"))),
            _ => return Err(Error::invalid(format!("sysctl '{key}' is not allowed: no namespace of the container confines it"))),
        }
    }
    Ok(())
}
