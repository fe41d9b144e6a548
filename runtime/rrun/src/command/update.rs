use anyhow::{Context, Result, bail};
use rrun_cgroup::{BlockIo, Cpu, Memory, Pids, Plan, PlanOptions, Resources};
use rrun_core::lifecycle::cgroup_of;
use rrun_core::state::{Status, Store};

use crate::cli::{Global, Update};
use crate::rights::Rights;

/// `rrun update`.
pub fn update(store: &Store, global: &Global, id: &str, args: &Update) -> Result<i32> {
    let entry = store.entry(id, true)?;
    let state = entry.load()?;
    if entry.status(&state)? == Status::Stopped {
        bail!("container not running");
    }
    let resources = match &args.resources {
        Some(path) => from_file(path)?,
        None => from_flags(args)?,
    };
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        rrun_core::log::warn("Kernel memory settings are ignored and will be removed: the kernel no longer has them");
    }
    let cgroup = cgroup_of(&state)?;
    let rights = Rights::of(global);
    let options = PlanOptions { rootless: rights.rootless_cgroups || rights.in_user_namespace };
    let plan = Plan::for_update(cgroup.location(), &resources, options)?;
    plan.warnings.iter().for_each(|w| rrun_core::log::warn(w));
    cgroup.update(plan)?;
    let schema = |flag: &Option<String>| flag.clone().unwrap_or_default();
    let (l3_cache, memory_bandwidth) = (schema(&args.l3_cache_schema), schema(&args.mem_bw_schema));
    if !l3_cache.is_empty() || !memory_bandwidth.is_empty() {
        let group =
            state.rdt.as_ref().context("--l3-cache-schema, --mem-bw-schema: the container has no group of resctrl (linux.intelRdt)")?;
        group.update(&l3_cache, &memory_bandwidth)?;
    }
    Ok(0)
}

fn from_file(path: &std::path::Path) -> Result<Resources> {
    let text = if path == std::path::Path::new("-") { std::io::read_to_string(std::io::stdin())? } else { std::fs::read_to_string(path)? };
    serde_json::from_str(&text).with_context(|| format!("resources of {}", path.display()))
}

fn from_flags(args: &Update) -> Result<Resources> {
    let memory = Memory {
        limit: bytes("--memory", args.memory.as_deref())?,
        reservation: bytes("--memory-reservation", args.memory_reservation.as_deref())?,
        swap: bytes("--memory-swap", args.memory_swap.as_deref())?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: args.cpu_share,
        quota: args.cpu_quota,
        burst: args.cpu_burst,
        period: args.cpu_period,
        realtime_runtime: args.cpu_rt_runtime,
        realtime_period: args.cpu_rt_period,
        cpus: args.cpuset_cpus.clone(),
        mems: args.cpuset_mems.clone(),
        idle: args.cpu_idle,
    };
    fn given<T: Default + PartialEq>(value: T) -> Option<T> {
        (value != T::default()).then_some(value)
    }
    Ok(Resources {
        memory: given(memory),
        cpu: given(cpu),
        pids: args.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: args.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// A number of bytes, with docker's units (1024 each).
fn bytes(flag: &str, text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.strip_suffix(['k', 'm', 'g', 't']) {
        Some(digits) => (
            digits,
            lower.bytes().last().map_or(0, |u| match u {
                b'k' => 10,
                b'm' => 20,
                b'g' => 30,
                _ => 40,
            }),
        ),
        None => (lower, 0),
    };
    let number: i64 = digits.trim().parse().with_context(|| format!("{flag} {text:?}: give bytes, with k, m, g or t if you like"))?;
    number.checked_mul(1i64 << shift).map(Some).with_context(|| format!("{flag} {text:?}: too large"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn memory_takes_units() {
        for (text, number) in [("5", 5), ("-1", -1), ("1k", 1024), ("2M", 2 << 20), ("1GiB", 1 << 30), ("3mb", 3 << 20)] {
            assert_eq!(bytes("--memory", Some(text)).unwrap(), Some(number), "{text}");
        }
        assert!(bytes("--memory", Some("5x")).is_err());
        assert!(bytes("--memory", Some("9999999999999t")).is_err());
    }
}
