//! Controllers whose files differ, on v2 (Documentation/admin-guide/cgroup-v2.rst), and the conversions from v1's scales.

use super::v1::refuse_swap_below_memory;
use super::{Plan, Step, Write, or_max};
use crate::error::{Error, Result};
use crate::resources::{BlockIo, Cpu, Resources, ThrottleDevice};

pub(super) fn memory(plan: &mut Plan, resources: &Resources) -> Result<()> {
    let Some(memory) = &resources.memory else { return Ok(()) };
    let refuse = |key: &str| Err(Error::Unsupported(format!("memory.{key} does not exist in cgroup v2: drop it")));
    if memory.swappiness.is_some_and(|s| s != u64::MAX) {
        return refuse("swappiness");
    }
    if memory.disable_oom_killer == Some(true) {
        return refuse("disableOOMKiller");
    }
    if memory.kernel_tcp.is_some_and(|t| t != 0) {
        return refuse("kernelTCP");
    }
    if memory.kernel.is_some_and(|k| k != 0) {
        plan.warnings.push("memory.kernel is ignored: deprecated, and gone from the kernel".into());
    }
    if memory.use_hierarchy == Some(false) {
        plan.warnings.push("memory.useHierarchy false is ignored: kernels since 5.11 always count what is below a cgroup".into());
    }
    let limit = memory.limit.filter(|&l| l != 0);
    if let (Some(limit @ 1..), Some(true)) = (limit, memory.check_before_update) {
        plan.steps.push(Step::RefuseBelowUsage { limit });
    }
    let mut together = Vec::new();
    if let Some(swap) = swap_max(limit, memory.swap)? {
        let write = Write::new("memory", "memory.swap.max", &swap, "memory.swap");
        // A kernel without swap has no file for it; then there is nothing to limit.
        together.push(if swap == "max" || swap == "0" { write.optional() } else { write });
    }
    if let Some(limit) = limit {
        together.push(Write::new("memory", "memory.max", or_max(limit), "memory.limit"));
    }
    if let Some(low) = memory.reservation.filter(|&r| r != 0) {
        together.push(Write::new("memory", "memory.low", or_max(low), "memory.reservation"));
    }
    plan.together(together);
    Ok(())
}

/// v1 counts memory and swap together, v2 swap alone. Unlimited memory with no word on swap means unlimited swap.
fn swap_max(limit: Option<i64>, memory_and_swap: Option<i64>) -> Result<Option<String>> {
    match (limit, memory_and_swap.filter(|&s| s != 0)) {
        (Some(..0), None) | (_, Some(..0)) => Ok(Some("max".into())),
        (_, None) => Ok(None),
        (None, Some(swap)) => {
            Err(Error::Invalid(format!("memory.swap ({swap}) counts memory and swap together: give memory.limit with it")))
        }
        (Some(limit), Some(swap)) => {
            refuse_swap_below_memory(Some(limit), Some(swap))?;
            Ok(Some((swap - limit).to_string()))
        }
    }
}

pub(super) fn cpu(plan: &mut Plan, resources: &Resources) -> Result<()> {
    let Some(cpu) = &resources.cpu else { return Ok(()) };
    if cpu.realtime_period.is_some_and(|v| v != 0) || cpu.realtime_runtime.is_some_and(|v| v != 0) {
        return Err(Error::Unsupported("cpu.realtimeRuntime and cpu.realtimePeriod do not exist in cgroup v2: drop them".into()));
    }
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        plan.write(Write::new("cpu", "cpu.weight", weight_of_shares(shares), "cpu.shares"));
    }
    bandwidth(plan, cpu);
    if let Some(idle) = cpu.idle {
        plan.write(Write::new("cpu", "cpu.idle", idle, "cpu.idle"));
    }
    Ok(())
}

