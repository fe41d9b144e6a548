//! What a sandbox runs, as a runtime-spec configuration: the one that its maker gave, completed by what he left open.
//!
//! A configuration with a program is run as it is. Without one the sandbox only holds namespaces for its containers to join: then its
//! program is this one (`pause`), bound into an empty, read-only root file system. That takes a static build, as releases are.

use std::collections::HashMap;
use std::path::Path;

use proto_containerd::pod::{NamespaceMode, NamespaceOption, PodSandboxConfig};
use serde_json::{Map, Value, json};
use shim_ttrpc::{Code, Status};

/// In the bundle, the root of a sandbox that has none: not `rootfs`, which containerd expects to find empty again.
pub const EMPTY_ROOT: &str = "pause-root";

/// What is known of a sandbox beside its configuration.
pub struct Wishes<'a> {
    pub id: &'a str,
    pub namespace: &'a str,
    /// Empty: none was made for it.
    pub netns: &'a str,
    pub annotations: &'a HashMap<String, String>,
    /// A root file system is mounted for it.
    pub rootfs: bool,
    pub systemd_cgroup: bool,
    /// From a kubelet.
    pub pod: Option<&'a PodSandboxConfig>,
    /// The program that holds the namespaces.
    pub pause: &'a Path,
}

/// # Errors
/// `InvalidArgument` or `Unimplemented`, one line.
pub fn complete(mut config: Map<String, Value>, wishes: &Wishes<'_>) -> Result<Map<String, Value>, Status> {
    if !has_program(&config) {
        if wishes.rootfs {
            let why = format!("sandbox {}: a root file system without a program: give process.args in its configuration", wishes.id);
            return Err(Status::new(Code::InvalidArgument, why));
        }
        run_pause(&mut config, wishes);
    }
    if config.get("ociVersion").and_then(Value::as_str).unwrap_or_default().is_empty() {
        config.insert("ociVersion".to_owned(), "1.0.2".into());
    }
    let wanted = wishes.annotations.iter().chain(wishes.pod.iter().flat_map(|pod| &pod.annotations));
    object(&mut config, "annotations")?.extend(wanted.map(|(name, value)| (name.clone(), value.clone().into())));
    let options = namespace_options(wishes.pod)?;
    if let Some(pod) = wishes.pod.filter(|pod| !pod.hostname.is_empty() && options.network != NamespaceMode::Node as i32) {
        config.insert("hostname".to_owned(), pod.hostname.clone().into());
    }
    complete_linux(object(&mut config, "linux")?, wishes, &options)?;
    Ok(config)
}

fn has_program(config: &Map<String, Value>) -> bool {
    config.get("process").and_then(|process| process.get("args")).and_then(Value::as_array).is_some_and(|args| !args.is_empty())
}

fn run_pause(config: &mut Map<String, Value>, wishes: &Wishes<'_>) {
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["/pause", "pause"], "cwd": "/", "noNewPrivileges": true});
    config.insert("process".to_owned(), process);
    config.insert("root".to_owned(), json!({"path": EMPTY_ROOT, "readonly": true}));
    let program = json!({"destination": "/pause", "type": "bind", "source": wishes.pause, "options": ["bind", "ro", "nosuid", "nodev"]});
    config.insert("mounts".to_owned(), json!([program]));
}

/// A kubelet's, or those of a pod of its own in everything.
fn namespace_options(pod: Option<&PodSandboxConfig>) -> Result<NamespaceOption, Status> {
    let security = pod.and_then(|pod| pod.linux.as_ref()).and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options).unwrap_or_default();
    if options.userns_options.is_some_and(|userns| userns.mode == NamespaceMode::Pod as i32) {
        return Err(Status::new(
            Code::Unimplemented,
            "a sandbox of this shim has no user namespace: set hostUsers, or the sandboxer podsandbox",
        ));
    }
    Ok(options)
}

fn complete_linux(linux: &mut Map<String, Value>, wishes: &Wishes<'_>, options: &NamespaceOption) -> Result<(), Status> {
    let namespaces = linux.entry("namespaces").or_insert(Value::Null);
    if namespaces.as_array().is_none_or(Vec::is_empty) {
        *namespaces = pod_namespaces(options);
    }
    if let Some(list) = namespaces.as_array_mut().filter(|_| !wishes.netns.is_empty()) {
        list.retain(|namespace| namespace.get("type").and_then(Value::as_str) != Some("network"));
        list.push(json!({"type": "network", "path": wishes.netns}));
    }
    let cgroup = linux.entry("cgroupsPath").or_insert(Value::Null);
    if cgroup.as_str().unwrap_or_default().is_empty() {
        *cgroup = cgroup_path(wishes).into();
    }
    let sysctls = wishes.pod.and_then(|pod| pod.linux.as_ref()).map(|linux| &linux.sysctls);
    if let Some(sysctls) = sysctls.filter(|sysctls| !sysctls.is_empty()) {
        object(linux, "sysctl")?.extend(sysctls.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    }
    Ok(())
}

/// Of its own, but for those that the pod shares with the node.
fn pod_namespaces(options: &NamespaceOption) -> Value {
    let kinds = [("ipc", options.ipc), ("uts", options.network), ("network", options.network), ("pid", options.pid)];
    let own = kinds.into_iter().filter(|(_, mode)| *mode != NamespaceMode::Node as i32).map(|(kind, _)| kind);
    own.chain(["mount"]).map(|kind| json!({"type": kind})).collect()
}

/// In the pod's parent, else where containerd's clients put a container that names none.
fn cgroup_path(wishes: &Wishes<'_>) -> String {
    let (id, namespace) = (wishes.id, wishes.namespace);
    let parent = wishes.pod.and_then(|pod| pod.linux.as_ref()).map_or("", |linux| linux.cgroup_parent.as_str());
    match (wishes.systemd_cgroup, parent) {
        (true, "") => format!("system.slice:{namespace}:{id}"),
        (true, slice) => format!("{}:cri-containerd:{id}", slice.rsplit('/').next().unwrap_or(slice)),
        (false, "") => format!("/{namespace}/{id}"),
        (false, parent) => format!("{}/{id}", parent.trim_end_matches('/')),
    }
}

/// The object of that name, made when it is missing.
fn object<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>, Status> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| Status::new(Code::InvalidArgument, format!("the sandbox's configuration: {name} is no object")))
}

