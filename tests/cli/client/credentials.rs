//! Where `rdocker login` keeps credentials, and who finds them there.

use std::process::Stdio;

use rcontainerd_tests::{Outcome, Registry, TestHost, image};

/// A host with a registry that wants a password and has an image; its name.
fn private() -> (TestHost, Registry, String) {
    let host = TestHost::start();
    let registry = Registry::start_with_password(&host, "user", "secret");
    let archive = host.path().join("image.tar");
    image::busybox_archive(&archive, "busybox:latest");
    registry.push(&host, &archive, "private:1", "v2s2");
    let name = format!("{}/private:1", registry.address);
    (host, registry, name)
}

/// `rdocker WORDS`, by a shell.
fn rdocker(host: &TestHost, words: &str, variables: &[(&str, &str)]) -> Outcome {
    let line = format!("{} {words}", rcontainerd_tests::host::programs().join("rdocker").display());
    let mut command = host.command("sh");
    let output = command.args(["-c", &line]).envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("run a shell");
    Outcome::new(line, &output)
}

fn file(host: &TestHost) -> String {
    std::fs::read_to_string(host.path().join(".docker/config.json")).expect("read the configuration")
}

#[test]
fn without_a_helper_the_kernel_keeps_the_password_and_no_file_has_it() {
    let (host, registry, name) = private();
    let login = format!("login -u user --password-stdin {} <<end\nsecret\nend", registry.address);
    rdocker(&host, &login, &[]).success().stdout_has("Login Succeeded").stderr_has("kernel's keyring");
    assert!(!file(&host).contains("\"auth\"") && file(&host).contains(&registry.address), "{}", file(&host));
    rdocker(&host, &format!("pull {name}"), &[]).success();
    // Another configuration is another login.
    let other = host.path().join("other");
    let refused = rdocker(&host, &format!("--config {} pull {name}", other.display()), &[]);
    assert_ne!(refused.code, 0, "{refused}");
    let kept = file(&host);
    rdocker(&host, &format!("logout {}", registry.address), &[]).success();
    assert!(!file(&host).contains(&registry.address), "{}", file(&host));
    // As after a boot: the file says that there are credentials, the kernel has none.
    std::fs::write(host.path().join(".docker/config.json"), kept).expect("write");
    rdocker(&host, &format!("pull {name}"), &[]).code(1).stderr_has("not in the kernel's keyring any more").stderr_has("log in again");
}

#[test]
fn what_the_kernel_does_not_take_goes_into_the_file_and_that_is_said() {
    let host = TestHost::start();
    let registry = Registry::start(&host);
    let password = host.path().join("password");
    std::fs::write(&password, "x".repeat(40_000)).expect("write");
    let login = format!("login -u user --password-stdin {} <{}", registry.address, password.display());
    let outcome = rdocker(&host, &login, &[]).success();
    assert!(outcome.stderr.contains("WARNING! Your credentials are stored unencrypted in"), "{outcome}");
    assert!(file(&host).contains("\"auth\""));
    let mode = std::fs::metadata(host.path().join(".docker/config.json")).expect("stat").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    rdocker(&host, &format!("logout {}", registry.address), &[]).success();
    assert!(!file(&host).contains("\"auth\""));
}

#[test]
fn credentials_of_the_environment_and_of_old_files_are_found_and_broken_ones_told() {
    let (host, registry, name) = private();
    let config = |server: &str, auth: &str| format!("{{\"auths\":{{\"{server}\":{{\"auth\":\"{auth}\"}}}}}}");
    let given = config(&registry.address, "dXNlcjpzZWNyZXQ=");
    rdocker(&host, &format!("pull {name}"), &[("DOCKER_AUTH_CONFIG", &given)]).success();
    rdocker(&host, &format!("pull {name}"), &[("DOCKER_AUTH_CONFIG", "nonsense")]).stderr_has("DOCKER_AUTH_CONFIG");
    let write = |text: &str| {
        std::fs::create_dir_all(host.path().join(".docker")).expect("make a directory");
        std::fs::write(host.path().join(".docker/config.json"), text).expect("write");
    };
    rdocker(&host, &format!("rmi {name}"), &[]).success();
    write(&config(&format!("https://{}/v1/", registry.address), "dXNlcjpzZWNyZXQ="));
    rdocker(&host, &format!("pull {name}"), &[]).success().stdout_has("Downloaded newer image");
    write(&config(&registry.address, "!!"));
    rdocker(&host, &format!("pull {name}"), &[]).code(1).stderr_has("are damaged");
    write("{\"credHelpers\":{\"127.0.0.1:5000\":\"not-there\"}}");
    rdocker(&host, &format!("pull {name}"), &[]).code(1).stderr_has("docker-credential-not-there").stderr_has("No such file");
}

#[test]
fn manifests_are_shown_as_the_registry_has_them() {
    let (host, registry, name) = private();
    let login = [("DOCKER_AUTH_CONFIG", format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dXNlcjpzZWNyZXQ=\"}}}}}}", registry.address))];
    let login: Vec<(&str, &str)> = login.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let shown = rdocker(&host, &format!("manifest inspect {name}"), &login).success();
    assert!(shown.stdout.starts_with("{\n\t\"schemaVersion\": 2,\n") && shown.stdout.contains("\"layers\": ["), "{shown}");
    let verbose = rdocker(&host, &format!("manifest inspect -v {name}"), &login).success();
    assert!(verbose.stdout.contains("\"SchemaV2Manifest\"") && verbose.stdout.contains(&format!("\"Ref\": \"{name}\"")), "{verbose}");
    rdocker(&host, &format!("manifest inspect {}/nothing:1", registry.address), &login).code(1).stderr_has("manifest unknown");
    rdocker(&host, &format!("search {}/x", registry.address), &login).code(1).stderr_has("has no search");
}
