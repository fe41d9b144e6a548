//! Global options and `config.json`.

use std::path::PathBuf;
use std::process::Stdio;

use rcontainerd_tests::{Client, Outcome, Registry, TestHost, each_client, image};

each_client!(
    formats_come_from_the_file,
    proxies_come_from_the_file,
    a_broken_file_is_told_and_not_used,
    contexts_travel_as_archives,
    a_helper_keeps_the_password,
);

/// `config.json` of the host's user.
fn configure(host: &TestHost, text: &str) {
    let directory = host.path().join(".docker");
    std::fs::create_dir_all(&directory).expect("make a directory");
    std::fs::write(directory.join("config.json"), text).expect("write the configuration");
}

fn formats_come_from_the_file(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    host.docker(["create", "--name", "one", "--network", "none", "busybox"]).success();
    configure(&host, r#"{"psFormat":"name {{.Names}}","imagesFormat":"image {{.Repository}}","volumesFormat":"volume {{.Name}}"}"#);
    host.docker(["ps", "-a"]).success().stdout("name one\n");
    host.docker(["images", "busybox"]).success().stdout("image busybox\n");
    host.docker(["volume", "create", "data"]).success();
    host.docker(["volume", "ls"]).success().stdout("volume data\n");
    host.docker(["ps", "-a", "--format", "{{.Image}}"]).success().stdout("busybox\n");
    assert_eq!(host.docker(["ps", "-aq"]).success().word().len(), 12);
}

fn proxies_come_from_the_file(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let of = |proxies: &str| {
        configure(&host, &format!(r#"{{"proxies":{proxies}}}"#));
        let script = "env | grep -i -E '^(https?|no)_proxy=' | sort";
        host.docker(["run", "--rm", "--network", "none", "-e", "NO_PROXY=mine", "busybox", "sh", "-c", script]).success().stdout
    };
    let default = r#""default":{"httpProxy":"http://p:1","noProxy":"*.x"}"#;
    assert_eq!(of(&format!("{{{default}}}")), "HTTP_PROXY=http://p:1\nNO_PROXY=mine\nhttp_proxy=http://p:1\nno_proxy=*.x\n");
    let own = format!(r#""unix://{}":{{"httpsProxy":"http://q:2"}}"#, host.socket().display());
    assert_eq!(of(&format!("{{{default},{own}}}")), "HTTPS_PROXY=http://q:2\nNO_PROXY=mine\nhttps_proxy=http://q:2\n");
}

fn a_broken_file_is_told_and_not_used(client: Client) {
    let host = TestHost::start().with_client(client);
    configure(&host, "{\"psFormat\": nonsense");
    let outcome = host.docker(["ps"]).success().stdout_has("CONTAINER ID").stderr_has("WARNING: Error ").stderr_has("config.json");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
}

/// As users do it between machines, and between our client and docker's.
fn contexts_travel_as_archives(client: Client) {
    let host = TestHost::start().with_client(client);
    let run = |client: &PathBuf, words: &str| {
        let line = format!("unset DOCKER_HOST; cd {}; {} {words}", host.path().display(), client.display());
        host.run("sh".as_ref(), ["-c", &line])
    };
    let (theirs, ours) = (client.program(), Client::Ours.program());
    let certificate =
        format!("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -keyout /dev/null -out {}/ca.pem", host.path().display());
    host.run("sh".as_ref(), ["-c", &certificate]).success();
    run(&theirs, "context create --description 'far away' --docker host=tcp://far:2376,ca=ca.pem one").success();
    run(&theirs, "context export one").success().stderr_has("Written file \"one.dockercontext\"");
    run(&theirs, "context export one").code(1).stderr_has("file exists");
    run(&ours, "context import two one.dockercontext").success().stdout("two\n").stderr_has("Successfully imported context \"two\"");
    run(&ours, "context import two one.dockercontext").code(1).stderr_has("already exists");
    run(&ours, "context export two - > two.tar").success();
    run(&theirs, "context import three - < two.tar").success().stdout_has("three\n");
    let told = "{{.Name}} {{.Endpoints.docker.Host}} {{.TLSMaterial}}";
    let expected = "three tcp://far:2376 map[docker:[ca.pem]]\n";
    run(&theirs, &format!("context inspect -f '{told}' three")).success().stdout(expected);
    run(&ours, &format!("context inspect -f '{told}' three")).success().stdout(expected);
    run(&ours, "context import bad /etc/passwd").code(1).stderr_has("the archive is not that of a context");
    run(&ours, "context inspect bad").code(1);
}

/// A `docker-credential-fake` that keeps secrets in files, a registry that wants a password.
fn a_helper_keeps_the_password(client: Client) {
    let host = TestHost::start().with_client(client);
    let registry = Registry::start_with_password(&host, "user", "secret");
    let archive = host.path().join("image.tar");
    image::busybox_archive(&archive, "busybox:latest");
    registry.push(&host, &archive, "private:1", "v2s2");
    let name = format!("{}/private:1", registry.address);
    let helpers = helper(&host);
    configure(&host, r#"{"credsStore":"fake"}"#);
    let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap_or_default());
    let docker = |words: &str| {
        let mut command = host.command("sh");
        let line = format!("{} {words}", client.program().display());
        let output = command.args(["-c", &line]).env("PATH", &path).stdin(Stdio::null()).output().expect("run a shell");
        Outcome::new(line, &output)
    };
    let kept = || std::fs::read_to_string(host.path().join("kept")).unwrap_or_default();
    let refused = docker(&format!("pull {name}")).code(1);
    assert!(refused.stderr.contains("no basic auth credentials") || refused.stderr.contains("unauthorized"), "{refused}");
    docker(&format!("login -u user -p wrong {}", registry.address)).code(1).stderr_has("unauthorized");
    assert_eq!(kept(), "");
    let password = host.path().join("password");
    std::fs::write(&password, "secret\n").expect("write");
    let login = format!("login -u user --password-stdin {} <{}", registry.address, password.display());
    docker(&login).success().stdout_has("Login Succeeded");
    assert!(kept().contains("\"Secret\":\"secret\""), "{}", kept());
    let file = std::fs::read_to_string(host.path().join(".docker/config.json")).expect("read the configuration");
    assert!(!file.contains("\"auth\"") && file.contains("credsStore"), "{file}");
    docker(&format!("pull {name}")).success().stdout_has("Status: Downloaded newer image");
    docker(&format!("logout {}", registry.address)).success();
    assert_eq!(kept(), "");
}

fn helper(host: &TestHost) -> PathBuf {
    let directory = host.path().join("helpers");
    std::fs::create_dir_all(&directory).expect("make a directory");
    let kept = host.path().join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >{0} ;;\nerase) rm -f {0} ;;\nlist) echo '{{}}' ;;\n\
         get) if [ -s {0} ]; then cat {0}; else echo 'credentials not found in native keychain'; exit 1; fi ;;\nesac\n",
        kept.display()
    );
    let path = directory.join("docker-credential-fake");
    rcontainerd_tests::executable(&path, &script);
    directory
}

