//! Carrying a plan out.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rrun_sys::bpf;

use crate::devices::{Policy, filter, v1};
use crate::error::{Error, Result};
use crate::fsio;
use crate::group::Cgroup;
use crate::host::Version;
use crate::location::Dir;
use crate::make::hand_controllers_down;
use crate::plan::{Plan, Step, Write};

pub(crate) fn apply(cgroup: &Cgroup, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        match step {
            Step::Write(write) => one(cgroup, write)?,
            Step::Together(writes) => together(cgroup, writes)?,
            Step::FirstOf(writes) => first_of(cgroup, writes)?,
            Step::CpuPeriod { period } => cpu_period(cgroup, *period)?,
            Step::RefuseBelowUsage { limit } => refuse_below_usage(cgroup, *limit)?,
        }
    }
    plan.devices.as_ref().map_or(Ok(()), |policy| devices(cgroup, policy))
}

/// Judges what a plan wants judged, before anything is changed.
pub(crate) fn refuse(cgroup: &Cgroup, plan: &Plan) -> Result<()> {
    plan.steps.iter().try_for_each(|step| match step {
        Step::RefuseBelowUsage { limit } => refuse_below_usage(cgroup, *limit),
        _ => Ok(()),
    })
}

fn dir_for<'a>(cgroup: &'a Cgroup, write: &Write) -> Result<&'a Dir> {
    let dir = if write.controller.is_empty() { cgroup.location.unified() } else { cgroup.location.dir_of(write.controller) };
    dir.ok_or_else(|| Error::Unsupported(format!("{}: no cgroup hierarchy has {}", write.resource, write.file)))
}

fn attempt(cgroup: &Cgroup, write: &Write) -> Result<(PathBuf, io::Result<()>)> {
    let dir = dir_for(cgroup, write)?;
    let path = dir.path.join(&write.file);
    let mut done = fsio::write(&path, &write.value);
    if is_missing(&done) && dir.version == Version::V2 && !cgroup.location.is_pure_v2() {
        hand_controllers_down(dir)?;
        done = fsio::write(&path, &write.value);
    }
    Ok((path, done))
}

/// open(2) without O_CREAT says ENOENT; kernfs refuses O_TRUNC-less writes with nothing else.
fn is_missing(done: &io::Result<()>) -> bool {
    matches!(done, Err(e) if e.kind() == io::ErrorKind::NotFound)
}

fn one(cgroup: &Cgroup, write: &Write) -> Result<()> {
    let (path, done) = attempt(cgroup, write)?;
    finish(cgroup, write, &path, done)
}

fn finish(cgroup: &Cgroup, write: &Write, path: &Path, done: io::Result<()>) -> Result<()> {
    match done {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && write.optional => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(missing(cgroup, write, path)),
        Err(e) => Err(Error::io(format!("{}: write {:?} to", write.resource, write.value), path, e)),
    }
}

/// Why a file is not there: the cgroup is gone, the controller is not handed down, or the kernel does not have the file.
fn missing(cgroup: &Cgroup, write: &Write, path: &Path) -> Error {
    let dir = path.parent().unwrap_or(path);
    let gone = !dir.exists();
    let known = write.controller.is_empty() || cgroup.location.dir_of(write.controller).is_none_or(|d| d.version == Version::V1);
    let available = fsio::read_io(&dir.join("cgroup.controllers")).is_ok_and(|have| have.split_whitespace().any(|c| c == write.controller));
    if gone || known || available {
        let what = format!("{}: write {:?} to", write.resource, write.value);
        return Error::io(what, path, io::Error::from_raw_os_error(libc::ENOENT));
    }
    Error::MissingController {
        resource: write.resource.into(),
        controller: write.controller,
        path: dir.to_path_buf(),
        remedy: "enable it in cgroup.subtree_control of every cgroup above (systemd: Delegate=yes), or drop the limit",
    }
}

fn together(cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    let mut refused = Vec::new();
    for write in writes {
        let (path, done) = attempt(cgroup, write)?;
        match done {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EBUSY)) => refused.push(write),
            done => finish(cgroup, write, &path, done)?,
        }
    }
    refused.into_iter().try_for_each(|write| one(cgroup, write))
}

