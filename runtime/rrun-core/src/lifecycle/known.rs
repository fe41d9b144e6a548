//! What only the kernel and the host know of a config.json, asked before anything is made: file systems, their options, sources, settings,
//! limits.

use std::path::Path;

use rrun_sys::fs::{self, AtFlags};
use rrun_sys::mount;
use rustix::io::Errno;

use crate::plan::{HostFacts, InitStep, MountStep, Plan, What, rlimit_number};
use crate::spec::{Linux, Spec};
use crate::{Context, Error, Result};

/// Judges what can be judged from here; `later`: where something may come to be before it is mounted. Some file systems look at their options only when they are mounted.
pub fn judge(spec: &Spec, plan: &Plan, host: &HostFacts, later: &[&Path]) -> Result<()> {
    let mounts = || plan.steps.iter().filter_map(|step| if let InitStep::Mount(mount) = step { Some(mount) } else { None });
    mounts().filter(|step| !is_plain(step)).try_for_each(file_system)?;
    // What is mounted in a namespace that somebody else has made is seen there alone.
    if spec.linux.makes("mount") || !spec.linux.has("mount") {
        mounts().try_for_each(|step| source(step, later))?;
    }
    limits(spec, host)?;
    clocks(&spec.linux)?;
    super::settings::judge(&spec.linux)
}

/// Whether a mount is one that every kernel makes, so that asking would cost more than it tells.
fn is_plain(step: &MountStep) -> bool {
    const KINDS: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];
    match &step.what {
        What::New { fstype, data, .. } => {
            KINDS.contains(&fstype.as_str()) && data.iter().all(|option| fstype.starts_with("cgroup") || is_plain_option(option))
        }
        _ => true,
    }
}

fn is_plain_option((key, value): &(String, Option<String>)) -> bool {
    let all = |good: fn(&char) -> bool| value.as_ref().is_some_and(|v| !v.is_empty() && v.chars().all(|c| good(&c)));
    match key.as_str() {
        "newinstance" => value.is_none(),
        "mode" | "ptmxmode" => all(|c| ('0'..='7').contains(c)),
        "uid" | "gid" => all(char::is_ascii_digit),
        "size" | "nr_inodes" | "nr_blocks" => {
            let number = value.as_deref().unwrap_or_default().trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
            !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
        }
        // Ours: refused before where nobody enforces it.
        "context" => true,
        _ => false,
    }
}

/// Asks the kernel for the file system and its options, without making it.
fn file_system(step: &MountStep) -> Result<()> {
    let What::New { fstype, data, .. } = &step.what else { return Ok(()) };
    let number = step.entry.unwrap_or_default();
    let context = match mount::fsopen(fstype) {
        Err(e) if e.is(libc::ENODEV) => {
            return Err(Error::invalid(format!(
                "config.json: mounts[{number}].type: {fstype:?}: the kernel has no such file system: load its module, or give one of /proc/filesystems"
            )));
        }
        // Without the right to mount here there is nobody to ask.
        Err(e) if [libc::EPERM, libc::ENOSYS].contains(&e.errno()) => return Ok(()),
        done => done?,
    };
    data.iter().try_for_each(|(key, value)| {
        let taken = match value {
            Some(value) => mount::fsconfig_string(&context, key, value),
            None => mount::fsconfig_flag(&context, key),
        };
        match taken {
            // What is denied here may be allowed in the container's own user namespace.
            Err(e) if e.is(libc::EPERM) => Ok(()),
            done => done.doing(|| format!("config.json: mounts[{number}].options: {fstype} does not take this one")),
        }
    })
}

/// What is bound must be there.
fn source(step: &MountStep, later: &[&Path]) -> Result<()> {
    let (What::Bind { source, .. } | What::Move { source }, Some(number)) = (&step.what, step.entry) else { return Ok(()) };
    if later.iter().any(|place| source.starts_with(place)) {
        return Ok(());
    }
    match rustix::fs::accessat(fs::CWD, source, rustix::fs::Access::EXISTS, AtFlags::empty()) {
        Err(e @ (Errno::NOENT | Errno::NOTDIR)) => Err(Error::invalid(format!(
            "config.json: mounts[{number}].source: {:?}: must be there: {}",
            source.display().to_string(),
            rrun_sys::errno_text(e.raw_os_error())
        ))),
        _ => Ok(()),
    }
}

/// Limits above this process's own take a right that only root of the first user namespace has (capabilities(7), CAP_SYS_RESOURCE), and
/// for open files there is one that nobody is above (proc_sys_fs(5), nr_open).
fn limits(spec: &Spec, host: &HostFacts) -> Result<()> {
    let limits = spec.process.iter().flat_map(|p| &p.rlimits).enumerate();
    let may_raise = host.capabilities & CAP_SYS_RESOURCE != 0 && !host.in_user_namespace;
    for (n, limit) in limits {
        let Some(number) = rlimit_number(&limit.kind) else { continue };
        let own = rrun_sys::process::hard_limit(number)?;
        let refuse = |rule: String| Err(Error::invalid(format!("config.json: process.rlimits[{n}].hard: {}: {rule}", limit.hard)));
        if limit.hard <= own {
            continue;
        }
        if !may_raise {
            return refuse(format!("is above this process's own {own}, for which it would need CAP_SYS_RESOURCE"));
        }
        if limit.kind == "RLIMIT_NOFILE" {
            let most = fs::read_file(Path::new("/proc/sys/fs/nr_open"), 64)?;
            if String::from_utf8_lossy(&most).trim().parse().is_ok_and(|most: u64| limit.hard > most) {
                return refuse(format!("is above the {} of /proc/sys/fs/nr_open", String::from_utf8_lossy(&most).trim()));
            }
        }
    }
    Ok(())
}

