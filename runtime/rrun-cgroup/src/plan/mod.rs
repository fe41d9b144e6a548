//! Resources → the list of writes. Pure: nothing here looks at the host.

mod judge;
mod v1;
mod v2;

use crate::devices::Policy;
use crate::error::{Error, Result};
use crate::host::Version;
use crate::location::Location;
use crate::resources::{Rdma, Resources};

/// What a plan depends on beside the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// The runtime is not root in the first user namespace: device rules, which need it, are left out with a warning.
    pub rootless: bool,
}

/// The writes that bring a cgroup from what it is to what the resources ask for. Pure data: tests read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// The device policy to have; None leaves it as it is.
    pub devices: Option<Policy>,
    /// One line per setting that is deliberately not carried out (deprecated ones, as the specification allows).
    pub warnings: Vec<String>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One write.
    Write(Write),
    /// Writes whose right order depends on the values there are (a limit may not pass another one): those that are refused
    /// (EINVAL, EBUSY) are tried again after the others.
    Together(Vec<Write>),
    /// The first of these files that exists.
    FirstOf(Vec<Write>),
    /// v2's `cpu.max` with a new period and the quota that is there.
    CpuPeriod { period: u64 },
    /// Refuse if memory in use is above this limit (`checkBeforeUpdate`).
    RefuseBelowUsage { limit: i64 },
}

/// A value for a file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Whose hierarchy the file is in.
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    /// The key of config.json that asked for it.
    pub resource: &'static str,
    /// A host without the file is as good as one where the value is set.
    pub optional: bool,
}

impl Write {
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over numbers and texts alike")]
    pub(crate) fn new(controller: &'static str, file: impl Into<String>, value: impl ToString, resource: &'static str) -> Write {
        Write { controller, file: file.into(), value: value.to_string(), resource, optional: false }
    }

    pub(crate) fn optional(self) -> Write {
        Write { optional: true, ..self }
    }
}

impl Plan {
    /// For a fresh cgroup; the device policy is always part of it (deny all, then the rules, then the runtime's defaults:
    /// null, zero, full, random, urandom, tty, console, ptmx, pts, and mknod of anything).
    pub fn for_create(location: &Location, resources: &Resources, options: PlanOptions) -> Result<Plan> {
        let mut plan = Plan::for_update(location, resources, options)?;
        plan.devices = match options.rootless {
            true => None,
            false => Some(Policy::for_container(resources.devices.as_deref().unwrap_or_default())?),
        };
        Ok(plan)
    }

    /// For a live cgroup: only what `resources` names; devices only if it has rules for them.
    pub fn for_update(location: &Location, resources: &Resources, options: PlanOptions) -> Result<Plan> {
        judge::judge(resources)?;
        let mut plan = Plan::default();
        for (controller, lower) in CONTROLLERS {
            if let Some(version) = version_of(location, controller) {
                lower(&mut plan, resources, version)?;
            } else {
                refuse_without_any(&mut plan, resources, controller, *lower)?;
            }
        }
        unified(&mut plan, location, resources)?;
        match (&resources.devices, options.rootless) {
            (Some(rules), false) if !rules.is_empty() => plan.devices = Some(Policy::for_container(rules)?),
            (Some(rules), true) if !rules.is_empty() => {
                plan.warnings.push("device rules are not applied: they need root outside of user namespaces".into());
            }
            _ => {}
        }
        Ok(plan)
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.steps.push(Step::Write(write));
    }

    pub(crate) fn together(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.steps.push(Step::Together(writes));
        }
    }
}

type Lower = fn(&mut Plan, &Resources, Version) -> Result<()>;

/// In the order in which they are written: cpuset first, as v1 lets no process in before it is set.
const CONTROLLERS: &[(&str, Lower)] = &[
    ("cpuset", cpuset),
    ("memory", |plan, r, v| if v == Version::V1 { v1::memory(plan, r) } else { v2::memory(plan, r) }),
    ("cpu", |plan, r, v| if v == Version::V1 { v1::cpu(plan, r) } else { v2::cpu(plan, r) }),
    ("pids", pids),
    ("blkio", |plan, r, v| if v == Version::V1 { v1::blkio(plan, r) } else { v2::io(plan, r) }),
    ("hugetlb", hugetlb),
    ("net_cls", |plan, r, v| network(plan, r, v, "net_cls")),
    ("net_prio", |plan, r, v| network(plan, r, v, "net_prio")),
    ("rdma", rdma),
];

fn version_of(location: &Location, controller: &str) -> Option<Version> {
    location.dir_of(controller).map(|dir| dir.version)
}

/// No hierarchy has the controller: fine unless something is asked of it.
fn refuse_without_any(plan: &mut Plan, resources: &Resources, controller: &'static str, lower: Lower) -> Result<()> {
    let mut trial = Plan::default();
    lower(&mut trial, resources, Version::V1)?;
    plan.warnings.append(&mut trial.warnings);
    let asked = trial.steps.iter().find_map(|step| match step {
        Step::Write(write) => Some(write.resource),
        Step::Together(writes) | Step::FirstOf(writes) => writes.first().map(|w| w.resource),
        Step::CpuPeriod { .. } => Some("cpu.period"),
        Step::RefuseBelowUsage { .. } => None,
    });
    match asked {
        None => Ok(()),
        Some(resource) => Err(Error::Unsupported(format!(
            "{resource} needs the controller {controller}, which no mounted cgroup hierarchy has: mount it or drop the limit"
        ))),
    }
}

