//! systemd as the maker of cgroups: a transient scope per container (org.freedesktop.systemd1(5), "The New Control Group
//! Interfaces"). Over a small D-Bus client of our own, and only when it is asked for.
//!
//! ```text
//! Systemd::connect → locate(Unit) → Location ─ … the first process exists, waits … ─ start(Scope, plan) → Cgroup::adopt → apply(plan)
//! state file ─Location→ Cgroup::update · attach · remove, each by a connection of its own
//! ```

mod annotation;
mod bus;
mod properties;
mod unit;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use unit::Unit;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::location::Location;
use crate::plan::{Plan, Step};
use bus::{Address, Bus, Refusal};
use properties::{Bandwidth, Property, UNLIMITED};
use wire::{Call, Value};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Properties of a container's scope that its annotations ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeProperties(Vec<(String, Value)>);

impl ScopeProperties {
    /// From `org.systemd.property.NAME` annotations; one that may not be set, or whose value is none, is refused by name.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<ScopeProperties> {
        annotation::properties(annotations).map(ScopeProperties)
    }
}

/// The scope to make.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub unit: &'a Unit,
    /// Of the container, for people.
    pub id: &'a str,
    /// Its first process: a scope without one does not live.
    pub pid: i32,
    pub properties: &'a ScopeProperties,
    /// Whether the host has cgroup v2 alone.
    pub v2: bool,
}

/// A connection to the system's or the user's systemd.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
    version: Option<u32>,
}

impl Systemd {
    /// Connects to the bus, or past it to systemd itself where there is no bus. `user`: to the systemd of this process's user.
    pub fn connect(user: bool) -> Result<Systemd> {
        let mut reasons = Vec::new();
        for (address, is_bus) in addresses(user) {
            match Bus::connect(&address, is_bus) {
                Ok(bus) => return Ok(Systemd { bus, version: None }),
                Err(Error::Systemd(why)) => reasons.push(why),
                Err(e) => return Err(e),
            }
        }
        Err(Error::Systemd(unreachable(user, &reasons)))
    }

    /// Where a unit's cgroup will be.
    pub fn locate(&mut self, host: &Host, unit: Unit) -> Result<Location> {
        if unit.user && host.mode()? != crate::host::Mode::V2 {
            return Err(Error::Unsupported(
                "a user's systemd has no controllers but those of cgroup v2: boot with cgroup v2 alone, or drop --systemd-cgroup".into(),
            ));
        }
        // Empty of a systemd that is at the top.
        let manager = self.property("ControlGroup")?;
        let path = unit.path_below(&manager)?;
        Ok(Location { unit: Some(unit), ..host.below_mounts(&path) })
    }

    /// Makes the scope around its first process, with the plan's limits, and waits until it is there. Quotas in the plan are rounded
    /// to what systemd can keep.
    pub fn start(&mut self, scope: &Scope<'_>, plan: &mut Plan) -> Result<()> {
        let mut resources = properties::of_plan(plan, UNLIMITED, scope.v2);
        resources.extend(oom_policy(plan));
        let resources = self.supported(resources)?;
        let mut all = basic_properties(scope);
        all.extend(scope.properties.0.iter().map(|(name, value)| Value::property(name, value.clone())));
        all.extend(resources);
        let name = &scope.unit.name;
        let body =
            [Value::text(name), Value::text("replace"), Value::Array("(sv)".into(), all), Value::Array("(sa(sv))".into(), Vec::new())];
        let mut answer = self.manager("StartTransientUnit", &body)?;
        if answer.as_ref().is_err_and(|refusal| refusal.name == UNIT_EXISTS) {
            // Perhaps what is left of one that failed.
            self.reset_failed(name)?;
            answer = self.manager("StartTransientUnit", &body)?;
        }
        let job = job_of(&answer.map_err(|r| refused(&format!("start the unit {name}"), &r))?)?;
        match self.bus.job_result(&job)?.as_str() {
            "done" => Ok(()),
            other => {
                self.reset_failed(name)?;
                Err(Error::Systemd(format!("start the unit {name}: the job ended as {other:?}: systemctl status and the journal tell why")))
            }
        }
    }

