//! Engines of other hosts: through ssh, and over TCP with certificates on both sides.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcontainerd_tests::{Client, Outcome, TestHost, each_client, executable};

each_client!(through_ssh, over_tls_with_certificates);

/// A shell command with the client as `docker`.
fn shell(host: &TestHost, client: Client, line: &str, variables: &[(&str, &str)]) -> Outcome {
    let bin = host.path().join("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = host.command("sh");
    std::fs::create_dir_all(&bin).expect("make a directory");
    if !bin.join("docker").exists() {
        std::os::unix::fs::symlink(client.program(), bin.join("docker")).expect("link the client");
    }
    command.args(["-c", line]).env_remove("DOCKER_HOST").env("PATH", path).envs(variables.iter().copied());
    Outcome::new(line.to_owned(), &command.stdin(Stdio::null()).output().expect("run a shell"))
}

/// An `ssh` that notes how it was called and runs the command here, as the remote host's shell would.
fn fake_ssh(host: &TestHost) {
    let bin = host.path().join("bin");
    std::fs::create_dir_all(&bin).expect("make a directory");
    let script = format!(
        "#!/bin/bash\necho \"$*\" >>{0}/calls\nwhile [ $# -gt 0 ]; do case $1 in -o|-l|-p) shift 2 ;; --) shift; break ;; -*) shift ;; *) break ;; esac; done\n\
         [ \"$1\" = far ] || {{ echo \"ssh: Could not resolve hostname $1: Name or service not known\" >&2; exit 255; }}\nshift\n\
         export DOCKER_HOST=unix://{1} PATH={0}/remote:/usr/bin:/bin\nexec sh -c \"$*\"\n",
        bin.display(),
        host.socket().display()
    );
    executable(&bin.join("ssh"), &script);
    std::fs::create_dir_all(bin.join("remote")).expect("make a directory");
    for name in ["docker", "rdocker"] {
        std::os::unix::fs::symlink(Client::Ours.program(), bin.join("remote").join(name)).expect("link our client");
    }
}

fn through_ssh(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    fake_ssh(&host);
    let far = [("DOCKER_HOST", "ssh://me@far:2222")];
    shell(&host, client, "docker images --format '{{.Repository}}'", &far).stdout_has("busybox\n").success();
    let calls = std::fs::read_to_string(host.path().join("bin/calls")).expect("ssh was called");
    assert!(calls.contains("-l me") && calls.contains("-p 2222") && calls.contains("far"), "{calls}");
    let echo = "echo typed | docker run --rm -i --network none busybox sh -c 'cat; echo err >&2; exit 3'";
    shell(&host, client, echo, &far).code(3).stdout("typed\n").stderr_has("err\n");
    shell(&host, client, "docker run -d --name box --network none busybox sleep 1000", &far).success();
    shell(&host, client, "docker exec box echo hi", &far).success().stdout("hi\n");
    // By a context too.
    shell(&host, client, "docker context create --docker host=ssh://far remote && docker --context remote ps -q | wc -l", &[])
        .success()
        .stdout_has("1\n");
    let lost = shell(&host, client, "docker ps", &[("DOCKER_HOST", "ssh://nowhere")]).code(1);
    // docker's own clients may find the pipe to ssh broken or closed before they read what ssh said.
    let told = if client == Client::Ours { "Could not resolve hostname nowhere" } else { "error during connect" };
    assert!(lost.stderr.contains(told), "{lost}");
}

/// Certificates of an authority of our own, made by openssl.
fn certificates(directory: &Path) {
    std::fs::create_dir_all(directory.join("client")).expect("make a directory");
    let script = r#"
        set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca-key.pem -out ca.pem -subj /CN=authority -days 2
        sign() {
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$2" -out request.pem -subj "/CN=$1"
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%s\n' "$4" >extensions
            openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out "$3" -extfile extensions
        }
        sign server server-key.pem server.pem serverAuth
        sign client client/key.pem client/cert.pem clientAuth
        cp ca.pem client/ca.pem
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other-key.pem -out other.pem -subj /CN=other -days 2"#;
    let made = Command::new("sh").args(["-c", script]).current_dir(directory).output().expect("run a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// TLS with client certificates in front of the engine's socket.
fn tls_proxy(host: &TestHost, directory: &Path) -> Proxy {
    let listen = format!(
        "OPENSSL-LISTEN:2376,bind=127.0.0.1,reuseaddr,fork,verify=1,cert={0}/server.pem,key={0}/server-key.pem,cafile={0}/ca.pem",
        directory.display()
    );
    let log = std::fs::File::create(directory.join("log")).expect("make a log file");
    let to = format!("UNIX-CONNECT:{}", host.socket().display());
    let proxy = Proxy(host.command("socat").args(["-t", "30", &listen, &to]).stderr(log).spawn().expect("socat must be installed"));
    host.eventually("the proxy listens", || !host.run("ss".as_ref(), ["-Hltn", "sport", "=", ":2376"]).stdout.is_empty());
    proxy
}

fn over_tls_with_certificates(client: Client) {
    let host = TestHost::with_busybox().with_client(client);
    let directory: PathBuf = host.path().join("tls");
    certificates(&directory);
    let _proxy = tls_proxy(&host, &directory);
    let client_files = directory.join("client").display().to_string();
    let tls = [("DOCKER_HOST", "tcp://127.0.0.1:2376"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", client_files.as_str())];
    shell(&host, client, "docker images --format '{{.Repository}}'", &tls).success().stdout_has("busybox\n");
    shell(&host, client, "docker run --rm --network none busybox sh -c 'echo out; exit 4'", &tls).code(4).stdout("out\n");
    // Without a certificate of its own, the client is refused; a server of another authority is not believed.
    let bare = directory.join("bare").display().to_string();
    std::fs::create_dir_all(&bare).expect("make a directory");
    std::fs::copy(directory.join("ca.pem"), Path::new(&bare).join("ca.pem")).expect("copy");
    let refused = shell(&host, client, "docker --tls --tlscacert $C/ca.pem ps", &[tls[0], ("C", &bare), ("DOCKER_CERT_PATH", &bare)]);
    assert!(refused.code == 1 && !refused.stderr.is_empty(), "{refused}");
    let other = format!(
        "docker --tlsverify --tlscacert {0}/other.pem --tlscert {1}/cert.pem --tlskey {1}/key.pem ps",
        directory.display(),
        client_files
    );
    shell(&host, client, &other, &tls[..1]).code(1).stderr_has("certificate");
    // By a context, which keeps copies of the files.
    let create = format!(
        "docker context create --docker host=tcp://127.0.0.1:2376,ca={client_files}/ca.pem,cert={client_files}/cert.pem,key={client_files}/key.pem far",
    );
    shell(&host, client, &create, &[]).success();
    std::fs::remove_dir_all(&client_files).expect("remove the files");
    shell(&host, client, "docker --context far ps", &[]).success().stdout_has("CONTAINER ID");
}
