//! Capability names and sets. Parsing is the `caps` crate's; the sets are plain bit masks, so that applying them allocates nothing.

use caps::Capability;

use crate::spec::Capabilities;

/// Five sets of capabilities; bit n is capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CapSets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

impl CapSets {
    /// Turns names into sets. Names that are unknown and capabilities that `available` lacks are left out with a warning.
    pub fn from_spec(spec: &Capabilities, available: u64, warnings: &mut Vec<String>) -> CapSets {
        let mut unknown: Vec<&str> = Vec::new();
        let mut missing = 0u64;
        let mut set = |names: &[String]| {
            let mut wanted = 0u64;
            for name in names {
                match bit(name) {
                    Some(bit) => wanted |= bit,
                    None if unknown.contains(&name.as_str()) => {}
                    None => {
                        warnings.push(format!("ignoring unknown capability {name:?}"));
                        // The borrow of the spec outlives this closure; remembering the name keeps each warning single.
                        unknown.push(name_of(spec, name));
                    }
                }
            }
            missing |= wanted & !available;
            wanted & available
        };
        let mut sets = CapSets {
            bounding: set(&spec.bounding),
            effective: set(&spec.effective),
            inheritable: set(&spec.inheritable),
            permitted: set(&spec.permitted),
            ambient: set(&spec.ambient),
        };
        // The kernel raises into the ambient set only what is permitted and inheritable.
        let possible = sets.permitted & sets.inheritable;
        for name in names(sets.ambient & !possible) {
            warnings.push(format!("can't raise ambient capability {name}: operation not permitted: it is not permitted and inheritable"));
        }
        sets.ambient &= possible;
        sets.effective &= sets.permitted;
        if missing != 0 {
            warnings.push(format!("ignoring capabilities that this host does not have: {}", names(missing).join(", ")));
        }
        sets
    }
}

fn name_of<'a>(spec: &'a Capabilities, name: &str) -> &'a str {
    [&spec.bounding, &spec.effective, &spec.inheritable, &spec.permitted, &spec.ambient]
        .into_iter()
        .flatten()
        .find(|n| *n == name)
        .map_or("", String::as_str)
}

/// The bit of a capability by its name, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    full.parse::<Capability>().ok().map(|c| c.bitmask())
}

/// The names of a set's capabilities.
pub fn names(set: u64) -> Vec<String> {
    let mut found: Vec<_> = caps::all().into_iter().filter(|c| set & c.bitmask() != 0).collect();
    found.sort_by_key(Capability::index);
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(names: &[&str]) -> Capabilities {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names.clone(),
            ambient: names,
            ..Capabilities::default()
        }
    }

    #[test]
    fn unknown_and_missing_capabilities_warn_once() {
        let mut warnings = Vec::new();
        let wanted = Capabilities { ambient: Vec::new(), ..spec(&["CAP_KILL", "CAP_FUTURE", "CAP_SYS_RESOURCE"]) };
        let sets = CapSets::from_spec(&wanted, !(1 << 24), &mut warnings);
        assert_eq!(sets.bounding, 1 << 5);
        assert_eq!(
            warnings,
            ["ignoring unknown capability \"CAP_FUTURE\"", "ignoring capabilities that this host does not have: CAP_SYS_RESOURCE"]
        );
    }

    #[test]
    fn ambient_needs_inheritable() {
        let mut warnings = Vec::new();
        assert_eq!(CapSets::from_spec(&spec(&["CAP_KILL"]), u64::MAX, &mut warnings).ambient, 0);
        assert!(warnings[0].starts_with("can't raise ambient capability CAP_KILL: operation not permitted"), "{warnings:?}");
    }

    #[test]
    fn names_come_in_any_case() {
        assert_eq!(bit("net_admin"), bit("CAP_NET_ADMIN"));
        assert_eq!(names(0b11), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    }
}
