//! `df` tells what du(1) does.

use std::process::Command;

use rcontainerd_tests::{TestHost, image};

fn du(host: &TestHost) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(host.root()).output().expect("run du");
    String::from_utf8_lossy(&output.stdout).split('\t').next().expect("a number").parse().expect("a number")
}

/// The sum of what the API tells.
fn told(host: &TestHost) -> u64 {
    let args = ["-s", "--unix-socket", host.socket().to_str().expect("a path"), "http://localhost/v1.44/system/df"].map(str::to_owned);
    let body = host.command("curl").args(args).output().expect("run curl").stdout;
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let sum = |list: &str, size: &dyn Fn(&serde_json::Value) -> u64| body[list].as_array().expect("a list").iter().map(size).sum::<u64>();
    let containers = sum("Containers", &|one| one["SizeRw"].as_u64().unwrap_or(0));
    body["LayersSize"].as_u64().expect("a number") + containers + sum("Volumes", &|one| one["UsageData"]["Size"].as_u64().expect("a size"))
}

/// The sum of what the command prints.
fn printed(host: &TestHost) -> f64 {
    let sizes = host.rdocker(["system", "df", "--format", "{{.Size}}"]).success().stdout;
    let bytes = |size: &str| {
        let digits = size.find(|c: char| c.is_ascii_alphabetic()).expect("a unit");
        let factor = match &size[digits..] {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            other => panic!("unit {other}"),
        };
        size[..digits].parse::<f64>().expect("a number") * factor
    };
    sizes.lines().map(bytes).sum()
}

/// What the engine still does by itself (a start brings an image along) may come between two looks.
fn agree(host: &TestHost, when: &str) {
    let near = |size: f64| (size - du(host) as f64).abs() <= du(host) as f64 / 100.0;
    host.eventually(&format!("{when}: the API says what du says"), || near(told(host) as f64));
    host.eventually(&format!("{when}: the command says what du says"), || near(printed(host)));
}

#[test]
fn df_is_du_with_logs_volumes_and_what_is_arriving() {
    let host = TestHost::start();
    agree(&host, "empty");
    let archive = host.path().join("busybox.tar");
    image::busybox_archive(&archive, "busybox:latest");
    host.rdocker(["load", "-i", archive.to_str().expect("a path")]).success();
    agree(&host, "an image");
    let script = "yes all work and no play | head -c 3000000; head -c 2000000 /dev/urandom >/own; head -c 1500000 /dev/urandom >/data/file";
    host.rdocker(["run", "--name", "one", "--network", "none", "-v", "data:/data", "busybox", "sh", "-c", script]).success();
    agree(&host, "a container with logs and a volume");
    host.rdocker(["run", "-d", "--name", "up", "--network", "none", "busybox", "sleep", "1000"]).success();
    let ingest = host.root().join("content/ingest").join("00".repeat(32));
    std::fs::create_dir(&ingest).expect("make a directory");
    std::fs::write(ingest.join("data"), vec![1; 2_500_000]).expect("write");
    agree(&host, "a download that was cut off");
    host.rdocker(["rm", "-f", "-v", "one", "up"]).success();
    host.rdocker(["rmi", "-f", "busybox"]).success();
    agree(&host, "after the removals");
}