fn cpuset(plan: &mut Plan, resources: &Resources, _: Version) -> Result<()> {
    let Some(cpu) = &resources.cpu else { return Ok(()) };
    let given = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
    if let Some(cpus) = given(&cpu.cpus) {
        plan.write(Write::new("cpuset", "cpuset.cpus", cpus, "cpu.cpus"));
    }
    if let Some(mems) = given(&cpu.mems) {
        plan.write(Write::new("cpuset", "cpuset.mems", mems, "cpu.mems"));
    }
    Ok(())
}

fn pids(plan: &mut Plan, resources: &Resources, _: Version) -> Result<()> {
    match resources.pids.as_ref().and_then(|p| p.limit) {
        None => {}
        // The kernel would let no process in, systemd knows no 0: the field means the least there is.
        Some(0) => plan.write(Write::new("pids", "pids.max", 1, "pids.limit")),
        Some(limit) => plan.write(Write::new("pids", "pids.max", or_max(limit), "pids.limit")),
    }
    Ok(())
}

fn hugetlb(plan: &mut Plan, resources: &Resources, version: Version) -> Result<()> {
    for limit in resources.hugepage_limits.iter().flatten() {
        let size = &limit.page_size;
        if !is_page_size(size) {
            return Err(Error::Invalid(format!("hugepageLimits: pageSize: {size:?}: write it as 2MB or 1GB")));
        }
        let suffix = if version == Version::V1 { "limit_in_bytes" } else { "max" };
        plan.write(Write::new("hugetlb", format!("hugetlb.{size}.{suffix}"), limit.limit, "hugepageLimits"));
        plan.write(Write::new("hugetlb", format!("hugetlb.{size}.rsvd.{suffix}"), limit.limit, "hugepageLimits").optional());
    }
    Ok(())
}

fn is_page_size(text: &str) -> bool {
    let digits = text.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    digits.len() + 2 == text.len() && !digits.starts_with('0') && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn network(plan: &mut Plan, resources: &Resources, version: Version, controller: &'static str) -> Result<()> {
    let Some(network) = &resources.network else { return Ok(()) };
    let class = network.class_id.filter(|&id| id != 0 && controller == "net_cls");
    let priorities: &[_] = match controller {
        "net_prio" => network.priorities.as_deref().unwrap_or_default(),
        _ => &[],
    };
    if version == Version::V2 && (class.is_some() || !priorities.is_empty()) {
        return Err(Error::Unsupported(format!(
            "network: {controller} is not mounted, and does not exist in cgroup v2: classify traffic with nftables' `socket cgroupv2`"
        )));
    }
    if let Some(id) = class {
        plan.write(Write::new("net_cls", "net_cls.classid", id, "network.classID"));
    }
    for entry in priorities {
        plan.write(Write::new("net_prio", "net_prio.ifpriomap", format!("{} {}", entry.name, entry.priority), "network.priorities"));
    }
    Ok(())
}

fn rdma(plan: &mut Plan, resources: &Resources, _: Version) -> Result<()> {
    for (device, Rdma { hca_handles, hca_objects }) in resources.rdma.iter().flatten() {
        let mut value = device.clone();
        for (name, limit) in [("hca_handle", hca_handles), ("hca_object", hca_objects)] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {name}={limit}"));
            }
        }
        plan.write(Write::new("rdma", "rdma.max", value, "rdma"));
    }
    Ok(())
}

/// Beside v1 hierarchies the v2 tree has only the controllers that none of those has.
fn out_of_the_v2_tree(location: &Location, file: &str) -> Option<String> {
    if location.unified().is_none() {
        return Some("no cgroup v2 tree is mounted".into());
    }
    let controller = match file.split_once('.').map_or(file, |(controller, _)| controller) {
        "io" => "blkio",
        other => other,
    };
    let v1 = location.v1().find(|dir| dir.controllers.iter().any(|c| c == controller))?;
    Some(format!("{controller} is in the cgroup v1 hierarchy {}", v1.mount_point.display()))
}

/// The verbatim files come last and win.
fn unified(plan: &mut Plan, location: &Location, resources: &Resources) -> Result<()> {
    for (file, value) in resources.unified.iter().flatten() {
        if file.contains('/') || !file.contains('.') {
            return Err(Error::Invalid(format!("unified: {file:?} is no name of a cgroup file")));
        }
        if let Some(why) = out_of_the_v2_tree(location, file) {
            return Err(Error::Unsupported(format!("invalid configuration: unified: {file:?}: {why}: give the limit by its own key")));
        }
        for line in value.lines() {
            plan.write(Write::new("", file, line, "unified"));
        }
    }
    Ok(())
}

/// A number, or `max` for −1 (any negative one).
pub(crate) fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests;
