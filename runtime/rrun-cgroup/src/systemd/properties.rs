//! What systemd must know of a container's limits, lest it writes its own idea of them at its next reload: the plan's writes as unit
//! properties (systemd.resource-control(5)). What systemd has no property for is in the cgroup's files alone.

use super::wire::Value;
use crate::devices::{self, ANY, Key, Kind, Policy};
use crate::plan::{Plan, Step, Write};

/// A property, and the first version of systemd that has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub name: &'static str,
    pub value: Value,
    pub since: u32,
}

/// The CPU bandwidth of the cgroup as it is: a plan may change one half of it alone. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// None: unlimited.
    pub quota: Option<u64>,
    pub period: u64,
}

/// The kernel's default.
pub const UNLIMITED: Bandwidth = Bandwidth { quota: None, period: 100_000 };

/// systemd's "infinity".
const INFINITY: u64 = u64::MAX;
/// systemd keeps CPU time in whole percents.
const PERCENT: u64 = 10_000;

/// The plan as systemd takes it. Quotas are rounded up to what systemd can express, in the plan too: otherwise the cgroup would
/// have one quota now and another after systemd's next reload.
pub fn of_plan(plan: &mut Plan, now: Bandwidth, v2: bool) -> Vec<Property> {
    let mut found = Vec::new();
    let bandwidth = change_of_bandwidth(&mut plan.steps, now);
    for write in writes(&plan.steps) {
        if let Some(property) = of_write(write) {
            // The verbatim files come last and win.
            found.retain(|p: &Property| p.name != property.name);
            found.push(property);
        }
    }
    if let Some(to) = bandwidth {
        found.push(Property { name: "CPUQuotaPeriodUSec", value: Value::U64(to.period), since: 242 });
        let per_second = to.quota.map_or(INFINITY, |quota| per_second(quota, to.period));
        found.push(Property { name: "CPUQuotaPerSecUSec", value: Value::U64(per_second), since: 0 });
    }
    found.extend(plan.devices.as_ref().map(|policy| of_devices(policy, v2)).unwrap_or_default());
    found
}

fn writes(steps: &[Step]) -> impl Iterator<Item = &Write> {
    steps.iter().flat_map(|step| match step {
        Step::Write(write) => std::slice::from_ref(write),
        // Of alternatives the last is on the scale of systemd's property.
        Step::FirstOf(writes) => writes.last().map(std::slice::from_ref).unwrap_or_default(),
        Step::Together(writes) => writes.as_slice(),
        Step::CpuPeriod { .. } | Step::RefuseBelowUsage { .. } => &[],
    })
}

fn of_write(write: &Write) -> Option<Property> {
    let (name, since) = match write.file.as_str() {
        "memory.max" => ("MemoryMax", 0),
        "memory.high" => ("MemoryHigh", 0),
        "memory.low" => ("MemoryLow", 0),
        "memory.min" => ("MemoryMin", 0),
        "memory.swap.max" => ("MemorySwapMax", 0),
        "memory.limit_in_bytes" => ("MemoryLimit", 0),
        "pids.max" => ("TasksMax", 0),
        "cpu.weight" => ("CPUWeight", 0),
        "cpu.shares" => ("CPUShares", 0),
        // A weight of 0 is systemd's word for it; there is none for "no more".
        "cpu.idle" if write.value == "1" => return Some(Property { name: "CPUWeight", value: Value::U64(0), since: 252 }),
        "cpuset.cpus" => ("AllowedCPUs", 244),
        "cpuset.mems" => ("AllowedMemoryNodes", 244),
        "blkio.weight" | "blkio.bfq.weight" => ("BlockIOWeight", 0),
        "io.weight" => ("IOWeight", 0),
        _ => return None,
    };
    let value = match name {
        "AllowedCPUs" | "AllowedMemoryNodes" => Value::Array("y".into(), bits(&write.value)?.into_iter().map(Value::Byte).collect()),
        _ => Value::U64(number(&write.value)?),
    };
    Some(Property { name, value, since })
}

/// What systemd does not take for a number is left to the file, which takes or refuses it in the kernel's words.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(INFINITY),
        text if text.starts_with('-') => text.parse::<i64>().ok().map(|_| INFINITY),
        text => text.parse().ok(),
    }
}

/// `0-2,8` → 0b0000_0111, 0b0000_0001: a bit per CPU, lowest first.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0u8);
        (first..=last).for_each(|n| bytes[n / 8] |= 1 << (n % 8));
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Microseconds of CPU time per second, in whole percents.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u64::try_from(u128::from(quota) * 1_000_000 / u128::from(period.max(1))).unwrap_or(INFINITY - PERCENT);
    exact.next_multiple_of(PERCENT)
}

