use crate::{Location, Resources, Result};

/// What a plan depends on beside the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// The runtime is not root in the first user namespace: device rules, which need it, are left out with a warning.
    pub rootless: bool,
}

/// The writes that bring a cgroup from what it is to what the resources ask for. Pure data: tests read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One line per setting that is deliberately not carried out (deprecated ones, as the specification allows).
    pub warnings: Vec<String>,
}

impl Plan {
    /// For a fresh cgroup; the device policy is always part of it (deny all, then the rules, then the runtime's defaults:
    /// null, zero, full, random, urandom, tty, console, ptmx, pts, and mknod of anything).
    pub fn for_create(location: &Location, resources: &Resources, options: PlanOptions) -> Result<Plan> {
        let _ = (location, resources, options);
        unimplemented!()
    }

    /// For a live cgroup: only what `resources` names; devices only if it has rules for them.
    pub fn for_update(location: &Location, resources: &Resources, options: PlanOptions) -> Result<Plan> {
        let _ = (location, resources, options);
        unimplemented!()
    }
}
