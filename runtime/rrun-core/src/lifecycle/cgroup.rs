//! The container's cgroup in the making: where it will be, by whom, and what holds for those who may not make one.

use rrun_cgroup::{Cgroup, Driver, Host, Location, PlanOptions, Resources, Scope, ScopeProperties, Systemd, Unit};

use super::CreateRequest;
use super::create::CgroupManagement;
use crate::parent::Undo;
use crate::spec::Spec;
use crate::{Context, Result, log};

/// Decided before anything is made.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// None: the container stays where the runtime is.
    pub location: Option<Location>,
    /// What its cgroup mounts show.
    pub view: Location,
    /// What is written into it.
    writes: rrun_cgroup::Plan,
    /// Who makes a scope around the first process, and the properties that config.json asks for; None: we make the directories.
    scope: Option<(Systemd, ScopeProperties)>,
}

impl Place {
    pub fn find(spec: &Spec, request: &CreateRequest) -> Result<Place> {
        let path = spec.linux.cgroups_path.as_deref();
        match request.cgroups {
            CgroupManagement::None => Ok(Place::where_the_runtime_is()),
            CgroupManagement::Driver(Driver::Systemd) => {
                let unit = Unit::parse(path, &request.options.id, request.users_systemd)?;
                let properties = ScopeProperties::from_annotations(&spec.annotations)?;
                let mut systemd = Systemd::connect(request.users_systemd)?;
                let location = systemd.locate(&Host::detect()?, unit)?;
                Place { scope: Some((systemd, properties)), ..Place::default() }.at(location, spec, request)
            }
            CgroupManagement::Driver(Driver::Cgroupfs) => {
                let host = Host::detect();
                let found = host.and_then(|host| match host.locate(path, &request.options.id)? {
                    location if request.rootless_cgroups => host.within_reach(&location).map(|()| location),
                    location => Ok(location),
                });
                match found {
                    Err(e) if request.rootless_cgroups => without(spec, e).map(|()| Place::where_the_runtime_is()),
                    done => Place::default().at(done?, spec, request),
                }
            }
        }
    }

    fn at(self, location: Location, spec: &Spec, request: &CreateRequest) -> Result<Place> {
        let writes = plan(&location, spec, request)?;
        Ok(Place { view: location.clone(), location: Some(location), writes, ..self })
    }

    fn where_the_runtime_is() -> Place {
        let own = Host::detect().and_then(|host| host.location_of(std::process::id().cast_signed()));
        // Without any cgroup file system there is nothing to show.
        Place { view: own.unwrap_or_default(), ..Place::default() }
    }

    /// Makes the directories, if that is ours to do: the first process is made in them.
    pub fn make(&self, spec: &Spec, request: &CreateRequest, undo: &mut Undo<'_>) -> Result<Option<Cgroup>> {
        let (Some(location), None) = (&self.location, &self.scope) else { return Ok(None) };
        let cgroup = Cgroup::create(location)?;
        take_back_later(location, undo);
        cgroup.apply(&self.writes).doing(limits)?;
        give_to_owner(&cgroup, spec, request)?;
        Ok(Some(cgroup))
    }

    /// Has systemd make a scope around the first process, which waits meanwhile.
    pub fn make_around(self, pid: i32, spec: &Spec, request: &CreateRequest, undo: &mut Undo<'_>) -> Result<Option<Cgroup>> {
        let (Some(location), Some((mut systemd, properties))) = (self.location, self.scope) else { return Ok(None) };
        let Some(unit) = &location.unit else { return Ok(None) };
        let mut writes = self.writes;
        let scope = Scope { unit, id: &request.options.id, pid, properties: &properties, v2: location.is_pure_v2() };
        systemd.start(&scope, &mut writes)?;
        take_back_later(&location, undo);
        let cgroup = Cgroup::adopt(&location, pid)?;
        cgroup.apply(&writes).doing(limits)?;
        give_to_owner(&cgroup, spec, request)?;
        Ok(Some(cgroup))
    }
}

/// Where limits stand.
fn limits() -> String {
    "config.json: linux.resources".to_string()
}

fn plan(location: &Location, spec: &Spec, request: &CreateRequest) -> Result<rrun_cgroup::Plan> {
    let resources = spec.linux.resources.clone().unwrap_or_default();
    let options = PlanOptions { rootless: request.rootless_cgroups || request.in_user_namespace };
    let plan = rrun_cgroup::Plan::for_create(location, &resources, options).doing(limits)?;
    plan.warnings.iter().for_each(|w| log::warn(w));
    Ok(plan)
}

