//! Sysctls, judged before anything is made: whether the kernel has them, and whether it takes their values.
//!
//! The kernel tells its rules to nobody who does not write. So values that are not among those that every kernel takes are written once
//! in namespaces made for that, which end with the process that tries them.

use std::path::Path;

use rrun_sys::fs::{self, AtFlags};
use rrun_sys::process::{self, Cloned};
use rrun_sys::socket;

use crate::plan::{namespace_flag, sysctl_path};
use crate::procfs::{Part, ProcFs};
use crate::spec::Linux;
use crate::{Error, Result};

pub fn judge(linux: &Linux) -> Result<()> {
    linux.sysctl.keys().try_for_each(|key| exists(key))?;
    let tried: Vec<Setting> = linux.sysctl.iter().filter_map(|(key, value)| Setting::of_new_namespace(linux, key, value)).collect();
    if tried.iter().all(|setting| is_plain(&setting.file, setting.value)) {
        return Ok(());
    }
    match refused(&tried)? {
        Some((setting, errno)) => Err(Error::invalid(format!(
            "config.json: linux.sysctl.{}: {:?}: the kernel refuses it: {}",
            setting.key,
            setting.value,
            rrun_sys::errno_text(errno)
        ))),
        None => Ok(()),
    }
}

/// A setting that the kernel does not have. Those of a network device may come with the device.
fn exists(key: &str) -> Result<()> {
    let file = sysctl_path(key);
    if is_of_device(&file) {
        return Ok(());
    }
    match rustix::fs::accessat(fs::CWD, Path::new("/proc/sys").join(&file), rustix::fs::Access::EXISTS, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            Err(Error::invalid(format!("config.json: linux.sysctl.{key}: the kernel has no /proc/sys/{file}: remove it")))
        }
        _ => Ok(()),
    }
}

fn is_of_device(file: &str) -> bool {
    file.starts_with("net/") && ["/conf/", "/neigh/"].iter().any(|part| file.contains(part))
}

/// A setting of a namespace that the container gets anew.
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
    file: String,
    /// `CLONE_NEW*`.
    namespace: i32,
}

impl<'a> Setting<'a> {
    /// In a namespace that is joined a value may be right that would be wrong in a new one; those of user namespaces are the host's here.
    fn of_new_namespace(linux: &Linux, key: &'a str, value: &'a str) -> Option<Setting<'a>> {
        let file = sysctl_path(key);
        let kind = match file.as_str() {
            net if net.starts_with("net/") => "network",
            "kernel/domainname" => "uts",
            user if user.starts_with("user/") => return None,
            _ => "ipc",
        };
        linux.makes(kind).then(|| Setting { key, value, file, namespace: namespace_flag(kind) })
    }
}

/// What engines set: values that every kernel takes, in a new namespace, in any order. (file, how many numbers, from, to)
const PLAIN: [(&str, usize, u64, u64); 14] = [
    ("kernel/shm_rmid_forced", 1, 0, 1),
    ("net/core/somaxconn", 1, 1, 65535),
    ("net/ipv4/ip_forward", 1, 0, 1),
    ("net/ipv4/ip_local_port_range", 2, 1024, 65535),
    ("net/ipv4/ip_unprivileged_port_start", 1, 0, 1024),
    ("net/ipv4/tcp_fin_timeout", 1, 1, 32767),
    ("net/ipv4/tcp_keepalive_intvl", 1, 1, 32767),
    ("net/ipv4/tcp_keepalive_probes", 1, 1, 127),
    ("net/ipv4/tcp_keepalive_time", 1, 1, 32767),
    ("net/ipv4/tcp_syncookies", 1, 0, 2),
    ("net/ipv4/ping_group_range", 2, 0, 2_147_483_647),
    ("net/ipv6/conf/all/disable_ipv6", 1, 0, 1),
    ("net/ipv6/conf/default/disable_ipv6", 1, 0, 1),
    ("net/ipv6/conf/all/forwarding", 1, 0, 1),
];

fn is_plain(file: &str, value: &str) -> bool {
    let Some((_, count, from, to)) = PLAIN.iter().find(|(known, ..)| *known == file) else { return false };
    let decimal = |word: &str| word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse::<u64>().ok())?;
    let numbers: Option<Vec<u64>> = value.split_ascii_whitespace().map(decimal).collect();
    numbers.is_some_and(|n| n.len() == *count && n.is_sorted() && n.iter().all(|n| (from..=to).contains(&n)))
}

