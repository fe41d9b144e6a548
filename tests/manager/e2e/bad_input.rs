//! Bad input: one clear line, the right code, nothing left.

use rcontainerd_tests::TestHost;

#[test]
fn errors_are_clear_and_codes_are_docker_s() {
    let host = TestHost::with_busybox();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "--rm", "busybox", "no-such-command"], 127, "executable file not found in $PATH"),
        (&["run", "--rm", "busybox", "/etc/passwd"], 126, "permission denied"),
        (&["run", "--cpu", "1", "busybox"], 125, "unknown flag: --cpu"),
        (&["run", "--memory", "lots", "busybox"], 125, "invalid"),
        (&["run", "-p", "80:x", "busybox"], 125, "invalid"),
        (&["run", "-v", "/no/such/place/here:relative", "busybox"], 125, "invalid"),
        (&["run", "--mount", "type=bind,src=/no/such/place,dst=/x", "busybox"], 125, "/no/such/place"),
        (&["start", "nobody"], 1, "No such container: nobody"),
        (&["logs", "nobody"], 1, "No such container: nobody"),
        (&["inspect", "nobody"], 1, "No such object: nobody"),
        (&["rmi", "nobody"], 1, "No such image: nobody:latest"),
        (&["rm", "busybox"], 1, "busybox"),
    ];
    for (args, code, message) in cases {
        host.rdocker(args.iter().copied()).code(*code).stderr_has(message);
    }
    let names = host.rdocker(["ps", "-aq"]).success().stdout;
    for id in names.split_whitespace() {
        host.rdocker(["rm", id]).success();
    }
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_taken_name_says_whose_it_is() {
    let host = TestHost::with_busybox();
    let id = host.rdocker(["create", "--name", "one", "busybox"]).success().word();
    let wanted = format!("The container name \"/one\" is already in use by container \"{id}\"");
    host.rdocker(["create", "--name", "one", "busybox"]).code(1).stderr_has(&wanted);
}

#[test]
fn a_second_manager_on_the_same_root_is_refused() {
    let host = TestHost::start();
    let programs = rcontainerd_tests::host::programs();
    let (root, state) = (host.root(), host.path().join("other"));
    let outcome =
        host.run(&programs.join("rcontainerd"), ["--root", root.to_str().expect("path"), "--state", state.to_str().expect("path")]);
    let pid = host.manager_pid().to_string();
    outcome.code(1).stderr_has(&pid);
}
