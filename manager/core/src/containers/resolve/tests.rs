use super::*;
use crate::containers::config::{MountRequest, RestartPolicy, Ulimit};
use crate::containers::resolve::mounts::MountSource;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn image() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/bin".into(), "A=1".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        ..ImageConfig::default()
    }
}

fn attempt(change: impl FnOnce(&mut CreateContainer)) -> Result<Resolved> {
    let mut request = CreateContainer::default();
    change(&mut request);
    resolve(&request, &image(), &HostFacts::for_tests(), ID)
}

fn told(change: impl FnOnce(&mut CreateContainer)) -> String {
    attempt(change).expect_err("refused").message().to_owned()
}

fn endpoint(request: &mut CreateContainer) -> &mut crate::containers::config::EndpointRequest {
    request.endpoints.entry("n".into()).or_default()
}

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|&word| word.to_owned()).collect())
}

#[test]
fn entrypoint_and_command_combine_as_docker_s() {
    let line = |entrypoint: Option<&[&str]>, cmd: Option<&[&str]>| {
        let resolved = attempt(|request| {
            request.config.entrypoint = entrypoint.and_then(words);
            request.config.cmd = cmd.and_then(words);
        });
        resolved.map(|resolved| [vec![resolved.path], resolved.args].concat().join(" "))
    };
    assert_eq!(line(None, None).expect("image's"), "/entry default");
    assert_eq!(line(None, Some(&["x"])).expect("own command"), "/entry x");
    assert_eq!(line(Some(&["/own"]), None).expect("own entrypoint"), "/own");
    assert_eq!(line(Some(&[""]), Some(&["x"])).expect("no entrypoint"), "x");
    assert_eq!(line(Some(&[""]), None).expect_err("nothing to run").message(), "no command specified");
}

/// dockerd's order: the request's, then those of the image that it does not name.
#[test]
fn variables_come_before_the_image_s_and_a_bare_name_keeps_those_out() {
    let env = |words: &[&str]| {
        let resolved = attempt(|request| request.config.env = words.iter().map(|&word| word.to_owned()).collect());
        resolved.expect("resolve").config.env
    };
    assert_eq!(env(&["B=2"]), ["B=2", "PATH=/bin", "A=1"]);
    assert_eq!(env(&["A", "PATH=/own", "B=2"]), ["A", "PATH=/own", "B=2"]);
}

/// What the start does with a network that is not there is the start's to tell: docker 28 takes a 404 of create for a missing image.
#[test]
fn an_unknown_network_does_not_fail_the_creation() {
    let resolved = attempt(|request| request.host_config.network_mode = "mine".into()).expect("resolve");
    assert_eq!(resolved.host_config.network_mode, "mine");
}

#[test]
fn masked_and_readonly_paths_are_told_unless_switched_off() {
    let masked = |change: fn(&mut HostConfig)| {
        let resolved = attempt(|request| change(&mut request.host_config)).expect("resolve").host_config;
        (resolved.masked_paths, resolved.readonly_paths)
    };
    let (paths, readonly) = masked(|_| {});
    assert!(paths.expect("a list").contains(&"/proc/kcore".to_owned()) && readonly.expect("a list").contains(&"/proc/sys".to_owned()));
    assert_eq!(masked(|host| host.privileged = true), (None, None));
    assert_eq!(masked(|host| host.masked_paths = Some(Vec::new())).0, Some(Vec::new()));
}

#[test]
fn published_ports_without_a_network_of_its_own_are_silent_but_for_the_host_s() {
    let warnings = |mode: &str| {
        let resolved = attempt(|request| {
            request.host_config.network_mode = mode.into();
            let binding = crate::containers::config::PortBinding { host_ip: String::new(), host_port: "8080".into() };
            request.host_config.port_bindings.insert("80/tcp".into(), vec![binding]);
        });
        resolved.expect("resolve").warnings
    };
    assert!(warnings("none").is_empty());
    assert_eq!(warnings("host"), ["Published ports are discarded when using host network mode"]);
}