/// Writes all of them in new namespaces: the first that is refused, and the kernel's error number.
fn refused<'a, 's>(settings: &'s [Setting<'a>]) -> Result<Option<(&'s Setting<'a>, i32)>> {
    let (ours, theirs) = socket::pair()?;
    let namespaces = settings.iter().fold(0, |all, setting| all | setting.namespace);
    match process::clone3(namespaces as u64, None) {
        // Without the right to make them (rootless) there is nobody to ask: told when they are written.
        Err(e) if e.is(libc::EPERM) => Ok(None),
        Err(e) => Err(e.into()),
        Ok(Cloned::Child) => {
            drop(ours);
            let said = write_all(settings).unwrap_or_else(|e| format!("!{e}"));
            // Who asked is gone where this fails.
            drop(socket::send(&theirs, said.as_bytes()));
            process::exit_now(0)
        }
        Ok(Cloned::Parent { pid, .. }) => {
            drop(theirs);
            let said = socket::receive(&ours);
            process::wait(pid)?;
            let said = String::from_utf8_lossy(&said?).into_owned();
            let mut numbers = said.split(' ').map(|number| number.parse::<i32>().ok());
            match (said.as_str(), numbers.next().flatten(), numbers.next().flatten()) {
                ("ok", ..) => Ok(None),
                (_, Some(n), Some(errno)) => Ok(settings.get(n as usize).map(|setting| (setting, errno))),
                _ => Err(Error::state(format!("trying the sysctls of config.json: {said}"))),
            }
        }
    }
}

fn write_all(settings: &[Setting<'_>]) -> Result<String> {
    let proc = ProcFs::open(Part::All)?;
    for (n, setting) in settings.iter().enumerate() {
        let Err(e) = proc.write(&format!("sys/{}", setting.file), setting.value) else { continue };
        match e.errno() {
            Some(libc::ENOENT) if is_of_device(&setting.file) => {}
            Some(errno) => return Ok(format!("{n} {errno}")),
            None => return Err(e),
        }
    }
    Ok("ok".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: &str, value: &str, namespaces: &str) -> String {
        let json = format!(
            r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}}, "process": {{"args": ["x"], "cwd": "/"}},
            "linux": {{"namespaces": [{namespaces}], "sysctl": {{"{key}": "{value}"}}}}}}"#
        );
        let spec = crate::spec::parse_spec(json.as_bytes()).unwrap();
        crate::spec::validate(&spec).unwrap();
        judge(&spec.linux).map_or_else(|e| e.to_string(), |()| "ok".to_string())
    }

    const NEW: &str = r#"{"type": "ipc"}, {"type": "network"}, {"type": "uts"}"#;

    #[test]
    fn settings_that_the_kernel_does_not_have_are_told() {
        for good in ["kernel.shm_rmid_forced", "net.core.somaxconn", "net.ipv4.conf.eth7.forwarding", "net/ipv4/conf/eth0.1/forwarding"] {
            assert_eq!(told(good, "1", NEW), "ok", "{good}");
        }
        let e = told("net.core.nosuchsetting", "1", NEW);
        assert_eq!(e, "config.json: linux.sysctl.net.core.nosuchsetting: the kernel has no /proc/sys/net/core/nosuchsetting: remove it");
    }

    #[test]
    fn values_that_the_kernel_refuses_are_told_with_their_place() {
        let now = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        let before = now();
        for (key, value) in [
            ("net.ipv4.ip_forward", "yes"),
            ("net.ipv4.ip_default_ttl", "0"),
            ("net.ipv4.ip_default_ttl", "256"),
            ("net.ipv4.ip_local_port_range", "5000 4000"),
            ("net.ipv4.tcp_congestion_control", "nosuch"),
            ("kernel.shm_rmid_forced", "2"),
            ("kernel.shmmax", "many"),
            ("fs.mqueue.msg_max", "-1"),
        ] {
            let expected = format!("config.json: linux.sysctl.{key}: {value:?}: the kernel refuses it: ");
            assert!(told(key, value, NEW).starts_with(&expected), "{key} {value}: {}", told(key, value, NEW));
        }
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.ip_default_ttl", "77"),
            ("net.ipv4.ip_local_reserved_ports", "5000-5010,6000"),
            ("kernel.sem", "250 32000 32 128"),
            ("kernel.domainname", "example.org"),
            ("net.ipv4.conf.nosuchdevice.forwarding", "1"),
        ] {
            assert_eq!(told(key, value, NEW), "ok", "{key} {value}");
        }
        assert_eq!(now(), before, "the host's own was not touched");
    }

    /// A table that promised what a kernel refuses would let a container fail half-made.
    #[test]
    fn what_counts_as_plain_is_taken_by_this_kernel() {
        for (file, count, from, to) in PLAIN {
            for value in [vec![from; count], vec![to; count]] {
                let value = value.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
                assert!(is_plain(file, &value));
                let namespace = namespace_flag(if file.starts_with("net/") { "network" } else { "ipc" });
                let refused = refused(&[Setting { key: file, value: &value, file: file.to_string(), namespace }]).unwrap().map(|(_, e)| e);
                assert_eq!(refused, None, "{file} {value}");
            }
        }
        for (file, value) in
            [("net/ipv4/ip_forward", "2"), ("net/ipv4/ip_forward", ""), ("net/ipv4/ip_forward", "1 1"), ("kernel/sem", "1")]
        {
            assert!(!is_plain(file, value), "{file} {value}");
        }
    }

    #[test]
    fn a_namespace_that_is_joined_is_not_judged_by_a_new_one() {
        let joined = r#"{"type": "network", "path": "/proc/thread-self/ns/net"}"#;
        assert_eq!(told("net.ipv4.ip_unprivileged_port_start", "40000", joined), "ok");
        assert!(told("net.ipv4.ip_unprivileged_port_start", "40000", NEW).contains("the kernel refuses it"));
    }
}
