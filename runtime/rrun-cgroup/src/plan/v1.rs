//! Controllers whose files differ, on v1 (Documentation/admin-guide/cgroup-v1).

use super::{Plan, Step, Write};
use crate::error::{Error, Result};
use crate::resources::{Memory, Resources, ThrottleDevice};

pub(super) fn memory(plan: &mut Plan, resources: &Resources) -> Result<()> {
    let Some(memory) = &resources.memory else { return Ok(()) };
    let limit = memory.limit.filter(|&l| l != 0);
    // Unlimited memory under an old memory+swap limit could not be set.
    let swap = memory.swap.filter(|&s| s != 0).or_else(|| limit.filter(|&l| l < 0));
    refuse_swap_below_memory(limit, swap)?;
    let mut together = Vec::new();
    if let Some(limit) = limit {
        together.push(Write::new("memory", "memory.limit_in_bytes", limit, "memory.limit"));
    }
    if let Some(swap) = swap {
        let write = Write::new("memory", "memory.memsw.limit_in_bytes", swap, "memory.swap");
        together.push(if swap < 0 { write.optional() } else { write });
    }
    plan.together(together);
    rest_of_memory(plan, memory)
}

pub(super) fn refuse_swap_below_memory(limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    match (limit, swap) {
        (Some(limit), Some(swap)) if swap >= 0 && (limit > swap || limit < 0) => Err(Error::Invalid(format!(
            "memory.swap ({swap}) counts memory and swap together: it must not be below memory.limit ({limit})"
        ))),
        _ => Ok(()),
    }
}

fn rest_of_memory(plan: &mut Plan, memory: &Memory) -> Result<()> {
    if let Some(soft) = memory.reservation.filter(|&r| r != 0) {
        plan.write(Write::new("memory", "memory.soft_limit_in_bytes", soft, "memory.reservation"));
    }
    if memory.use_hierarchy == Some(false) {
        plan.warnings.push("memory.useHierarchy false is ignored: kernels since 5.11 always count what is below a cgroup".into());
    }
    if memory.kernel.is_some_and(|k| k != 0) {
        plan.warnings.push("memory.kernel is ignored: deprecated, and gone from the kernel".into());
    }
    if let Some(tcp) = memory.kernel_tcp.filter(|&t| t != 0) {
        plan.write(Write::new("memory", "memory.kmem.tcp.limit_in_bytes", tcp, "memory.kernelTCP"));
    }
    match memory.swappiness {
        Some(value @ 0..=100) => plan.write(Write::new("memory", "memory.swappiness", value, "memory.swappiness")),
        // Go's int64 −1 in an unsigned field: "as it is".
        None | Some(u64::MAX) => {}
        Some(value) => return Err(Error::Invalid(format!("memory.swappiness {value}: valid are 0 to 100"))),
    }
    if memory.disable_oom_killer == Some(true) {
        plan.write(Write::new("memory", "memory.oom_control", 1, "memory.disableOOMKiller"));
    }
    Ok(())
}

pub(super) fn cpu(plan: &mut Plan, resources: &Resources) -> Result<()> {
    let Some(cpu) = &resources.cpu else { return Ok(()) };
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        // The kernel would take its own bound instead (MIN_SHARES, MAX_SHARES).
        match shares {
            1 => return Err(Error::Invalid("cpu.shares: 1: the minimum allowed cpu-shares is 2".into())),
            262_145.. => return Err(Error::Invalid(format!("cpu.shares: {shares}: the maximum allowed cpu-shares is 262144"))),
            _ => {}
        }
        plan.write(Write::new("cpu", "cpu.shares", shares, "cpu.shares"));
    }
    let write = |value: Option<String>, file: &str, key| value.map(|v| Write::new("cpu", file, v, key));
    let positive = |v: Option<u64>| v.filter(|&v| v != 0).map(|v| v.to_string());
    let signed = |v: Option<i64>| v.filter(|&v| v != 0).map(|v| v.to_string());
    plan.together(
        [
            write(positive(cpu.realtime_period), "cpu.rt_period_us", "cpu.realtimePeriod"),
            write(signed(cpu.realtime_runtime), "cpu.rt_runtime_us", "cpu.realtimeRuntime"),
        ]
        .into_iter()
        .flatten()
        .collect(),
    );
    plan.together(
        [
            write(positive(cpu.period), "cpu.cfs_period_us", "cpu.period"),
            write(signed(cpu.quota), "cpu.cfs_quota_us", "cpu.quota"),
            write(cpu.burst.map(|b| b.to_string()), "cpu.cfs_burst_us", "cpu.burst"),
        ]
        .into_iter()
        .flatten()
        .collect(),
    );
    if let Some(idle) = cpu.idle {
        plan.write(Write::new("cpu", "cpu.idle", idle, "cpu.idle"));
    }
    Ok(())
}

pub(super) fn blkio(plan: &mut Plan, resources: &Resources) -> Result<()> {
    let Some(io) = &resources.block_io else { return Ok(()) };
    if let Some(weight) = io.weight.filter(|&w| w != 0) {
        first_of(plan, ["blkio.weight", "blkio.bfq.weight"], &weight.to_string(), "blockIO.weight");
    }
    if let Some(weight) = io.leaf_weight.filter(|&w| w != 0) {
        plan.write(Write::new("blkio", "blkio.leaf_weight", weight, "blockIO.leafWeight"));
    }
    for device in io.weight_device.iter().flatten() {
        let line = |weight| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|&w| w != 0) {
            first_of(plan, ["blkio.weight_device", "blkio.bfq.weight_device"], &line(weight), "blockIO.weightDevice");
        }
        if let Some(weight) = device.leaf_weight.filter(|&w| w != 0) {
            plan.write(Write::new("blkio", "blkio.leaf_weight_device", line(weight), "blockIO.weightDevice"));
        }
    }
    throttle(plan, "blkio.throttle.read_bps_device", io.throttle_read_bps_device.as_deref(), "blockIO.throttleReadBpsDevice");
    throttle(plan, "blkio.throttle.write_bps_device", io.throttle_write_bps_device.as_deref(), "blockIO.throttleWriteBpsDevice");
    throttle(plan, "blkio.throttle.read_iops_device", io.throttle_read_iops_device.as_deref(), "blockIO.throttleReadIOPSDevice");
    throttle(plan, "blkio.throttle.write_iops_device", io.throttle_write_iops_device.as_deref(), "blockIO.throttleWriteIOPSDevice");
    Ok(())
}

fn first_of(plan: &mut Plan, files: [&str; 2], value: &str, key: &'static str) {
    plan.steps.push(Step::FirstOf(files.map(|file| Write::new("blkio", file, value, key)).to_vec()));
}

fn throttle(plan: &mut Plan, file: &str, devices: Option<&[ThrottleDevice]>, key: &'static str) {
    for device in devices.unwrap_or_default() {
        plan.write(Write::new("blkio", file, format!("{}:{} {}", device.major, device.minor, device.rate), key));
    }
}