#[test]
fn debugging_shows_the_requests() {
    let host = TestHost::start();
    for flags in [&["-D", "ps"][..], &["--debug", "ps"], &["--log-level", "debug", "ps"], &["-l", "DEBUG", "ps"]] {
        let outcome = host.rdocker(flags.iter().copied()).success();
        assert!(
            outcome.stderr.contains("DEBU[00") && outcome.stderr.contains("] GET /v1.") && outcome.stderr.contains("/containers/json"),
            "{outcome}"
        );
    }
    let quiet = host.rdocker(["--log-level", "warn", "ps"]).success();
    assert_eq!(quiet.stderr, "");
    host.rdocker(["--log-level", "loud", "ps"]).code(1).stderr_has("Unable to parse logging level: loud");
}

#[test]
fn the_shell_completes() {
    let host = TestHost::with_busybox();
    host.rdocker(["create", "--name", "worker", "--network", "none", "busybox"]).success();
    let completed = |line: &str| {
        let script = format!(
            "PATH={}:$PATH; source <(rdocker completion bash); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _rdocker; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            Client::Ours.program().parent().expect("a directory").display()
        );
        host.run("bash".as_ref(), ["-c", &script]).success().stdout
    };
    assert_eq!(completed("rdocker ren"), "rename\n");
    assert_eq!(completed("rdocker run --cpus"), "--cpus\n--cpuset-cpus\n--cpuset-mems\n");
    assert_eq!(completed("rdocker logs wo"), "worker\n");
    assert_eq!(completed("rdocker rmi busybox:la"), "latest\n");
    assert_eq!(
        completed("rdocker container "),
        host.rdocker(["__complete", "container", ""]).success().stdout.lines().map(first_column).collect::<String>()
    );
    for shell in ["bash", "zsh", "fish"] {
        host.rdocker(["completion", shell]).success().stdout_has("__complete");
    }
}

fn first_column(line: &str) -> String {
    format!("{}\n", line.split('\t').next().unwrap_or_default())
}

#[test]
fn signatures_are_not_promised() {
    let host = TestHost::start();
    for command in ["run", "create", "pull", "push"] {
        host.rdocker([command, "--disable-content-trust=false", "busybox"]).code(125).stderr_has("does not verify signatures");
    }
}
