//! Update: limits and restart policy of a container that exists; of a running one at once.

use std::sync::Arc;

use rcontainerd_types::{Error, Result};

use super::commands::UpdateContainer;
use super::config::{HostConfig, Resources};
use super::model::Status;
use super::registry::Entry;
use super::{resolve, stop};
use crate::engine::{Engine, blocking, container_event};
use crate::spec;

pub(super) async fn update(engine: &Arc<Engine>, entry: &Arc<Entry>, command: UpdateContainer) -> Result<Vec<String>> {
    let _operation = entry.operation.lock().await;
    let container = engine.record(entry).await?;
    let failed = |err: Error| err.context(format!("Cannot update container {}", entry.id));
    if matches!(container.state.status, Status::Removing | Status::Dead) {
        return Err(failed(Error::conflict("container is marked for removal and cannot be \"update\"")));
    }
    let mut updated = container.host_config.clone();
    merge(&mut updated, &command).map_err(failed)?;
    let warnings = resolve::recheck(&mut updated, &engine.host).map_err(failed)?;
    if updated.resources != container.host_config.resources
        && let Some(live) = entry.live()
    {
        let limits = updated.resources.clone();
        let limits = blocking(move || {
            serde_json::to_vec(&spec::limits(&limits)?).map_err(|err| Error::internal(format!("encode the limits: {err}")))
        });
        let told = live.task.update(limits.await.map_err(failed)?, std::collections::HashMap::new()).await;
        match told {
            // Its end comes after this operation: then what was asked for counts from the next start.
            Err(err) if stop::has_ended(&live.task).await => tracing::debug!(container = entry.id, "met the container's end: {err}"),
            other => other.map_err(failed)?,
        }
    }
    engine.update(entry, vec![container_event(&entry.view(), "update", &[])], move |container| container.host_config = updated).await?;
    Ok(warnings)
}

/// What is zero, empty or `None` stays as it is.
fn merge(host: &mut HostConfig, command: &UpdateContainer) -> Result<()> {
    if let Some(policy) = &command.restart_policy {
        if host.auto_remove && policy.name != "no" {
            return Err(Error::invalid("Restart policy cannot be updated because AutoRemove is enabled for the container"));
        }
        host.restart_policy.clone_from(policy);
    }
    let (old, new) = (&mut host.resources, &command.resources);
    conflicts(old, new)?;
    numbers(old, new);
    for (field, value) in [(&mut old.cpuset_cpus, &new.cpuset_cpus), (&mut old.cpuset_mems, &new.cpuset_mems)] {
        if !value.is_empty() {
            field.clone_from(value);
        }
    }
    if new.pids_limit.is_some() {
        old.pids_limit = new.pids_limit;
    }
    if new.memory_swappiness.is_some() {
        old.memory_swappiness = new.memory_swappiness;
    }
    if new.blkio_weight != 0 {
        old.blkio_weight = new.blkio_weight;
    }
    lists(old, new);
    Ok(())
}

/// Docker's words where two settings would contradict each other.
fn conflicts(old: &Resources, new: &Resources) -> Result<()> {
    let nano = |resources: &Resources| resources.nano_cpus > 0;
    for (set, what) in [(new.cpu_period > 0, "CPU Period"), (new.cpu_quota > 0, "CPU Quota")] {
        if nano(old) && set {
            return Err(Error::invalid(format!("Conflicting options: {what} cannot be updated as NanoCPUs has already been set")));
        }
    }
    for (set, what) in [(old.cpu_period > 0, "CPU Period"), (old.cpu_quota > 0, "CPU Quota")] {
        if nano(new) && set {
            return Err(Error::invalid(format!("Conflicting options: NanoCPUs cannot be updated as {what} has already been set")));
        }
    }
    if new.memory != 0 && new.memory_swap == 0 && old.memory_swap > 0 && new.memory > old.memory_swap {
        return Err(Error::invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    let unsupported = [
        ("device requests", !new.device_requests.is_empty()),
        ("devices", !new.devices.is_empty()),
        ("device cgroup rules", !new.device_cgroup_rules.is_empty()),
        ("ulimits", !new.ulimits.is_empty()),
        ("the cgroup parent", !new.cgroup_parent.is_empty()),
        ("kernel memory", new.kernel_memory != 0 || new.kernel_memory_tcp != 0),
        ("real-time CPU", new.cpu_realtime_period != 0 || new.cpu_realtime_runtime != 0),
    ];
    match unsupported.into_iter().find(|(_, set)| *set) {
        Some((what, _)) => Err(Error::unsupported(format!("{what} cannot be changed after creation: make a new container"))),
        None => Ok(()),
    }
}

fn numbers(old: &mut Resources, new: &Resources) {
    let pairs = [
        (&mut old.cpu_shares, new.cpu_shares),
        (&mut old.nano_cpus, new.nano_cpus),
        (&mut old.cpu_period, new.cpu_period),
        (&mut old.cpu_quota, new.cpu_quota),
        (&mut old.memory, new.memory),
        (&mut old.memory_reservation, new.memory_reservation),
        (&mut old.memory_swap, new.memory_swap),
    ];
    for (field, value) in pairs {
        if value != 0 {
            *field = value;
        }
    }
}

fn lists(old: &mut Resources, new: &Resources) {
    if !new.blkio_weight_device.is_empty() {
        old.blkio_weight_device.clone_from(&new.blkio_weight_device);
    }
    for (field, value) in [
        (&mut old.blkio_device_read_bps, &new.blkio_device_read_bps),
        (&mut old.blkio_device_write_bps, &new.blkio_device_write_bps),
        (&mut old.blkio_device_read_iops, &new.blkio_device_read_iops),
        (&mut old.blkio_device_write_iops, &new.blkio_device_write_iops),
    ] {
        if !value.is_empty() {
            field.clone_from(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::RestartPolicy;
    use super::*;

    fn updated(change: impl FnOnce(&mut HostConfig, &mut UpdateContainer)) -> Result<HostConfig> {
        let (mut host, mut command) = (HostConfig::default(), UpdateContainer::default());
        change(&mut host, &mut command);
        merge(&mut host, &command).map(|()| host)
    }

    #[test]
    fn only_what_is_said_changes() {
        let host = updated(|host, command| {
            (host.resources.memory, host.resources.cpu_shares) = (1 << 30, 5);
            command.resources.memory = 1 << 20;
        });
        let resources = host.expect("updated").resources;
        assert_eq!((resources.memory, resources.cpu_shares), (1 << 20, 5));
    }

    #[test]
    fn contradictions_are_told_in_docker_s_words() {
        let told = |change: fn(&mut HostConfig, &mut UpdateContainer)| updated(change).expect_err("refused").message().to_owned();
        let above_swap = told(|host, command| {
            (host.resources.memory, host.resources.memory_swap) = (10, 20);
            command.resources.memory = 30;
        });
        assert!(above_swap.starts_with("Memory limit should be smaller than already set memoryswap limit"), "{above_swap}");
        let nano = told(|host, command| (host.resources.nano_cpus, command.resources.cpu_quota) = (1, 1));
        assert_eq!(nano, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
        let policy = told(|host, command| {
            host.auto_remove = true;
            command.restart_policy = Some(RestartPolicy { name: "always".into(), maximum_retry_count: 0 });
        });
        assert!(policy.contains("AutoRemove is enabled"), "{policy}");
        assert!(told(|_, command| command.resources.cgroup_parent = "/x".into()).contains("the cgroup parent cannot be changed"));
    }
}
