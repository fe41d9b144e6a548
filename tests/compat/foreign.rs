//! Each layer taken alone: the programs of others below our manager.

use rcontainerd_tests::host::programs;

use crate::support::CtrHost;

/// The whole of a life, whatever runs it.
fn lives(host: &CtrHost, flags: &[&str]) {
    host.run(&[&["--rm"], flags].concat(), "a", &["sh", "-c", "echo out; exit 3"]).code(3).stdout("out\n");
    host.run(&[&["-d"], flags].concat(), "c", &["sleep", "1000"]).success();
    host.ctr(&["tasks", "exec", "--exec-id", "e", "c", "sh", "-c", "echo in; exit 4"]).code(4).stdout("in\n");
    host.ctr(&["tasks", "metrics", "c"]).success().stdout_has("pids.current");
    host.ctr(&["tasks", "pause", "c"]).success();
    assert_eq!(host.state("c").as_deref(), Some("PAUSED"));
    host.ctr(&["tasks", "resume", "c"]).success();
    host.remove("c");
    host.assert_clean();
}

#[test]
fn our_manager_drives_runc_below_our_shim() {
    let host = CtrHost::with_image("");
    lives(&host, &["--runc-binary", "runc"]);
}

/// crun refuses a host with both kinds of cgroups: it is shown the older kind alone.
#[test]
fn our_manager_drives_crun_below_our_shim() {
    let host = CtrHost::with_image("");
    let wrapper = host.host.path().join("crun");
    let script = "#!/bin/sh\nexec unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"' crun \"$@\"\n";
    rcontainerd_tests::executable(&wrapper, script);
    lives(&host, &["--runc-binary", wrapper.to_str().expect("a path")]);
}

const GO_SHIM: &str = "[runtimes.\"io.containerd.runc.v2\"]\nshim = \"/usr/bin/containerd-shim-runc-v2\"\n";

#[test]
fn our_manager_drives_the_go_shim() {
    let host = CtrHost::with_image(GO_SHIM);
    lives(&host, &[]);
}

#[test]
fn our_manager_drives_the_go_shim_with_our_runtime_below() {
    let host = CtrHost::with_image(GO_SHIM);
    let runtime = programs().join("rrun");
    lives(&host, &["--runc-binary", runtime.to_str().expect("a path")]);
}

#[test]
fn a_shim_may_be_named_by_its_path() {
    let host = CtrHost::with_image("");
    host.run(&["--rm", "--runtime", "/usr/bin/containerd-shim-runc-v2"], "p", &["echo", "hi"]).success().stdout("hi\n");
    host.assert_clean();
}

#[test]
fn an_unknown_runtime_is_told() {
    let host = CtrHost::with_image("");
    host.run(&["--rm", "--runtime", "io.containerd.none.v9"], "u", &["true"]).code(1).stderr_has("containerd-shim-none-v9");
    host.assert_clean();
}
