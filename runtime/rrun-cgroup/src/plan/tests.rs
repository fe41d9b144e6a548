use std::path::PathBuf;

use super::*;
use crate::location::Dir;

fn location(hierarchies: &[(Version, &[&str])]) -> Location {
    let dir = |(version, controllers): &(Version, &[&str])| Dir {
        version: *version,
        controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
        mount_point: PathBuf::from("/sys/fs/cgroup"),
        path: PathBuf::from("/sys/fs/cgroup/x"),
    };
    Location { dirs: hierarchies.iter().map(dir).collect(), unit: None }
}

fn v2() -> Location {
    location(&[(Version::V2, &[])])
}

fn v1() -> Location {
    location(&[
        (Version::V1, &["cpu", "cpuacct"]),
        (Version::V1, &["memory"]),
        (Version::V1, &["blkio"]),
        (Version::V1, &["pids"]),
        (Version::V1, &["cpuset"]),
    ])
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

/// Every write as `file=value`, in order; `|` joins alternatives, `+` what belongs together.
fn lines(location: &Location, json: &str) -> std::result::Result<Vec<String>, String> {
    let plan = Plan::for_update(location, &resources(json), PlanOptions::default()).map_err(|e| e.to_string())?;
    let join = |writes: &[Write], by: &str| writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect::<Vec<_>>().join(by);
    Ok(plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Write(w) => join(std::slice::from_ref(w), ""),
            Step::Together(ws) => join(ws, "+"),
            Step::FirstOf(ws) => join(ws, "|"),
            other => format!("{other:?}"),
        })
        .collect())
}

const DOCKER: &str = r#"{"memory":{"limit":104857600,"swap":209715200,"reservation":0,"disableOOMKiller":false},
    "cpu":{"shares":512,"quota":150000,"period":100000,"cpus":"0-1"},"pids":{"limit":64},
    "blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}]}}"#;

#[test]
fn docker_limits_on_v2() {
    assert_eq!(
        lines(&v2(), DOCKER).unwrap(),
        [
            "cpuset.cpus=0-1",
            "memory.swap.max=104857600+memory.max=104857600",
            "cpu.weight=59",
            "cpu.max=150000 100000",
            "pids.max=64",
            "io.bfq.weight=500|io.weight=4950",
            "io.max=254:0 rbps=1048576",
        ]
    );
}

#[test]
fn docker_limits_on_v1() {
    assert_eq!(
        lines(&v1(), DOCKER).unwrap(),
        [
            "cpuset.cpus=0-1",
            "memory.limit_in_bytes=104857600+memory.memsw.limit_in_bytes=209715200",
            "cpu.shares=512",
            "cpu.cfs_period_us=100000+cpu.cfs_quota_us=150000",
            "pids.max=64",
            "blkio.weight=500|blkio.bfq.weight=500",
            "blkio.throttle.read_bps_device=254:0 1048576",
        ]
    );
}

#[test]
fn unlimited_is_max_on_v2_and_minus_one_on_v1() {
    let json = r#"{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"quota":-1}}"#;
    assert_eq!(lines(&v2(), json).unwrap(), ["memory.swap.max=max+memory.max=max", "cpu.max=max", "pids.max=max"]);
    assert_eq!(
        lines(&v1(), json).unwrap(),
        ["memory.limit_in_bytes=-1+memory.memsw.limit_in_bytes=-1", "cpu.cfs_quota_us=-1", "pids.max=max"]
    );
}

#[test]
fn nothing_asked_writes_nothing_but_denies_devices() {
    let plan = Plan::for_create(&v2(), &Resources::default(), PlanOptions::default()).unwrap();
    assert!(plan.steps.is_empty());
    assert!(!plan.devices.unwrap().allow_by_default);
    assert_eq!(Plan::for_update(&v2(), &Resources::default(), PlanOptions::default()).unwrap(), Plan::default());
}

#[test]
fn unified_comes_last_and_only_for_what_the_v2_tree_has() {
    let json = r#"{"unified":{"memory.high":"1000","io.max":"8:0 rbps=1\n8:16 rbps=2"},"pids":{"limit":5}}"#;
    assert_eq!(lines(&v2(), json).unwrap(), ["pids.max=5", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=1000"]);
    assert!(lines(&v1(), json).unwrap_err().contains("unified: \"io.max\": no cgroup v2 tree is mounted"));
    let mut hybrid = v1();
    hybrid.dirs.extend(v2().dirs);
    let told = lines(&hybrid, json).unwrap_err();
    assert!(told.contains("\"io.max\": blkio is in the cgroup v1 hierarchy /sys/fs/cgroup: give the limit by its own key"), "{told}");
    let rest = r#"{"unified":{"hugetlb.2MB.max":"2097152","cgroup.max.depth":"3"}}"#;
    assert_eq!(lines(&hybrid, rest).unwrap(), ["cgroup.max.depth=3", "hugetlb.2MB.max=2097152"]);
    assert!(lines(&v2(), r#"{"unified":{"../memory.max":"1"}}"#).unwrap_err().contains("is no name"));
}

#[test]
fn what_v2_does_not_have_is_refused() {
    for json in [
        r#"{"memory":{"swappiness":10}}"#,
        r#"{"memory":{"disableOOMKiller":true}}"#,
        r#"{"cpu":{"realtimeRuntime":1000}}"#,
        r#"{"network":{"classID":5}}"#,
        r#"{"blockIO":{"leafWeight":10}}"#,
    ] {
        assert!(lines(&v2(), json).unwrap_err().contains("not exist in cgroup v2"), "{json}");
    }
}

#[test]
fn a_controller_that_no_hierarchy_has_is_an_error_only_if_asked_for() {
    let only_cpu = location(&[(Version::V1, &["cpu"])]);
    assert!(lines(&only_cpu, r#"{"memory":{"disableOOMKiller":false},"network":{}}"#).unwrap().is_empty());
    assert!(lines(&only_cpu, r#"{"memory":{"limit":5}}"#).unwrap_err().contains("memory.limit needs the controller memory"));
}

#[test]
fn in_hybrid_a_controller_is_found_where_it_is() {
    let hybrid = location(&[(Version::V1, &["memory"]), (Version::V2, &[])]);
    let json = r#"{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":7}]}"#;
    assert_eq!(lines(&hybrid, json).unwrap(), ["memory.limit_in_bytes=5", "hugetlb.2MB.max=7", "hugetlb.2MB.rsvd.max=7"]);
    assert!(lines(&hybrid, r#"{"hugepageLimits":[{"pageSize":"../x","limit":7}]}"#).is_err());
}

#[test]
fn deprecated_kernel_memory_is_told_not_set() {
    let plan = Plan::for_update(&v2(), &resources(r#"{"memory":{"kernel":5}}"#), PlanOptions::default()).unwrap();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.warnings.len(), 1);
}

#[test]
fn rootless_has_no_device_policy() {
    let rules = resources(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    let plan = Plan::for_create(&v2(), &rules, PlanOptions { rootless: true }).unwrap();
    assert_eq!(plan.devices, None);
    assert_eq!(plan.warnings.len(), 1);
}
