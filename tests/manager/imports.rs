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
        &[
            "rcontainerd-types",
            "rcontainerd-store",
            "rcontainerd-registry",
            "rcontainerd-network",
            "rcontainerd-task",
            "shim-logger",
            "rrun-sys",
            "rrun-cgroup",
        ],
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
            "rrun-sys",
        ],
    ),
    ("rdocker", &["proto-docker", "rrun-sys"]),
    ("rcontainerd-tests", &["proto-containerd", "proto-docker"]),
];

/// The packages that the project was asked to stand on: each a direct dependency of some crate.
const ASKED_FOR: &[&str] = &["nix", "libseccomp", "caps", "oci-spec", "tonic", "prost", "tokio", "serde", "clap", "procfs", "tar", "sha2"];

/// Dependencies that only generated code names.
const IN_GENERATED_CODE: &[(&str, &[&str])] = &[("proto-containerd", &["prost", "prost-types", "tonic", "tonic-prost"])];

struct Package {
    name: String,
    dependencies: BTreeSet<String>,
}

fn metadata() -> serde_json::Value {
    let output =
        Command::new(env!("CARGO")).args(["metadata", "--format-version=1", "--no-deps", "--offline"]).output().expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn packages() -> Vec<Package> {
    let metadata = metadata();
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

#[test]
fn every_dependency_is_used() {
    let metadata = metadata();
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let mut unused = Vec::new();
    for package in metadata["packages"].as_array().expect("a list") {
        let (name, manifest) = (text(&package["name"]), text(&package["manifest_path"]));
        let code = sources(std::path::Path::new(&manifest).parent().expect("a directory"));
        let generated = IN_GENERATED_CODE.iter().find(|(owner, _)| *owner == name).map_or(&[][..], |(_, names)| names);
        for dependency in package["dependencies"].as_array().expect("a list").iter().map(|dependency| text(&dependency["name"])) {
            let word = dependency.replace('-', "_");
            if !generated.contains(&dependency.as_str()) && !names(&code, &word) {
                unused.push(format!("{name}: {dependency}"));
            }
        }
    }
    assert!(unused.is_empty(), "no source names these dependencies:\n{}", unused.join("\n"));
}

/// Whether code names a crate: `word::…`, `use word;`, `use word as …`.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + word.len()..];
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        starts && (after.starts_with("::") || code[..at].ends_with("use ") && after.starts_with([';', ' ']))
    })
}

/// All Rust code of a directory, without comments.
fn sources(dir: &std::path::Path) -> String {
    let mut code = String::new();
    for entry in std::fs::read_dir(dir).expect("read a directory").flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            code.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("read a source");
            text.lines().filter(|line| !line.trim_start().starts_with("//")).for_each(|line| code.extend([line, "\n"]));
        }
    }
    code
}

/// Tables that have changed, the version that they are at, and the test that reads what the versions before wrote.
const TABLES_OF_OLD: [(&str, &str, &str); 2] =
    [("containers", "2", "what_version_1_wrote_is_read"), ("sandboxes", "2", "what_version_1_wrote_is_read")];

/// The schema is drawn in docs/store.md.
#[test]
fn every_table_of_the_database_is_drawn() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/store.md")).expect("read docs/store.md");
    let text: String = ["store/src", "core/src"].map(|room| sources(&root.join("manager").join(room))).concat();
    let mut tables = std::collections::BTreeMap::new();
    // Those within functions are of tests.
    for line in text.lines().filter(|line| line.contains(": Table<") && !line.starts_with(' ')) {
        let Some((_, rest)) = line.split_once("Table::new(\"") else { continue };
        let (name, rest) = rest.split_once('"').expect("the name ends");
        let version = rest.trim_start_matches([',', ' ']).split(')').next().expect("at least one part");
        // Tables that tests declare for themselves.
        if !["notes", "numbers", "others", "texts"].contains(&name) {
            assert_eq!(*tables.entry(name).or_insert(version), version, "table {name} is declared with two versions");
        }
    }
    assert!(tables.len() >= 15, "{tables:?}");
    for (name, version) in tables {
        assert!(page.contains(&format!("| `{name}` |")), "table {name} is not drawn");
        let tested = TABLES_OF_OLD.iter().any(|(old, of, test)| (*old, *of) == (name, version) && text.contains(&format!("fn {test}()")));
        assert!(version == "1" || tested, "table {name} has changed: what becomes of a store that was written before needs a test");
    }
}
