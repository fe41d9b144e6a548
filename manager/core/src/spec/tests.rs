use std::path::PathBuf;

use super::*;
use crate::containers::resolve;
use crate::containers::{CreateContainer, MountKind, MountPoint, State};
use crate::images::ImageConfig;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn container(change: impl FnOnce(&mut CreateContainer)) -> Container {
    let mut request = CreateContainer::default();
    request.config.cmd = Some(vec!["true".into()]);
    change(&mut request);
    let resolved = resolve::resolve(&request, &ImageConfig::default(), &HostFacts::for_tests(), ID).expect("resolve");
    Container {
        id: ID.into(),
        name: "name".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        image_id: String::new(),
        manifest_digest: String::new(),
        platform: "linux/amd64".into(),
        config: resolved.config,
        host_config: resolved.host_config,
        endpoints: std::collections::BTreeMap::new(),
        left_mode: false,
        path: resolved.path,
        args: resolved.args,
        mounts: Vec::new(),
        snapshot_key: String::new(),
        snapshotter: String::new(),
        hostname: resolved.hostname,
        warnings: Vec::new(),
        state: State::default(),
    }
}

fn built(container: &Container) -> Value {
    let inputs = Inputs {
        host: &HostFacts::for_tests(),
        user: &User { uid: 0, gid: 0, additional_gids: vec![0] },
        netns: Some(Path::new("/run/netns/x")),
        joined: Joined::default(),
        cgroups_path: format!("/rcontainerd/{ID}"),
        files: Files { hosts: "/c/hosts".into(), hostname: "/c/hostname".into(), resolv_conf: "/c/resolv.conf".into() },
        init: Path::new("/usr/bin/rcontainerd-init"),
        console_size: None,
    };
    build(container, &inputs).expect("spec")
}

/// Without the filter, which has tests of its own.
fn shown(mut spec: Value) -> String {
    let rules = spec["linux"]["seccomp"]["syscalls"].as_array().map_or(0, Vec::len);
    spec["linux"]["seccomp"] = json!(if rules > 10 { "the builtin profile" } else { "none" });
    serde_json::to_string_pretty(&spec).expect("json")
}

#[test]
fn docker_s_defaults() {
    insta::assert_snapshot!(shown(built(&container(|_| {}))));
}

#[test]
fn everything_asked() {
    let mut container = container(|request| {
        let (config, host) = (&mut request.config, &mut request.host_config);
        config.tty = true;
        config.env = vec!["TERM=dumb".into()];
        config.working_dir = "/work".into();
        config.domainname = "example".into();
        host.init = Some(true);
        host.readonly_rootfs = true;
        host.cap_add = vec!["NET_ADMIN".into()];
        host.cap_drop = vec!["ALL".into()];
        host.security_opt = vec!["no-new-privileges".into(), "seccomp=unconfined".into()];
        host.ipc_mode = "none".into();
        host.pid_mode = "host".into();
        host.resources.memory = 100 << 20;
        host.resources.nano_cpus = 1_500_000_000;
        host.resources.pids_limit = Some(50);
        host.resources.device_cgroup_rules = vec!["c 42:* rwm".into()];
        host.sysctls.insert("net/core/somaxconn".into(), "9".into());
    });
    container.mounts = vec![MountPoint {
        kind: MountKind::Tmpfs,
        name: String::new(),
        source: String::new(),
        destination: "/tmp".into(),
        driver: String::new(),
        mode: String::new(),
        read_write: true,
        propagation: String::new(),
        anonymous: false,
        no_copy: false,
        non_recursive: false,
        tmpfs_options: vec!["size=1m".into(), "exec".into()],
    }];
    insta::assert_snapshot!(shown(built(&container)));
}

#[test]
fn privileged_has_no_masks_no_filter_and_every_device() {
    let spec = built(&container(|request| request.host_config.privileged = true));
    assert!(spec["linux"].get("maskedPaths").is_none() && spec["linux"].get("seccomp").is_none());
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
    let capabilities = spec["process"]["capabilities"]["bounding"].as_array().expect("list").len();
    assert_eq!(capabilities, crate::capabilities::ALL.len() - 1, "all but the one that the host lacks");
}

#[test]
fn inheritable_and_ambient_capabilities_are_never_given() {
    for privileged in [false, true] {
        let spec = built(&container(|request| request.host_config.privileged = privileged));
        let sets = spec["process"]["capabilities"].as_object().expect("sets");
        assert!(!sets.contains_key("inheritable") && !sets.contains_key("ambient"));
    }
}

#[test]
fn the_host_s_queues_are_shown_where_the_host_has_not_mounted_them() {
    let spec = built(&container(|request| request.host_config.ipc_mode = "host".into()));
    let at = |place: &str| spec["mounts"].as_array().expect("mounts").iter().find(|mount| mount["destination"] == place).cloned();
    assert_eq!(at("/dev/mqueue").expect("mounted")["type"], "mqueue", "a bind would need the host's own mount");
    assert_eq!(at("/dev/shm").expect("mounted")["source"], "/dev/shm");
}

#[test]
fn a_mount_of_the_user_s_replaces_ours() {
    let mut container = container(|_| {});
    let point = |destination: &str| MountPoint {
        kind: MountKind::Bind,
        name: String::new(),
        source: PathBuf::from("/mine").to_string_lossy().into_owned(),
        destination: destination.into(),
        driver: String::new(),
        mode: String::new(),
        read_write: false,
        propagation: String::new(),
        anonymous: false,
        no_copy: false,
        non_recursive: false,
        tmpfs_options: Vec::new(),
    };
    container.mounts = vec![point("/etc/hosts")];
    let spec = built(&container);
    let hosts: Vec<&Value> =
        spec["mounts"].as_array().expect("mounts").iter().filter(|mount| mount["destination"] == "/etc/hosts").collect();
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0]["source"], "/mine");
    assert_eq!(hosts[0]["options"], json!(["rbind", "ro", "rprivate"]));
}
