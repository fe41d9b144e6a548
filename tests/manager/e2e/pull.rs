//! Pulls from a real registry.

use rcontainerd_tests::{Client, Registry, TestHost, each_client, image};

each_client!(run_pulls_what_is_missing, a_missing_image_is_told_as_docker_tells_it);

fn run_pulls_what_is_missing(client: Client) {
    let host = TestHost::start().with_client(client);
    let registry = Registry::start(&host);
    let archive = host.path().join("image.tar");
    image::busybox_archive(&archive, "busybox:latest");
    // The second image has the first one's layer: what is here is not fetched again.
    for (format, layer) in [("v2s2", "Pull complete"), ("oci", "Already exists")] {
        registry.push(&host, &archive, &format!("{format}:1"), format);
        let name = format!("{}/{format}:1", registry.address);
        let outcome = host.docker(["run", "--rm", "--network", "none", &name, "echo", "pulled"]).success().stdout("pulled\n");
        for line in [
            format!("Unable to find image '{name}' locally"),
            layer.into(),
            "Digest: sha256:".into(),
            format!("Status: Downloaded newer image for {name}"),
        ] {
            assert!(outcome.stderr.contains(&line), "{line:?} is missing: {outcome}");
        }
        host.docker(["pull", &name]).success().stdout_has(&format!("Status: Image is up to date for {name}"));
    }
}

fn a_missing_image_is_told_as_docker_tells_it(client: Client) {
    let host = TestHost::start().with_client(client);
    let registry = Registry::start(&host);
    let name = format!("{}/nothing:1", registry.address);
    host.docker(["pull", &name]).code(1).stderr_has("manifest unknown");
    host.docker(["pull", "127.0.0.1:9/nothing"]).code(1).stderr_has("connection refused");
}