#[test]
fn a_shared_network_leaves_no_room_for_settings_of_its_own() {
    let shared = |change: fn(&mut CreateContainer)| {
        told(|request| {
            request.host_config.network_mode = "container:x".into();
            change(request);
        })
    };
    assert_eq!(shared(|request| request.config.hostname = "h".into()), "conflicting options: hostname and the network mode");
    assert_eq!(shared(|request| request.host_config.dns = vec!["1.1.1.1".into()]), "conflicting options: dns and the network mode");
    assert!(shared(|request| request.host_config.publish_all_ports = true).contains("port publishing and the container type network mode"));
    assert!(attempt(|request| request.host_config.network_mode = "container:x".into()).is_ok());
    assert!(attempt(|request| request.host_config.pid_mode = "container:".into()).is_err());
}

#[test]
fn labels_that_steer_the_engine_never_come_from_an_image() {
    let mut image = image();
    image.labels.insert("containerd.io/restart.loguri".into(), "binary:///bin/sh".into());
    image.labels.insert("maintainer".into(), "me".into());
    let resolved = resolve(&CreateContainer::default(), &image, &HostFacts::for_tests(), ID).expect("resolve");
    assert_eq!(resolved.config.labels.keys().collect::<Vec<_>>(), ["maintainer"]);
}

#[test]
fn what_a_start_could_not_do_is_refused_before() {
    let cpus = |list: &'static str| attempt(move |request| request.host_config.resources.cpuset_cpus = list.into());
    for good in ["", "0", "0-3", "0,2-3"] {
        cpus(good).expect(good);
    }
    let unavailable = "Requested CPUs are not available - requested 2-99, available: 0-3";
    assert_eq!(cpus("2-99").expect_err("too many").message(), unavailable);
    for bad in ["x", "3-1", "1-", ",", "0-4294967295"] {
        assert_eq!(cpus(bad).expect_err(bad).message(), format!("Invalid value {bad} for cpuset cpus"));
    }
    let mems = told(|request| request.host_config.resources.cpuset_mems = "7".into());
    assert_eq!(mems, "Requested memory nodes are not available - requested 7, available: 0");
    let check = |interval| crate::containers::config::HealthCheck { test: vec!["CMD".into(), "x".into()], interval, ..Default::default() };
    let short = told(|request| request.config.healthcheck = Some(check(1)));
    assert_eq!(short, "Interval in Healthcheck cannot be less than 1ms");
    attempt(|request| request.config.healthcheck = Some(check(1_000_000))).expect("one millisecond");
    assert_eq!(told(|request| request.host_config.extra_hosts = vec!["x".into()]), "bad format for add-host: \"x\"");
    assert!(told(|request| request.host_config.extra_hosts = vec!["x:y".into()]).contains("invalid IP address in add-host"));
    attempt(|request| request.host_config.extra_hosts = vec!["a:1.2.3.4".into(), "b:host-gateway".into(), "c=[::1]".into()])
        .expect("hosts");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    assert!(told(|request| endpoint(request).links = vec!["a:b:c".into()]).contains("bad format for links: a:b:c"));
    assert!(told(|request| endpoint(request).link_local_ips = vec!["10.0.0.1".into()]).contains("169.254.0.0/16"));
    let own = |key: &str| [(key.to_owned(), "1".to_owned())].into();
    assert!(told(|request| endpoint(request).driver_options = own("com.docker.network.x")).contains("driver option"));
    attempt(|request| endpoint(request).driver_options = own("com.example.x")).expect("a label");
    let driver = |request: &mut CreateContainer| request.host_config.volume_driver = "odd".into();
    attempt(driver).expect("no volume to be made by it");
    let told_driver = told(|request| {
        driver(request);
        request.host_config.binds = vec!["vol:/v".into()];
    });
    assert_eq!(told_driver, "error looking up volume plugin odd: plugin \"odd\" not found");
    assert!(told(|request| request.host_config.resources.device_requests = vec![Default::default()]).contains("--gpus"));
    assert!(told(|request| request.host_config.userns_mode = "keep-id".into()).contains("--userns"));
    assert!(told(|request| request.host_config.log_config.driver = "gelf".into()).contains("no log driver named 'gelf'"));
    assert!(told(|request| request.host_config.security_opt = vec!["apparmor=mine".into()]).contains("apparmor=mine"));
}