/// What the steps make of the bandwidth; None if they leave it alone. Its quotas become the rounded ones.
fn change_of_bandwidth(steps: &mut [Step], now: Bandwidth) -> Option<Bandwidth> {
    let mut to = now;
    let mut changes = false;
    for step in steps.iter() {
        match step {
            Step::CpuPeriod { period } => (to.period, changes) = (*period, true),
            step => {
                for write in writes(std::slice::from_ref(step)) {
                    changes |= take_over(write, &mut to);
                }
            }
        }
    }
    if let Some(quota) = to.quota.as_mut().filter(|_| changes) {
        let rounded = u128::from(per_second(*quota, to.period)) * u128::from(to.period) / 1_000_000;
        *quota = u64::try_from(rounded).unwrap_or(*quota);
    }
    if changes {
        steps.iter_mut().for_each(|step| round(step, to));
    }
    changes.then_some(to)
}

/// Whether the write is about bandwidth.
fn take_over(write: &Write, to: &mut Bandwidth) -> bool {
    let mut words = write.value.split_whitespace();
    let first = words.next().unwrap_or_default();
    let quota = |word: &str| number(word).filter(|&q| q != INFINITY);
    match write.file.as_str() {
        "cpu.max" => {
            to.quota = quota(first);
            to.period = words.next().and_then(|p| p.parse().ok()).unwrap_or(to.period);
        }
        "cpu.cfs_quota_us" => to.quota = quota(first),
        "cpu.cfs_period_us" => to.period = first.parse().unwrap_or(to.period),
        _ => return false,
    }
    true
}

fn round(step: &mut Step, to: Bandwidth) {
    let quota = to.quota.map_or_else(|| "max".to_owned(), |q| q.to_string());
    let round_one = |write: &mut Write| match (write.file.as_str(), to.quota) {
        ("cpu.max", _) => write.value = format!("{quota} {}", to.period),
        ("cpu.cfs_quota_us", Some(quota)) => write.value = quota.to_string(),
        _ => {}
    };
    match step {
        // systemd has just written its own quota: what is in the file now is not what was there before.
        Step::CpuPeriod { .. } => *step = Step::Write(Write::new("cpu", "cpu.max", format!("{quota} {}", to.period), "cpu.period")),
        Step::Write(write) => round_one(write),
        Step::Together(writes) | Step::FirstOf(writes) => writes.iter_mut().for_each(round_one),
        Step::RefuseBelowUsage { .. } => {}
    }
}

/// systemd knows lists of what is allowed, so a policy that allows by default is left to the cgroup's own filter on v2, which
/// systemd does not touch then. On v1 it would at its next reload allow everything: there nothing is the safer list.
fn of_devices(policy: &Policy, v2: bool) -> Vec<Property> {
    let expressible = !policy.allow_by_default && policy.exceptions.keys().all(|key| key.major != ANY || key.minor == ANY);
    let open = policy.allows_everything() || (v2 && !expressible);
    let mut allow: Vec<Value> = Vec::new();
    if !open && !policy.allow_by_default {
        let entries = policy.exceptions.iter().filter_map(|(key, access)| Some((device_path(key)?, devices::access_letters(*access))));
        allow.extend(entries.map(|(path, access)| Value::Struct(vec![Value::text(path), Value::text(access)])));
    }
    let list = |values| Property { name: "DeviceAllow", value: Value::Array("(ss)".into(), values), since: 0 };
    let policy = Property { name: "DevicePolicy", value: Value::text(if open { "auto" } else { "strict" }), since: 0 };
    // An empty list takes back what an earlier one allowed; further ones add.
    let mut properties = vec![policy, list(Vec::new())];
    if !allow.is_empty() {
        properties.push(list(allow));
    }
    properties
}