    /// Changes a live scope's limits.
    fn set(&mut self, unit: &Unit, plan: &mut Plan, now: Bandwidth, v2: bool) -> Result<()> {
        let properties = self.supported(properties::of_plan(plan, now, v2))?;
        if properties.is_empty() {
            return Ok(());
        }
        let body = [Value::text(&unit.name), Value::Bool(true), Value::Array("(sv)".into(), properties)];
        let answer = self.manager("SetUnitProperties", &body)?;
        answer.map(drop).map_err(|r| refused(&format!("set properties of the unit {}", unit.name), &r))
    }

    /// Moves a process into a scope's cgroup, or one below it (a path that begins with `/`).
    fn attach(&mut self, unit: &Unit, below: &str, pid: i32) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
        let answer = self.manager("AttachProcessesToUnit", &[Value::text(&unit.name), Value::text(below), pids])?;
        answer.map(drop).map_err(|r| refused(&format!("move process {pid} into the unit {}", unit.name), &r))
    }

    /// Ends a scope and makes systemd forget that it may have failed. One that is gone is no error.
    fn stop(&mut self, unit: &Unit) -> Result<()> {
        match self.manager("StopUnit", &[Value::text(&unit.name), Value::text("replace")])? {
            // However it ends: what counts is that the cgroup is gone, which the caller sees to.
            Ok(body) => drop(self.bus.job_result(&job_of(&body)?)?),
            Err(refusal) if refusal.name == NO_SUCH_UNIT => {}
            Err(refusal) => return Err(refused(&format!("stop the unit {}", unit.name), &refusal)),
        }
        self.reset_failed(&unit.name)
    }

    fn reset_failed(&mut self, name: &str) -> Result<()> {
        match self.manager("ResetFailedUnit", &[Value::text(name)])? {
            Err(refusal) if refusal.name != NO_SUCH_UNIT => Err(refused(&format!("reset the unit {name}"), &refusal)),
            _ => Ok(()),
        }
    }

    /// Without what this systemd is too old for: that is in the cgroup's files alone, then.
    fn supported(&mut self, all: Vec<Property>) -> Result<Vec<Value>> {
        let mut kept = Vec::new();
        for property in all {
            if property.since == 0 || property.since <= self.version()? {
                kept.push(Value::property(property.name, property.value));
            }
        }
        Ok(kept)
    }

    fn version(&mut self) -> Result<u32> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let version = parse_version(&self.property("Version")?);
        self.version = Some(version);
        Ok(version)
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let body = [Value::text(MANAGER), Value::text(name)];
        let call = Call { destination: NAME, path: PATH, interface: "org.freedesktop.DBus.Properties", member: "Get", body: &body };
        let answer = self.bus.call(&call)?.map_err(|r| refused(&format!("ask systemd for its {name}"), &r))?;
        let text = answer.first().and_then(Value::as_text).map(str::to_owned);
        text.ok_or_else(|| Error::Systemd(format!("ask systemd for its {name}: the answer is no text")))
    }

    fn manager(&mut self, member: &str, body: &[Value]) -> Result<std::result::Result<Vec<Value>, Refusal>> {
        self.bus.call(&Call { destination: NAME, path: PATH, interface: MANAGER, member, body })
    }
}

/// Brings a live scope and its cgroup to a plan.
pub(crate) fn update(location: &Location, unit: &Unit, plan: &mut Plan) -> Result<()> {
    Systemd::connect(unit.user)?.set(unit, plan, bandwidth(location), location.is_pure_v2())
}

/// Moves a process into a scope of the user's systemd: the user may not move it out of the session's cgroup, which is root's.
pub(crate) fn attach(location: &Location, unit: &Unit, pid: i32) -> Result<()> {
    let path = location.unified().map(|dir| dir.path.clone()).unwrap_or_default();
    let top = path.ancestors().find(|p| p.file_name().is_some_and(|name| *name == *unit.name)).unwrap_or(&path);
    let below = path.strip_prefix(top).unwrap_or(std::path::Path::new(""));
    Systemd::connect(unit.user)?.attach(unit, &format!("/{}", below.display()), pid)
}

/// Ends a container's scope. `removed`: what became of its cgroup. Where nobody can be asked (the user has logged out and the
/// user's systemd with it), there is no unit any more either.
pub(crate) fn release(unit: &Unit, removed: Result<()>) -> Result<()> {
    let stopped = Systemd::connect(unit.user).map(|mut systemd| systemd.stop(unit));
    removed.and(stopped.unwrap_or(Ok(())))
}

