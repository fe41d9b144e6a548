//! Capability sets: Docker's default, what is added and dropped, and what this host can give.

use rcontainerd_types::{Error, Result};

/// All capabilities by number (capability.h of Linux 6.x; the last is `CHECKPOINT_RESTORE`).
pub const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has unless asked otherwise.
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The set that a request means, before the host has its say. In the order of the capabilities' numbers.
///
/// # Errors
/// `InvalidArgument` naming an unknown capability.
pub fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<&'static str>> {
    let (add, drop) = (normalise("CapAdd", add)?, normalise("CapDrop", drop)?);
    if privileged {
        return Ok(ALL.to_vec());
    }
    let base: &[&str] = match (add.contains(&"ALL"), drop.contains(&"ALL")) {
        (true, _) => ALL,
        (false, true) => &[],
        (false, false) => DEFAULT,
    };
    let keep = |name: &&&str| (base.contains(name) && !drop.contains(name)) || add.contains(name);
    Ok(ALL.iter().filter(keep).copied().collect())
}

/// Splits a set into what the host's bounding set allows and what it does not.
pub fn split_by_host(wanted: &[&'static str], bounding: u64) -> (Vec<&'static str>, Vec<&'static str>) {
    wanted.iter().partition(|name| ALL.iter().position(|known| known == *name).is_some_and(|bit| bounding & (1 << bit) != 0))
}

fn normalise(field: &str, names: &[String]) -> Result<Vec<&'static str>> {
    let known = |name: &String| {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" || upper == "CAP_ALL" {
            return Ok("ALL");
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = ALL.iter().find(|known| known["CAP_".len()..] == *bare);
        found.copied().ok_or_else(|| Error::invalid(format!("invalid {field}: unknown capability: \"CAP_{bare}\"")))
    };
    names.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let own = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        resolve(&own(add), &own(drop), false).expect("known names")
    }

    #[test]
    fn add_wins_over_drop_all() {
        assert_eq!(set(&["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(set(&[], &["ALL"]), [""; 0]);
        assert!(!set(&["ALL"], &["CAP_SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN"));
        assert_eq!(set(&[], &[]).len(), 14);
        assert!(resolve(&["FOO".to_owned()], &[], false).is_err());
    }

    #[test]
    fn what_the_host_lacks_is_split_off() {
        let without_sys_resource = !(1 << 24);
        let (have, lack) = split_by_host(ALL, without_sys_resource);
        assert_eq!(lack, ["CAP_SYS_RESOURCE"]);
        assert_eq!(have.len(), ALL.len() - 1);
    }
}
