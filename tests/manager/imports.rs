//! The import direction of docs/ARCHITECTURE.md, asserted over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// For each crate of ours: the crates of ours that it may import. A new crate must be entered here, with its reason in ARCHITECTURE.md.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("rrun-sys", &[]),
    ("rrun-cgroup", &["rrun-sys"]),
    ("rrun-core", &["rrun-sys", "rrun-cgroup"]),
    ("rrun", &["rrun-core", "rrun-sys", "rrun-cgroup"]),
    ("rcontainerd-init", &[]),
    ("proto-containerd", &[]),
    ("proto-docker", &[]),
    ("shim-ttrpc", &["proto-containerd"]),
    ("shim-logger", &[]),
    ("containerd-shim-rrun-v2", &["shim-ttrpc", "shim-logger", "proto-containerd", "rrun-sys", "rrun-cgroup"]),
    ("rcontainerd-types", &[]),
    ("rcontainerd-store", &["rcontainerd-types"]),
    ("rcontainerd-registry", &["rcontainerd-types"]),
    ("rcontainerd-network", &["rcontainerd-types"]),
    ("rcontainerd-task", &["rcontainerd-types", "proto-containerd", "shim-ttrpc", "shim-logger"]),
    (
        "rcontainerd-core",
        &["rcontainerd-types", "rcontainerd-store", "rcontainerd-registry", "rcontainerd-network", "rcontainerd-task", "shim-logger"],
    ),
    ("rcontainerd-api-containerd", &["rcontainerd-types", "rcontainerd-core", "proto-containerd"]),
    ("rcontainerd-api-docker", &["rcontainerd-types", "rcontainerd-core", "proto-docker"]),
    (
        "rcontainerd",
        &[
            "rcontainerd-types",
            "rcontainerd-store",
            "rcontainerd-registry",
            "rcontainerd-network",
            "rcontainerd-task",
            "rcontainerd-core",
            "rcontainerd-api-containerd",
            "rcontainerd-api-docker",
        ],
    ),
    ("rdocker", &["proto-docker"]),
    ("rcontainerd-tests", &["proto-containerd", "proto-docker"]),
];

/// The packages that the project was asked to stand on: each a direct dependency of some crate.
const ASKED_FOR: &[&str] = &["nix", "libseccomp", "caps", "oci-spec", "tonic", "prost", "tokio", "serde", "clap", "procfs", "tar", "sha2"];

struct Package {
    name: String,
    dependencies: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let output =
        Command::new(env!("CARGO")).args(["metadata", "--format-version=1", "--no-deps", "--offline"]).output().expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let package = |value: &serde_json::Value| Package {
        name: text(&value["name"]),
        // Development dependencies may point anywhere below; what ships may not.
        dependencies: value["dependencies"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|d| d["kind"] != "dev")
            .map(|d| text(&d["name"]))
            .collect(),
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}

#[test]
fn crates_import_only_what_their_room_may() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_IMPORT.iter().map(|(name, may)| (*name, may.iter().copied().collect())).collect();
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "the list here and the workspace must name the same crates");
    for package in &packages {
        let may = &allowed[package.name.as_str()];
        let imports: BTreeSet<&str> = package.dependencies.iter().map(String::as_str).filter(|name| ours.contains(name)).collect();
        let forbidden: Vec<_> = imports.difference(may).collect();
        assert!(forbidden.is_empty(), "{} imports {forbidden:?}; docs/ARCHITECTURE.md says who may import whom", package.name);
    }
}

#[test]
fn the_twelve_packages_are_direct_dependencies_and_used() {
    let packages = packages();
    for wanted in ASKED_FOR {
        let users: Vec<&str> =
            packages.iter().filter(|package| package.dependencies.contains(*wanted)).map(|package| package.name.as_str()).collect();
        assert!(!users.is_empty(), "{wanted} is no direct dependency of any crate");
        let word = wanted.replace('-', "_");
        let pattern = format!(r"\b{word}(::|\b.*;)");
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let found = Command::new("git").args(["-C", root, "grep", "-lP", &pattern, "--", "*.rs"]).output().expect("git grep");
        assert!(found.status.success() && !found.stdout.is_empty(), "{wanted} is a dependency of {users:?} but no source uses it");
    }
}