fn bandwidth(plan: &mut Plan, cpu: &Cpu) {
    let mut together = Vec::new();
    match (cpu.quota.filter(|&q| q != 0), cpu.period.filter(|&p| p != 0)) {
        (Some(quota), Some(period)) => {
            together.push(Write::new("cpu", "cpu.max", format!("{} {period}", or_max(quota)), "cpu.quota"));
        }
        // The kernel keeps the period that is there.
        (Some(quota), None) => together.push(Write::new("cpu", "cpu.max", or_max(quota), "cpu.quota")),
        (None, Some(period)) => plan.steps.push(Step::CpuPeriod { period }),
        (None, None) => {}
    }
    if let Some(burst) = cpu.burst {
        together.push(Write::new("cpu", "cpu.max.burst", burst, "cpu.burst"));
    }
    plan.together(together);
}

/// v1's shares [2, 262144] as v2's weight [1, 10000], so that the default 1024 becomes the default 100: on logarithmic scales,
/// a parabola through (2, 1), (1024, 100) and (262144, 10000).
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

pub(super) fn io(plan: &mut Plan, resources: &Resources) -> Result<()> {
    let Some(io) = &resources.block_io else { return Ok(()) };
    weights(plan, io)?;
    throttle(plan, "rbps", io.throttle_read_bps_device.as_deref(), "blockIO.throttleReadBpsDevice");
    throttle(plan, "wbps", io.throttle_write_bps_device.as_deref(), "blockIO.throttleWriteBpsDevice");
    throttle(plan, "riops", io.throttle_read_iops_device.as_deref(), "blockIO.throttleReadIOPSDevice");
    throttle(plan, "wiops", io.throttle_write_iops_device.as_deref(), "blockIO.throttleWriteIOPSDevice");
    Ok(())
}

/// BFQ takes v1's numbers; the cost model's io.weight has v2's scale.
fn weights(plan: &mut Plan, io: &BlockIo) -> Result<()> {
    let leaf = io.leaf_weight.into_iter().chain(io.weight_device.iter().flatten().filter_map(|d| d.leaf_weight)).any(|w| w != 0);
    if leaf {
        return Err(Error::Unsupported("blockIO.leafWeight does not exist in cgroup v2: drop it".into()));
    }
    let mut either = |device: &str, weight: u16, key| {
        let bfq = Write::new("io", "io.bfq.weight", format!("{device}{weight}"), key);
        let cost = Write::new("io", "io.weight", format!("{device}{}", io_weight(weight)), key);
        plan.steps.push(Step::FirstOf(vec![bfq, cost]));
    };
    if let Some(weight) = io.weight.filter(|&w| w != 0) {
        either("", weight, "blockIO.weight");
    }
    for device in io.weight_device.iter().flatten() {
        if let Some(weight) = device.weight.filter(|&w| w != 0) {
            either(&format!("{}:{} ", device.major, device.minor), weight, "blockIO.weightDevice");
        }
    }
    Ok(())
}

/// [10, 1000] → [1, 10000], linear.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn throttle(plan: &mut Plan, name: &str, devices: Option<&[ThrottleDevice]>, key: &'static str) {
    for device in devices.unwrap_or_default() {
        let rate = if device.rate == 0 { "max".into() } else { device.rate.to_string() };
        plan.write(Write::new("io", "io.max", format!("{}:{} {name}={rate}", device.major, device.minor), key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_meet_the_fixed_points() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 40, 10_000), (512, 59), (2048, 174)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn io_weights_span_both_scales() {
        assert_eq!([10, 100, 1000, 5, 2000].map(io_weight), [1, 910, 10_000, 1, 10_000]);
    }

    #[test]
    fn swap_is_what_is_beyond_memory() {
        let swap = |limit, swap| swap_max(limit, swap).map_err(|e| e.to_string());
        assert_eq!(swap(Some(100), Some(300)), Ok(Some("200".into())));
        assert_eq!(swap(Some(100), Some(100)), Ok(Some("0".into())));
        assert_eq!(swap(Some(100), Some(-1)), Ok(Some("max".into())));
        assert_eq!(swap(Some(-1), None), Ok(Some("max".into())));
        assert_eq!(swap(Some(100), None), Ok(None));
        assert_eq!(swap(None, Some(-1)), Ok(Some("max".into())));
        assert!(swap(None, Some(5)).unwrap_err().contains("give memory.limit"));
        assert!(swap(Some(100), Some(50)).unwrap_err().contains("must not be below"));
        assert!(swap(Some(-1), Some(50)).is_err());
    }
}
