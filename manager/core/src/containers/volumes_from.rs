//! `--volumes-from`: another container's volumes and binds.

use rcontainerd_types::{Error, Result};

use super::model::{MountKind, MountPoint};
use super::registry::Registry;

/// The mounts of `container[:ro|rw]`, in order; the first container to have a destination gives it.
pub(super) fn inherit(registry: &Registry, specs: &[String]) -> Result<Vec<MountPoint>> {
    let mut mounts: Vec<MountPoint> = Vec::new();
    for spec in specs {
        let (name, access) = parse(spec)?;
        let donor = registry.find(name)?.view();
        for mount in donor.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs) {
            if mounts.iter().any(|have| have.destination == mount.destination) {
                continue;
            }
            let read_write = mount.read_write && access != Access::ReadOnly;
            mounts.push(MountPoint { read_write, mode: String::new(), ..mount.clone() });
        }
    }
    Ok(mounts)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// As the other container has it.
    Same,
    ReadOnly,
}

fn parse(spec: &str) -> Result<(&str, Access)> {
    let (name, mode) = spec.split_once(':').unwrap_or((spec, ""));
    if name.is_empty() {
        return Err(Error::invalid(format!("malformed volumes-from specification: {spec}")));
    }
    let mut access = Access::Same;
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => access = Access::ReadOnly,
            "rw" | "z" | "Z" => {}
            _ => return Err(Error::invalid(format!("invalid mode: {mode}: expected ro or rw in volumes-from specification {spec}"))),
        }
    }
    Ok((name, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("web").expect("plain"), ("web", Access::Same));
        assert_eq!(parse("web:ro").expect("read-only"), ("web", Access::ReadOnly));
        assert_eq!(parse("web:rw").expect("read-write"), ("web", Access::Same));
        assert!(parse(":ro").is_err() && parse("web:frob").is_err());
    }
}
