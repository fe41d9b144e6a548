//! Device rules → one policy → v1 file writes or a v2 eBPF program.
//!
//! The OCI rules are a history, as written to v1's `devices.allow` and `devices.deny` (Documentation/admin-guide/cgroup-v1/devices.rst).
//! [`Policy`] is where that history ends: a default and its exceptions. Both back-ends start from it, so they mean the same.

pub(crate) mod filter;
pub(crate) mod v1;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::resources::DeviceRule;

/// Access bits, with the kernel's values (BPF_DEVCG_ACC_*).
pub(crate) const MKNOD: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const WRITE: u8 = 4;
pub(crate) const ALL: u8 = MKNOD | READ | WRITE;

/// A number in an exception that stands for every number.
pub(crate) const ANY: i64 = -1;

/// Character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Block,
    Char,
}

/// Which devices an exception is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    /// −1: every one.
    pub major: i64,
    /// −1: every one.
    pub minor: i64,
}

impl Key {
    fn covers(self, other: Key) -> bool {
        self.kind == other.kind && (self.major == ANY || self.major == other.major) && (self.minor == ANY || self.minor == other.minor)
    }
}

/// A default and the exceptions from it (each with its access bits).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub allow_by_default: bool,
    pub exceptions: BTreeMap<Key, u8>,
}

impl Policy {
    /// The policy of a container: deny everything, then its rules, then what every container gets.
    pub fn for_container(rules: &[DeviceRule]) -> Result<Policy> {
        let mut policy = Policy::default();
        for (n, rule) in rules.iter().enumerate() {
            policy.add(rule).map_err(|e| match e {
                Error::Invalid(why) => Error::Invalid(format!("devices[{n}].{why}")),
                Error::Unsupported(why) => Error::Unsupported(format!("devices[{n}]: {why}")),
                other => other,
            })?;
        }
        policy.add_defaults();
        Ok(policy)
    }

    /// Whether the policy restricts nothing.
    pub fn allows_everything(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    fn add(&mut self, rule: &DeviceRule) -> Result<()> {
        let access = parse_access(rule)?;
        let number = |n: Option<i64>, what| parse_number(n, what);
        let (major, minor) = (number(rule.major, "major")?, number(rule.minor, "minor")?);
        let kinds: &[Kind] = match rule.kind.as_deref().unwrap_or("a") {
            "" | "a" => &[Kind::Block, Kind::Char],
            "b" => &[Kind::Block],
            "c" | "u" => &[Kind::Char],
            other => return Err(Error::Invalid(format!("type: {other:?}: known are a, b, c"))),
        };
        if kinds.len() == 2 && major == ANY && minor == ANY && access == ALL {
            *self = Policy { allow_by_default: rule.allow, exceptions: BTreeMap::new() };
            return Ok(());
        }
        kinds.iter().try_for_each(|&kind| self.set(Key { kind, major, minor }, access, rule.allow))
    }

    /// An exception from the default is added; one towards the default takes an exception back.
    fn set(&mut self, key: Key, access: u8, allow: bool) -> Result<()> {
        if allow != self.allow_by_default {
            *self.exceptions.entry(key).or_insert(0) |= access;
            return Ok(());
        }
        if let Some((wider, _)) = self.exceptions.iter().find(|(k, a)| **k != key && k.covers(key) && **a & access != 0) {
            return Err(Error::Unsupported(format!(
                "device rule {} for {} cuts a hole into the wider {} for {}: list the devices one by one",
                word(allow),
                describe(&key),
                word(!allow),
                describe(wider)
            )));
        }
        self.take_back(key, access);
        Ok(())
    }

    fn take_back(&mut self, key: Key, access: u8) {
        for (k, a) in &mut self.exceptions {
            if key.covers(*k) {
                *a &= !access;
            }
        }
        self.exceptions.retain(|_, a| *a != 0);
    }

    /// runtime-spec, config-linux.md#default-devices, /dev/net/tun (10:200, which the field's runtimes allow and VPNs rely on), and mknod
    /// of anything (a node is of no use without access).
    fn add_defaults(&mut self) {
        let char_device = |major, minor| Key { kind: Kind::Char, major, minor };
        let full = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (136, ANY)];
        let full = full.map(|(major, minor)| (char_device(major, minor), ALL));
        let mknod = [Kind::Char, Kind::Block].map(|kind| (Key { kind, major: ANY, minor: ANY }, MKNOD));
        for (key, access) in full.into_iter().chain(mknod) {
            if self.allow_by_default {
                self.take_back(key, access);
            } else {
                *self.exceptions.entry(key).or_insert(0) |= access;
            }
        }
    }
}