fn basic_properties(scope: &Scope<'_>) -> Vec<Value> {
    let yes = |name| Value::property(name, Value::Bool(true));
    let io = if scope.v2 { "IOAccounting" } else { "BlockIOAccounting" };
    vec![
        Value::property("Description", Value::text(format!("container {}", scope.id))),
        Value::property("Slice", Value::text(&scope.unit.slice)),
        yes("Delegate"),
        Value::property("PIDs", Value::Array("u".into(), vec![Value::U32(scope.pid.unsigned_abs())])),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes(io),
        yes("TasksAccounting"),
        Value::property("DefaultDependencies", Value::Bool(false)),
    ]
}

/// Cannot be changed once the scope is there.
fn oom_policy(plan: &Plan) -> Option<Property> {
    let value = plan.steps.iter().find_map(|step| match step {
        Step::Write(write) if write.file == "memory.oom.group" => Some(write.value.trim()),
        _ => None,
    })?;
    let word = match value {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property { name: "OOMPolicy", value: Value::text(word), since: 253 })
}

fn refused(doing: &str, refusal: &Refusal) -> Error {
    Error::Systemd(format!("{doing}: {} ({})", refusal.message, refusal.name))
}

fn job_of(body: &[Value]) -> Result<String> {
    let path = body.first().and_then(Value::as_text).map(str::to_owned);
    path.ok_or_else(|| Error::Systemd("the answer names no job".into()))
}

/// `v252.38-1~deb12u1`, `252`, `252 (252-18.el9)`.
fn parse_version(text: &str) -> u32 {
    let digits = text.trim_start_matches(['v', '"']);
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().unwrap_or(0)
}

/// Where to look, best first, and whether a bus is there.
fn addresses(user: bool) -> Vec<(Address, bool)> {
    let given = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let buses = |list: &str| Address::parse_list(list).into_iter().map(|a| (a, true)).collect::<Vec<_>>();
    if !user {
        return match given("DBUS_SYSTEM_BUS_ADDRESS") {
            Some(list) => buses(&list),
            None => {
                vec![(Address::Path("/run/dbus/system_bus_socket".into()), true), (Address::Path("/run/systemd/private".into()), false)]
            }
        };
    }
    let runtime =
        given("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw())), PathBuf::from);
    let own = [(Address::Path(runtime.join("bus")), true), (Address::Path(runtime.join("systemd/private")), false)];
    given("DBUS_SESSION_BUS_ADDRESS").map(|list| buses(&list)).unwrap_or_default().into_iter().chain(own).collect()
}

fn unreachable(user: bool, reasons: &[String]) -> String {
    let (whose, remedy) = match user {
        true => (
            "the user's systemd",
            "log in by a session of systemd's (Debian: dbus-user-session; loginctl enable-linger), or drop --systemd-cgroup",
        ),
        false if !std::path::Path::new("/run/systemd/system").is_dir() => ("systemd", "this host does not run it: drop --systemd-cgroup"),
        false => ("systemd", "start dbus, or drop --systemd-cgroup"),
    };
    let reasons = if reasons.is_empty() { "no unix socket in its address".to_owned() } else { reasons.join("; ") };
    format!("systemd cgroup flag passed, but {whose} cannot be reached: {reasons}: {remedy}")
}

/// What the cgroup has now; a file that is not there sets no limit.
fn bandwidth(location: &Location) -> Bandwidth {
    let read = |file: &str| {
        let path = location.dir_of("cpu").map(|dir| dir.path.join(file));
        path.and_then(|path| crate::fsio::read_io(&path).ok()).unwrap_or_default()
    };
    let (quota, period) = match location.dir_of("cpu").map(|dir| dir.version) {
        Some(crate::host::Version::V1) => (read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")),
        _ => {
            let both = read("cpu.max");
            both.split_once(' ').map(|(quota, period)| (quota.to_owned(), period.to_owned())).unwrap_or_default()
        }
    };
    Bandwidth { quota: quota.trim().parse().ok(), period: period.trim().parse().unwrap_or(UNLIMITED.period) }
}

#[cfg(test)]
mod tests;