#[cfg(test)]
mod tests {
    use proto_containerd::pod::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, UserNamespace};

    use super::*;

    fn completed(config: Value, pod: Option<&PodSandboxConfig>, change: impl FnOnce(&mut Wishes<'_>)) -> Result<Value, Status> {
        let annotations = HashMap::new();
        let mut wishes = Wishes {
            id: "s",
            namespace: "ns",
            netns: "",
            annotations: &annotations,
            rootfs: false,
            systemd_cgroup: false,
            pod,
            pause: Path::new("/bin/shim"),
        };
        change(&mut wishes);
        let Value::Object(config) = config else { panic!("no object") };
        complete(config, &wishes).map(Value::Object)
    }

    fn pod(linux: LinuxPodSandboxConfig) -> PodSandboxConfig {
        PodSandboxConfig { hostname: "web".into(), annotations: HashMap::new(), linux: Some(linux) }
    }

    fn with_namespaces(options: NamespaceOption) -> PodSandboxConfig {
        let security_context = Some(LinuxSandboxSecurityContext { namespace_options: Some(options) });
        pod(LinuxPodSandboxConfig { security_context, ..LinuxPodSandboxConfig::default() })
    }

    fn kinds(config: &Value) -> Vec<&str> {
        config["linux"]["namespaces"].as_array().expect("a list").iter().filter_map(|one| one["type"].as_str()).collect()
    }

    #[test]
    fn a_sandbox_without_a_program_holds_namespaces() {
        let config = completed(json!({"ociVersion": ""}), None, |wishes| wishes.netns = "/run/netns/n").expect("complete");
        assert_eq!(config["process"]["args"], json!(["/pause", "pause"]));
        assert_eq!(config["mounts"][0]["source"], "/bin/shim");
        assert_eq!((&config["root"]["readonly"], &config["ociVersion"]), (&json!(true), &json!("1.0.2")));
        assert_eq!(kinds(&config), ["ipc", "uts", "pid", "mount", "network"]);
        assert_eq!(config["linux"]["namespaces"][4]["path"], "/run/netns/n");
        assert_eq!(config["linux"]["cgroupsPath"], "/ns/s");
    }

    #[test]
    fn a_program_is_run_as_it_is_given() {
        let given = json!({
            "ociVersion": "1.2.0", "process": {"args": ["sleep", "9"]}, "root": {"path": "/r"},
            "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "/own"},
        });
        let mut config = completed(given.clone(), None, |wishes| wishes.rootfs = true).expect("complete");
        config.as_object_mut().expect("object").remove("annotations");
        assert_eq!(config, given);
        assert!(completed(json!({}), None, |wishes| wishes.rootfs = true).expect_err("no program").message.contains("process.args"));
    }

    #[test]
    fn what_a_pod_shares_with_its_node_is_not_made() {
        let node = NamespaceMode::Node as i32;
        let host = with_namespaces(NamespaceOption { network: node, pid: node, ipc: node, userns_options: None });
        let config = completed(json!({}), Some(&host), |_| ()).expect("complete");
        assert_eq!(kinds(&config), ["mount"]);
        assert_eq!(config.get("hostname"), None);
        let own = with_namespaces(NamespaceOption { userns_options: Some(UserNamespace { mode: node }), ..NamespaceOption::default() });
        let config = completed(json!({}), Some(&own), |_| ()).expect("complete");
        assert_eq!((kinds(&config), &config["hostname"]), (vec!["ipc", "uts", "network", "pid", "mount"], &json!("web")));
        let users = with_namespaces(NamespaceOption { userns_options: Some(UserNamespace { mode: 0 }), ..NamespaceOption::default() });
        assert!(completed(json!({}), Some(&users), |_| ()).is_err());
    }

    #[test]
    fn a_pods_cgroup_and_sysctls_are_its_own() {
        let sysctls = HashMap::from([("kernel.shm_rmid_forced".to_owned(), "1".to_owned())]);
        let given = pod(LinuxPodSandboxConfig { cgroup_parent: "/kube/pod1".into(), sysctls, security_context: None });
        let config = completed(json!({}), Some(&given), |_| ()).expect("complete");
        assert_eq!(config["linux"]["cgroupsPath"], "/kube/pod1/s");
        assert_eq!(config["linux"]["sysctl"]["kernel.shm_rmid_forced"], "1");
        let slice = pod(LinuxPodSandboxConfig { cgroup_parent: "/kube.slice/pod1.slice".into(), ..LinuxPodSandboxConfig::default() });
        let systemd = |wishes: &mut Wishes<'_>| wishes.systemd_cgroup = true;
        let config = completed(json!({}), Some(&slice), systemd);
        assert_eq!(config.expect("complete")["linux"]["cgroupsPath"], "pod1.slice:cri-containerd:s");
        assert_eq!(completed(json!({}), None, systemd).expect("complete")["linux"]["cgroupsPath"], "system.slice:ns:s");
    }
}