fn first_of(cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    for (index, write) in writes.iter().enumerate() {
        let (path, done) = attempt(cgroup, write)?;
        if !is_missing(&done) || index + 1 == writes.len() {
            return finish(cgroup, write, &path, done);
        }
    }
    Ok(())
}

fn cpu_period(cgroup: &Cgroup, period: u64) -> Result<()> {
    let probe = Write::new("cpu", "cpu.max", "", "cpu.period");
    let dir = dir_for(cgroup, &probe)?;
    let path = dir.path.join(&probe.file);
    let now = match fsio::read_io(&path) {
        Ok(now) => now,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing(cgroup, &probe, &path)),
        Err(e) => return Err(Error::io("read", &path, e)),
    };
    let quota = now.split_whitespace().next().unwrap_or("max");
    one(cgroup, &Write { value: format!("{quota} {period}"), ..probe })
}

fn refuse_below_usage(cgroup: &Cgroup, limit: i64) -> Result<()> {
    let Some(dir) = cgroup.location.dir_of("memory") else { return Ok(()) };
    let usage = fsio::read_if_there(&dir.path.join("memory.current"))?.and_then(|text| text.trim().parse::<i64>().ok());
    match usage {
        Some(usage) if usage > limit => Err(Error::Invalid(format!(
            "memory.limit {limit} is below the {usage} bytes in use: stop something in the container or raise the limit"
        ))),
        _ => Ok(()),
    }
}

fn devices(cgroup: &Cgroup, policy: &Policy) -> Result<()> {
    match cgroup.location.dir_of("devices") {
        Some(dir) if dir.version == Version::V1 => devices_v1(dir, policy),
        Some(_) => devices_v2(cgroup, policy),
        None if policy.allows_everything() => Ok(()),
        None => Err(Error::Unsupported("device rules need the v1 controller devices or cgroup v2: mount one of them".into())),
    }
}

fn devices_v1(dir: &Dir, policy: &Policy) -> Result<()> {
    let current = v1::parse_list(&fsio::read(&dir.path.join("devices.list"))?);
    // Each file is opened once, however many rules there are.
    let mut files: [Option<fsio::Lines>; 2] = [None, None];
    for line in v1::transition(&current, policy) {
        let slot = &mut files[usize::from(line.allow)];
        let file = match slot {
            Some(file) => file,
            None => slot.insert(fsio::Lines::open(&dir.path.join(if line.allow { "devices.allow" } else { "devices.deny" }))?),
        };
        file.write(&line.text)?;
    }
    Ok(())
}

/// The new filter takes the place of the old one in one step, so that there is no instant without a filter or with both.
fn devices_v2(cgroup: &Cgroup, policy: &Policy) -> Result<()> {
    let Some(fd) = cgroup.unified_fd() else {
        let path = cgroup.location.unified().map_or_else(PathBuf::new, |dir| dir.path.clone());
        return Err(Error::io("set the device rules of", &path, io::Error::from_raw_os_error(libc::ENOENT)));
    };
    let told = |e: rrun_sys::Error| {
        let path = cgroup.location.unified().map_or_else(|| "cgroup".into(), |d| d.path.clone());
        Error::io(format!("{e}; set the device rules of"), &path, io::Error::from_raw_os_error(e.errno()))
    };
    let old = bpf::device_programs(fd).map_err(told)?;
    if policy.allows_everything() {
        return old.iter().try_for_each(|program| bpf::detach_device_program(fd, program.as_fd())).map_err(told);
    }
    let code = filter::assemble(policy);
    let program = load(&code).map_err(told)?;
    match old.as_slice() {
        [one] => bpf::attach_device_program(fd, program.as_fd(), Some(one.as_fd())).map_err(told),
        others => {
            bpf::attach_device_program(fd, program.as_fd(), None).map_err(told)?;
            others.iter().try_for_each(|other| bpf::detach_device_program(fd, other.as_fd())).map_err(told)
        }
    }
}

/// Kernels before 5.11 charge programs to RLIMIT_MEMLOCK, whose default is too small for one.
fn load(code: &[u64]) -> rrun_sys::Result<std::os::fd::OwnedFd> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    match bpf::load_device_program(code) {
        Err(e) if e.is(libc::EPERM) && setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_ok() => {
            bpf::load_device_program(code)
        }
        other => other,
    }
}