fn take_back_later(location: &Location, undo: &mut Undo<'_>) {
    let location = location.clone();
    undo.push(move || Ok(Cgroup::open(&location)?.remove(super::delete::PATIENCE)?));
}

/// Who may have no cgroup goes without one; but a limit or a place that was asked for is not silently left out.
fn without(spec: &Spec, why: rrun_cgroup::Error) -> Result<()> {
    let mut resources = spec.linux.resources.clone().unwrap_or_default();
    resources.devices = None;
    // Both in runc's words.
    if spec.linux.cgroups_path.as_deref().is_some_and(|p| !p.is_empty()) {
        return Err(why).doing(|| "unable to apply cgroup configuration".to_string());
    }
    if resources != Resources::default() {
        return Err(why).doing(|| "rootless needs no limits + no cgrouppath when no permission is granted for cgroups".to_string());
    }
    log::debug(|| format!("going on without a cgroup: {why}"));
    if !spec.linux.makes("pid") {
        log::warn(
            "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is strongly discouraged (as it \
             is impossible to properly kill all container's processes)",
        );
    }
    Ok(())
}

/// A container that sees its cgroup as the top, and may write to it, owns it.
fn give_to_owner(cgroup: &Cgroup, spec: &Spec, request: &CreateRequest) -> Result<()> {
    let Some(uid) = owner(spec).filter(|uid| *uid != 0) else { return Ok(()) };
    match cgroup.give_to(uid) {
        // It is its own owner's already, or that of nobody whom this user may name.
        Err(e) if request.rootless_cgroups && e.is_permission() => Ok(()),
        done => Ok(done?),
    }
}

/// The container's user as the host knows it, if the cgroup is to be that user's.
fn owner(spec: &Spec) -> Option<u32> {
    let writable = |m: &&crate::spec::Mount| {
        (m.kind == "cgroup" || m.kind == "cgroup2")
            && m.destination.components().eq(std::path::Path::new("/sys/fs/cgroup").components())
            && !m.options.iter().any(|o| o == "ro" || o == "rro")
    };
    if !spec.linux.makes("cgroup") || !spec.mounts.iter().any(|m| writable(&m)) {
        return None;
    }
    let uid = spec.process.as_ref().map_or(0, |p| p.user.uid);
    if !spec.linux.has("user") {
        return Some(uid);
    }
    let range = spec.linux.uid_mappings.iter().find(|m| (m.container_id..m.container_id.saturating_add(m.size)).contains(&uid))?;
    range.host_id.checked_add(uid - range.container_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mount: &str, rest: &str) -> Spec {
        let json = format!(
            r#"{{"ociVersion": "1.2.0", "process": {{"user": {{"uid": 5, "gid": 0}}, "args": ["x"], "cwd": "/"}}, "root": {{"path": "r"}},
            "mounts": [{{"destination": "/sys/fs/cgroup/", "type": "cgroup", "options": ["{mount}"]}}], "linux": {rest}}}"#
        );
        crate::spec::parse_spec(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_container_that_may_write_its_own_top_owns_its_cgroup() {
        let own = r#"{"namespaces": [{"type": "cgroup"}]}"#;
        assert_eq!(owner(&spec("nosuid", own)), Some(5));
        assert_eq!(owner(&spec("ro", own)), None);
        assert_eq!(owner(&spec("nosuid", "{}")), None);
        let mapped = r#"{"namespaces": [{"type": "cgroup"}, {"type": "user"}], "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 10}]}"#;
        assert_eq!(owner(&spec("nosuid", mapped)), Some(100_004));
        assert_eq!(owner(&spec("nosuid", &mapped.replace("10}", "2}"))), None);
    }

    #[test]
    fn without_a_cgroup_no_limit_is_silently_left_out() {
        let why = || rrun_cgroup::Error::Unsupported("no permission".into());
        assert!(without(&spec("ro", "{}"), why()).is_ok());
        assert!(without(&spec("ro", r#"{"resources": {"devices": [{"allow": false}]}}"#), why()).is_ok());
        let limit = r#"{"resources": {"pids": {"limit": 5}}}"#;
        for (rest, words) in [(limit, "rootless needs no limits + no cgrouppath"), (r#"{"cgroupsPath": "/x"}"#, "unable to apply cgroup")] {
            let e = without(&spec("ro", rest), why()).unwrap_err().to_string();
            assert!(e.contains(words) && e.contains("no permission"), "{e}");
        }
    }
}