#[test]
fn contradictions_are_told_in_docker_s_words() {
    let always = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
    let both = told(|request| {
        request.host_config.auto_remove = true;
        request.host_config.restart_policy = always;
    });
    assert_eq!(both, "can't create 'AutoRemove' container with restart policy");
    assert_eq!(told(|request| request.host_config.resources.memory = 1 << 20), "Minimum memory limit allowed is 6MB");
    assert!(told(|request| request.host_config.resources.nano_cpus = 99_000_000_000).contains("there are only 4 CPUs available"));
    assert_eq!(told(|request| request.host_config.cap_add = vec!["FOO".into()]), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    assert!(told(|request| drop(request.host_config.sysctls.insert("kernel.hostname".into(), "x".into()))).contains("not allowed"));
}

#[test]
fn memory_implies_twice_as_much_with_swap() {
    let resolved = attempt(|request| request.host_config.resources.memory = 100 << 20).expect("resolve");
    assert_eq!(resolved.host_config.resources.memory_swap, 200 << 20);
}

#[test]
fn the_host_s_ceilings_warn_and_clamp() {
    let resolved = attempt(|request| {
        request.host_config.oom_score_adj = -500;
        request.host_config.resources.ulimits = vec![Ulimit { name: "nofile".into(), soft: 10, hard: 1 << 20 }];
    })
    .expect("resolve");
    assert_eq!(resolved.host_config.oom_score_adj, 0);
    assert_eq!(resolved.warnings.len(), 2, "{:?}", resolved.warnings);
}

#[test]
fn mount_forms() {
    let resolved = attempt(|request| {
        request.host_config.binds = vec!["/host/../src:/a/b:ro,rslave".into(), "data:/c".into(), "/anon".into(), "/:/host".into()];
        request.host_config.tmpfs.insert("/t".into(), "size=1m".into());
    })
    .expect("resolve");
    let seen: Vec<String> =
        resolved.mounts.iter().map(|mount| format!("{} {:?} ro={}", mount.destination, mount.source, mount.read_only)).collect();
    assert!(seen.iter().any(|line| line.starts_with("/a/b Bind { path: \"/src\", create: true } ro=true")), "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("/host Bind { path: \"/\"")), "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("/c Volume { name: Some(\"data\")")), "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("/anon Volume { name: None")), "{seen:?}");
    assert_eq!(resolved.mounts.last().map(|mount| mount.destination.as_str()), Some("/a/b"), "deeper destinations come later");
    assert!(
        matches!(&resolved.mounts.iter().find(|mount| mount.destination == "/t").expect("tmpfs").source, MountSource::Tmpfs { options } if options == &["size=1m"])
    );
}

#[test]
fn malformed_mounts_are_refused() {
    for bad in ["a:/b:c:d", ":/b", "/a:", "/a:b", "/a:/", "/a:/b:frob", "..:/b", "a/b:/c"] {
        assert!(attempt(|request| request.host_config.binds = vec![bad.into()]).is_err(), "{bad:?} should be refused");
    }
    let twice = told(|request| request.host_config.binds = vec!["/a:/x".into(), "/b:/x/".into()]);
    assert_eq!(twice, "Duplicate mount point: /x");
    let relative = MountRequest { kind: "bind".into(), source: "here".into(), target: "/x".into(), ..MountRequest::default() };
    assert!(told(|request| request.host_config.mounts = vec![relative]).contains("mount path must be absolute"));
}

#[test]
fn port_forms() {
    let requests = |port: &str, host_ip: &str, host_port: &str| {
        let resolved = attempt(|request| {
            let binding = crate::containers::config::PortBinding { host_ip: host_ip.into(), host_port: host_port.into() };
            request.host_config.port_bindings.insert(port.into(), vec![binding]);
        })?;
        port_requests(&resolved.config, &resolved.host_config)
    };
    assert_eq!(requests("80/tcp", "", "8080").expect("plain")[0].host_port, Some((8080, 8080)));
    assert_eq!(requests("80", "127.0.0.1", "").expect("free port")[0].host_port, None);
    assert_eq!(requests("53/udp", "", "8000-8010").expect("range")[0].host_port, Some((8000, 8010)));
    for (port, ip, host) in
        [("0/tcp", "", "1"), ("x", "", "1"), ("80/xyz", "", "1"), ("80", "1.2.3", "1"), ("80", "", "70000"), ("80", "", "9-8")]
    {
        assert!(requests(port, ip, host).is_err(), "{port} {ip} {host} should be refused");
    }
}