fn parse_access(rule: &DeviceRule) -> Result<u8> {
    match rule.access.as_deref() {
        None | Some("") => Ok(ALL),
        Some(text) => text.chars().try_fold(0, |bits, c| match c {
            'm' => Ok(bits | MKNOD),
            'r' => Ok(bits | READ),
            'w' => Ok(bits | WRITE),
            // Meant as "all" by some who write rules; the other letters say what is meant, and the field passes over it.
            'a' => Ok(bits),
            _ => Err(Error::Invalid(format!("access: {text:?}: known are r, w, m"))),
        }),
    }
}

fn parse_number(number: Option<i64>, what: &str) -> Result<i64> {
    match number {
        None | Some(ANY) => Ok(ANY),
        Some(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(n),
        Some(n) => Err(Error::Invalid(format!("{what}: {n}: no device has this number"))),
    }
}

fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}

/// As the kernel and systemd write them: `rwm`.
pub(crate) fn access_letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].iter().filter(|(bit, _)| access & bit != 0).map(|(_, c)| c).collect()
}

/// As v1 writes it: `c 1:*`.
pub(crate) fn describe(key: &Key) -> String {
    let number = |n: i64| if n == ANY { "*".to_owned() } else { n.to_string() };
    let kind = if key.kind == Kind::Block { 'b' } else { 'c' };
    format!("{kind} {}:{}", number(key.major), number(key.minor))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule { allow, kind: Some(kind.into()), major: Some(major), minor: Some(minor), access: Some(access.into()) }
    }

    #[test]
    fn a_container_without_rules_gets_the_default_devices_only() {
        let policy = Policy::for_container(&[]).unwrap();
        assert!(!policy.allow_by_default);
        assert_eq!(policy.exceptions.len(), 12);
        assert_eq!(policy.exceptions[&Key { kind: Kind::Char, major: 10, minor: 200 }], ALL);
        assert_eq!(policy.exceptions[&Key { kind: Kind::Char, major: 1, minor: 3 }], ALL);
        assert_eq!(policy.exceptions[&Key { kind: Kind::Block, major: ANY, minor: ANY }], MKNOD);
    }

    #[test]
    fn privileged_allows_everything() {
        let all = DeviceRule { allow: true, access: Some("rwm".into()), ..DeviceRule::default() };
        assert!(Policy::for_container(&[rule(false, "a", -1, -1, "rwm"), all]).unwrap().allows_everything());
    }

    #[test]
    fn a_later_rule_takes_an_earlier_one_back() {
        let policy = Policy::for_container(&[rule(true, "b", 8, 0, "rw"), rule(false, "b", 8, 0, "w")]).unwrap();
        assert_eq!(policy.exceptions[&Key { kind: Kind::Block, major: 8, minor: 0 }], READ);
        let policy = Policy::for_container(&[rule(true, "b", 8, 0, "rw"), rule(false, "b", 8, -1, "")]).unwrap();
        assert!(!policy.exceptions.contains_key(&Key { kind: Kind::Block, major: 8, minor: 0 }));
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused_not_ignored() {
        let e = Policy::for_container(&[rule(true, "b", 8, -1, "rwm"), rule(false, "b", 8, 1, "w")]).unwrap_err().to_string();
        assert!(e.contains("deny for b 8:1 cuts a hole into the wider allow for b 8:*"), "{e}");
    }

    #[test]
    fn type_a_with_numbers_means_both_kinds() {
        let policy = Policy::for_container(&[rule(true, "a", 10, 200, "rwm")]).unwrap();
        for kind in [Kind::Block, Kind::Char] {
            assert_eq!(policy.exceptions[&Key { kind, major: 10, minor: 200 }], ALL);
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        assert!(Policy::for_container(&[rule(true, "p", 1, 1, "rwm")]).is_err());
        assert!(Policy::for_container(&[rule(true, "c", 1, 1, "rx")]).is_err());
        assert!(Policy::for_container(&[rule(true, "c", -2, 1, "r")]).is_err());
    }
}