/// systemd reads numbers off such a path; the node need not exist (since 240). None: it cannot say this.
fn device_path(key: &Key) -> Option<String> {
    let kind = if key.kind == Kind::Block { "block" } else { "char" };
    match (key.major, key.minor) {
        (ANY, ANY) => Some(format!("{kind}-*")),
        (ANY, _) => None,
        (major, ANY) => Some(format!("{kind}-{major}")),
        (major, minor) => Some(format!("/dev/{kind}/{major}:{minor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::plan::PlanOptions;
    use crate::resources::Resources;

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const V1: &str = "31 23 0:28 / /c rw - cgroup c rw,memory,cpu,cpuset,pids,devices,blkio,freezer\n";

    fn plan(mountinfo: &str, json: &str) -> Plan {
        let location = Host::from_proc(mountinfo.as_bytes(), b"0::/\n").locate(Some("/x"), "x").unwrap();
        let resources: Resources = serde_json::from_str(json).unwrap();
        Plan::for_update(&location, &resources, PlanOptions::default()).unwrap()
    }

    fn shown(mountinfo: &str, json: &str, now: Bandwidth) -> Vec<String> {
        let all = of_plan(&mut plan(mountinfo, json), now, mountinfo == V2);
        all.into_iter()
            .map(|p| match p.value {
                Value::U64(u64::MAX) => format!("{}=infinity", p.name),
                Value::U64(n) => format!("{}={n}", p.name),
                Value::Array(_, values) => format!("{}={values:?}", p.name),
                other => format!("{}={other:?}", p.name),
            })
            .collect()
    }

    #[test]
    fn limits_of_v2() {
        let json = r#"{"memory": {"limit": 100, "swap": 300, "reservation": 50}, "pids": {"limit": -1},
            "cpu": {"shares": 1024, "quota": 30000, "period": 100000, "cpus": "0-1,8"}, "blockIO": {"weight": 10}}"#;
        assert_eq!(
            shown(V2, json, UNLIMITED),
            [
                "AllowedCPUs=[Byte(3), Byte(1)]",
                "MemorySwapMax=200",
                "MemoryMax=100",
                "MemoryLow=50",
                "CPUWeight=100",
                "TasksMax=infinity",
                "IOWeight=1",
                "CPUQuotaPeriodUSec=100000",
                "CPUQuotaPerSecUSec=300000"
            ]
        );
    }

    #[test]
    fn limits_of_v1() {
        let json = r#"{"memory": {"limit": -1}, "pids": {"limit": 0}, "cpu": {"shares": 512, "quota": -1}, "blockIO": {"weight": 500}}"#;
        let expected = [
            "MemoryLimit=infinity",
            "CPUShares=512",
            "TasksMax=1",
            "BlockIOWeight=500",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=infinity",
        ];
        assert_eq!(shown(V1, json, UNLIMITED), expected);
    }

    #[test]
    fn verbatim_files_win() {
        let json = r#"{"memory": {"limit": 100}, "unified": {"memory.max": "max", "cpu.idle": "1", "memory.high": "7", "pids.max": "5", "cpu.max": "20000"}}"#;
        let expected =
            ["CPUWeight=0", "MemoryHigh=7", "MemoryMax=infinity", "TasksMax=5", "CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=200000"];
        assert_eq!(shown(V2, json, UNLIMITED), expected);
    }

    #[test]
    fn half_a_bandwidth_keeps_the_other_half() {
        let now = Bandwidth { quota: Some(50_000), period: 200_000 };
        assert_eq!(shown(V2, r#"{"cpu": {"quota": 20000}}"#, now), ["CPUQuotaPeriodUSec=200000", "CPUQuotaPerSecUSec=100000"]);
        assert_eq!(shown(V2, r#"{"cpu": {"period": 50000}}"#, now), ["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=1000000"]);
        let mut plan = plan(V2, r#"{"cpu": {"period": 50000}}"#);
        of_plan(&mut plan, now, true);
        assert!(matches!(&plan.steps[..], [Step::Write(write)] if write.value == "50000 50000"), "{:?}", plan.steps);
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_percents_in_the_file_too() {
        let mut fine = plan(V2, r#"{"cpu": {"quota": 12345, "period": 100000}}"#);
        let found = of_plan(&mut fine, UNLIMITED, true);
        assert_eq!(found[1].value, Value::U64(130_000));
        assert!(matches!(&fine.steps[..], [Step::Together(w)] if w[0].value == "13000 100000"), "{:?}", fine.steps);
    }

    #[test]
    fn devices_are_a_strict_list() {
        let json =
            r#"{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "r"}]}"#;
        let found = of_plan(&mut plan(V2, json), UNLIMITED, true);
        assert_eq!(found[0].value, Value::text("strict"));
        assert_eq!(found[1].value, Value::Array("(ss)".into(), vec![]));
        let Value::Array(_, entries) = &found[2].value else { panic!("no list") };
        let has = |path: &str, access: &str| entries.contains(&Value::Struct(vec![Value::text(path), Value::text(access)]));
        assert!(has("/dev/block/8:1", "r") && has("/dev/char/1:3", "rwm") && has("char-136", "rwm") && has("block-*", "m"), "{entries:?}");
    }

    #[test]
    fn a_policy_that_systemd_cannot_say_is_left_to_the_filter_or_denied() {
        let all = r#"{"devices": [{"allow": true, "access": "rwm"}]}"#;
        let all_but =
            r#"{"devices": [{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 10, "minor": 201, "access": "rwm"}]}"#;
        let policy = |mountinfo: &str, json: &str| of_plan(&mut plan(mountinfo, json), UNLIMITED, mountinfo == V2)[0].value.clone();
        assert_eq!([policy(V2, all), policy(V1, all)], [Value::text("auto"), Value::text("auto")]);
        assert_eq!([policy(V2, all_but), policy(V1, all_but)], [Value::text("auto"), Value::text("strict")]);
    }

    #[test]
    fn lists_of_cpus_are_bits() {
        assert_eq!(bits("0"), Some(vec![1]));
        assert_eq!(bits("0-7, 9"), Some(vec![255, 2]));
        for bad in ["", "x", "3-1", "1-", "99999"] {
            assert_eq!(bits(bad), None, "{bad}");
        }
    }
}