const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// No clock of a time namespace may be before its start, or beyond half of what the kernel counts (time_namespaces(7)).
fn clocks(linux: &Linux) -> Result<()> {
    /// KTIME_SEC_MAX / 2.
    const LAST: i64 = i64::MAX / 1_000_000_000 / 2;
    for (clock, offset) in &linux.time_offsets {
        let (seconds, nanos) = rrun_sys::process::clock(clock == "boottime")?;
        let shown = seconds.saturating_add(offset.secs).saturating_add((nanos + i64::from(offset.nanosecs)) / 1_000_000_000);
        if !(0..=LAST).contains(&shown) {
            return Err(Error::invalid(format!(
                "config.json: linux.timeOffsets.{clock}.secs: {}: the clock is at {seconds} s now and must be from 0 to {LAST} s in the container",
                offset.secs
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CreateOptions, HostFacts, plan};

    fn told(rest: &str) -> String {
        let json = format!(r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}}, "process": {{"args": ["x"], "cwd": "/"}}, {rest}}}"#);
        let spec = crate::spec::parse_spec(json.as_bytes()).unwrap();
        crate::spec::validate(&spec).unwrap();
        let options = CreateOptions { id: "x".into(), bundle: "/b".into(), ..CreateOptions::default() };
        let plan = plan(&spec, &HostFacts::default(), &options).unwrap();
        judge(&spec, &plan, &HostFacts::default(), &[Path::new("/b/r")]).map_or_else(|e| e.to_string(), |()| "ok".to_string())
    }

    fn mount(kind: &str, options: &str) -> String {
        told(&format!(
            r#""mounts": [{{"destination": "/a", "type": "tmpfs"}}, {{"destination": "/b", "type": "{kind}", "source": "x", "options": [{options}]}}],
            "linux": {{"namespaces": [{{"type": "mount"}}]}}"#
        ))
    }

    #[test]
    fn file_systems_and_options_that_the_kernel_does_not_have_are_told_with_their_place() {
        assert_eq!(mount("tmpfs", r#""nosuid", "size=5m", "mode=1777", "nr_inodes=3k", "huge=never""#), "ok");
        assert!(mount("nosuchfs", "").starts_with("config.json: mounts[1].type: \"nosuchfs\": the kernel has no such file system"));
        for option in [r#""frobnicate""#, r#""frobnicate=5""#, r#""size=many""#, r#""mode=rw""#] {
            let e = mount("tmpfs", option);
            assert!(e.starts_with("config.json: mounts[1].options: tmpfs does not take this one"), "{option}: {e}");
        }
    }

    #[test]
    fn a_source_that_is_not_there_is_told_with_its_place() {
        let bind = |source: &str| {
            told(&format!(
                r#""mounts": [{{"destination": "/a", "type": "tmpfs"}}, {{"destination": "/b", "source": "{source}", "options": ["bind"]}}],
                "linux": {{"namespaces": [{{"type": "mount"}}]}}"#
            ))
        };
        assert_eq!(bind("/nothing/here"), r#"config.json: mounts[1].source: "/nothing/here": must be there: no such file or directory"#);
        assert_eq!(bind("nothing"), r#"config.json: mounts[1].source: "/b/nothing": must be there: no such file or directory"#);
        assert_eq!(bind("/dev/null/x"), r#"config.json: mounts[1].source: "/dev/null/x": must be there: not a directory"#);
        for good in ["/etc/passwd", "r/what/a/mount/may/bring"] {
            assert_eq!(bind(good), "ok", "{good}");
        }
    }

    #[test]
    fn a_limit_above_the_runtimes_own_takes_a_right() {
        let own = rrun_sys::process::hard_limit(libc::RLIMIT_NOFILE).unwrap();
        let limit = |hard: u64| {
            let json = format!(
                r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}}, "process": {{"args": ["x"], "cwd": "/", "rlimits":
                [{{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}}, {{"type": "RLIMIT_NOFILE", "soft": 1, "hard": {hard}}}]}}}}"#
            );
            crate::spec::parse_spec(json.as_bytes()).unwrap()
        };
        let with = |hard, capabilities, in_user_namespace| {
            let host = HostFacts { capabilities, in_user_namespace, ..HostFacts::default() };
            limits(&limit(hard), &host).map_or_else(|e| e.to_string(), |()| "ok".to_string())
        };
        assert_eq!(with(own, 0, false), "ok");
        assert_eq!(with(own + 1, CAP_SYS_RESOURCE, false), "ok");
        let refused = format!(
            "config.json: process.rlimits[1].hard: {}: is above this process's own {own}, for which it would need CAP_SYS_RESOURCE",
            own + 1
        );
        assert_eq!(with(own + 1, 0, false), refused);
        assert_eq!(with(own + 1, CAP_SYS_RESOURCE, true), refused);
        assert!(with(u64::MAX, CAP_SYS_RESOURCE, false).contains("/proc/sys/fs/nr_open"));
    }

    #[test]
    fn no_clock_is_before_its_start() {
        let offset = |clock: &str, secs: i64| {
            told(&format!(
                r#""linux": {{"namespaces": [{{"type": "mount"}}, {{"type": "time"}}], "timeOffsets": {{"{clock}": {{"secs": {secs}}}}}}}"#
            ))
        };
        for (clock, secs) in [("monotonic", -1_000_000_000), ("boottime", -1_000_000_000), ("boottime", i64::MAX), ("monotonic", i64::MIN)]
        {
            let e = offset(clock, secs);
            assert!(e.starts_with(&format!("config.json: linux.timeOffsets.{clock}.secs: {secs}: the clock is at ")), "{e}");
        }
        assert_eq!(offset("monotonic", 1_000_000), "ok");
        assert_eq!(offset("boottime", 0), "ok");
    }
}
