//! The create request itself.

use proto_docker::StringMap;
use proto_docker::config::{Config, HealthConfig, StrSlice};
use proto_docker::container::CreateRequest;
use proto_docker::host_config::{HostConfig, LogConfig};
use proto_docker::network::NetworkingConfig;

use super::resources::{parse_restart, parse_throttle_bytes, parse_throttle_count, parse_ulimit, parse_weight_device};
use super::{device, env, mount, network, port, security, volume};
use crate::cmdline::{Matches, check};
use crate::failure::Failure;
use crate::terminal;

/// Builds the request from the flags; the first argument is the image, the others the command.
///
/// # Errors
/// A malformed value or a contradiction, in docker's words.
pub fn build(matches: &Matches) -> Result<CreateRequest, Failure> {
    let (main_network, endpoints) = network::parse(matches).map_err(Failure::message)?;
    let volumes = volume::parse(matches.list("volume")).map_err(Failure::message)?;
    let ports = port::parse(matches.list("publish"), matches.list("expose")).map_err(Failure::message)?;
    let mut config = config(matches)?;
    config.exposed_ports = Some(ports.exposed);
    config.volumes = Some(volumes.anonymous);
    let mut host = HostConfig {
        binds: optional(volumes.binds),
        port_bindings: Some(ports.bindings),
        network_mode: main_network,
        mounts: optional(matches.list("mount").iter().map(|text| mount::parse(text)).collect::<Result<_, _>>().map_err(Failure::message)?),
        ..HostConfig::default()
    };
    place(&mut host, matches)?;
    limits(&mut host, matches)?;
    isolation(&mut host, matches)?;
    Ok(CreateRequest {
        config,
        runtime: None,
        host_config: Some(host),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints) }),
    })
}

fn optional<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn slice(list: &[String]) -> Option<StrSlice> {
    optional(list.to_vec()).map(StrSlice)
}

fn config(matches: &Matches) -> Result<Config, Failure> {
    let attach = |stream: &str| matches.list("attach").iter().any(|name| name.eq_ignore_ascii_case(stream));
    let attach_all = matches.list("attach").is_empty();
    let open_stdin = matches.bool("interactive");
    let attach_stdin = open_stdin || attach("stdin");
    Ok(Config {
        hostname: matches.string("hostname"),
        domainname: matches.string("domainname"),
        user: matches.string("user"),
        attach_stdin,
        attach_stdout: attach_all || attach("stdout"),
        attach_stderr: attach_all || attach("stderr"),
        tty: matches.bool("tty"),
        open_stdin,
        stdin_once: open_stdin && attach_stdin,
        env: optional(env::collect(matches.list("env-file"), matches.list("env"))?),
        cmd: slice(matches.args.get(1..).unwrap_or_default()),
        healthcheck: healthcheck(matches)?,
        image: matches.arg(0).to_owned(),
        working_dir: matches.string("workdir"),
        // An empty one resets the image's.
        entrypoint: matches.str("entrypoint").map(|text| StrSlice(vec![text.to_owned()])),
        labels: Some(env::labels(matches.list("label-file"), matches.list("label"))?),
        stop_signal: matches.string("stop-signal"),
        stop_timeout: matches.int("stop-timeout"),
        ..Config::default()
    })
}

fn healthcheck(matches: &Matches) -> Result<Option<HealthConfig>, Failure> {
    let times = ["health-interval", "health-timeout", "health-start-period", "health-start-interval"];
    let any = times.iter().any(|name| matches.duration(name) != 0)
        || matches.int_or("health-retries", 0) != 0
        || !matches.string("health-cmd").is_empty();
    if matches.bool("no-healthcheck") {
        if any {
            return Err(Failure::message("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }));
    }
    if !any {
        return Ok(None);
    }
    if let Some(name) = times.iter().find(|name| matches.duration(name) < 0) {
        return Err(Failure::message(format!("--{name} cannot be negative")));
    }
    if matches.int_or("health-retries", 0) < 0 {
        return Err(Failure::message("--health-retries cannot be negative"));
    }
    let command = matches.string("health-cmd");
    Ok(Some(HealthConfig {
        test: if command.is_empty() { Vec::new() } else { vec!["CMD-SHELL".to_owned(), command] },
        interval: matches.duration("health-interval"),
        timeout: matches.duration("health-timeout"),
        start_period: matches.duration("health-start-period"),
        start_interval: matches.duration("health-start-interval"),
        retries: matches.int_or("health-retries", 0),
    }))
}

/// Names, files, logging, restart: all that is neither a limit nor isolation.
fn place(host: &mut HostConfig, matches: &Matches) -> Result<(), Failure> {
    let mut dns_options = matches.list_owned("dns-option");
    dns_options.extend(matches.list_owned("dns-opt"));
    host.dns = Some(matches.list_owned("dns"));
    host.dns_options = Some(dns_options);
    host.dns_search = Some(matches.list_owned("dns-search"));
    host.extra_hosts = optional(matches.list("add-host").iter().map(|text| extra_host(text)).collect());
    host.links = optional(matches.list_owned("link"));
    host.volumes_from = optional(matches.list_owned("volumes-from"));
    host.volume_driver = matches.string("volume-driver");
    host.container_id_file = matches.string("cidfile");
    host.auto_remove = matches.bool("rm");
    host.publish_all_ports = matches.bool("publish-all");
    host.group_add = optional(matches.list_owned("group-add"));
    host.annotations = map(matches.list("annotation"));
    host.storage_opt = storage_options(matches.list("storage-opt"))?;
    host.tmpfs = tmpfs(matches.list("tmpfs"));
    host.runtime = matches.string("runtime");
    host.init = matches.changed("init").then(|| matches.bool("init"));
    host.shm_size = matches.bytes("shm-size");
    host.log_config = logging(matches)?;
    host.restart_policy = parse_restart(matches.str("restart").unwrap_or("no")).map_err(Failure::message)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Failure::message("conflicting options: cannot specify both --restart and --rm"));
    }
    if matches.bool("tty")
        && let Some((rows, columns)) = terminal::size()
    {
        host.console_size = [rows.into(), columns.into()];
    }
    Ok(())
}

/// `host:ip` whatever way it was written.
fn extra_host(text: &str) -> String {
    match text.find(['=', ':']) {
        Some(at) => format!("{}:{}", &text[..at], text[at + 1..].trim_start_matches('[').trim_end_matches(']')),
        None => text.to_owned(),
    }
}

fn map(pairs: &[String]) -> Option<StringMap> {
    (!pairs.is_empty()).then(|| env::key_values(pairs))
}

fn tmpfs(flags: &[String]) -> Option<StringMap> {
    let pairs = flags.iter().map(|text| text.split_once(':').unwrap_or((text, "")));
    let map: StringMap = pairs.map(|(path, options)| (path.to_owned(), options.to_owned())).collect();
    (!map.is_empty()).then_some(map)
}

fn storage_options(flags: &[String]) -> Result<Option<StringMap>, Failure> {
    match flags.iter().find(|flag| !flag.contains('=')) {
        Some(_) => Err(Failure::message("invalid storage option")),
        None => Ok(map(flags)),
    }
}

fn logging(matches: &Matches) -> Result<LogConfig, Failure> {
    let (driver, options) = (matches.string("log-driver"), matches.list("log-opt"));
    if driver == "none" && !options.is_empty() {
        return Err(Failure::message("invalid logging opts for driver none"));
    }
    Ok(LogConfig { driver, config: Some(env::key_values(options)) })
}

fn limits(host: &mut HostConfig, matches: &Matches) -> Result<(), Failure> {
    fn each<T>(matches: &Matches, name: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<Vec<T>>, Failure> {
        let list: Result<Vec<T>, String> = matches.list(name).iter().map(|text| parse(text)).collect();
        list.map(Some).map_err(Failure::message)
    }
    let swappiness = matches.int_or("memory-swappiness", -1);
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(Failure::message(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100")));
    }
    host.cpu_shares = matches.int_or("cpu-shares", 0);
    host.memory = matches.bytes("memory");
    host.memory_reservation = matches.bytes("memory-reservation");
    host.memory_swap = matches.bytes("memory-swap");
    host.memory_swappiness = Some(swappiness);
    host.nano_cpus = matches.str("cpus").and_then(|text| check::parse_cpus(text).ok()).unwrap_or(0);
    host.cgroup_parent = matches.string("cgroup-parent");
    host.blkio_weight = matches.int("blkio-weight").and_then(|weight| u16::try_from(weight).ok()).unwrap_or(0);
    host.blkio_weight_device = each(matches, "blkio-weight-device", parse_weight_device)?;
    host.blkio_device_read_bps = each(matches, "device-read-bps", parse_throttle_bytes)?;
    host.blkio_device_write_bps = each(matches, "device-write-bps", parse_throttle_bytes)?;
    host.blkio_device_read_iops = each(matches, "device-read-iops", parse_throttle_count)?;
    host.blkio_device_write_iops = each(matches, "device-write-iops", parse_throttle_count)?;
    host.cpu_period = matches.int_or("cpu-period", 0);
    host.cpu_quota = matches.int_or("cpu-quota", 0);
    host.cpu_realtime_period = matches.int_or("cpu-rt-period", 0);
    host.cpu_realtime_runtime = matches.int_or("cpu-rt-runtime", 0);
    host.cpuset_cpus = matches.string("cpuset-cpus");
    host.cpuset_mems = matches.string("cpuset-mems");
    host.devices = each(matches, "device", device::parse)?;
    host.device_cgroup_rules = optional(matches.list_owned("device-cgroup-rule"));
    host.oom_kill_disable = Some(matches.bool("oom-kill-disable"));
    host.oom_score_adj = matches.int_or("oom-score-adj", 0);
    host.pids_limit = Some(matches.int_or("pids-limit", 0));
    // The last one of a name counts.
    let by_name = each(matches, "ulimit", parse_ulimit)?.unwrap_or_default().into_iter().map(|limit| (limit.name.clone(), limit));
    host.ulimits = Some(by_name.collect::<std::collections::BTreeMap<_, _>>().into_values().collect());
    Ok(())
}

fn isolation(host: &mut HostConfig, matches: &Matches) -> Result<(), Failure> {
    let of_container = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let refuse = |flag: &str, what: &str| Err(Failure::message(format!("--{flag}: invalid {what} mode")));
    host.pid_mode = matches.string("pid");
    if !matches!(host.pid_mode.as_str(), "" | "host") && !of_container(&host.pid_mode) {
        return refuse("pid", "PID");
    }
    host.uts_mode = matches.string("uts");
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return refuse("uts", "UTS");
    }
    host.userns_mode = matches.string("userns");
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return refuse("userns", "USER");
    }
    host.cgroupns_mode = matches.string("cgroupns");
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return refuse("cgroupns", "CGROUP");
    }
    host.ipc_mode = matches.string("ipc");
    let added = capabilities(matches.list("cap-add"));
    let dropped: Vec<String> =
        capabilities(matches.list("cap-drop")).into_iter().filter(|name| name == "ALL" || !added.contains(name)).collect();
    host.cap_add = slice(&added);
    host.cap_drop = slice(&dropped);
    host.privileged = matches.bool("privileged");
    host.readonly_rootfs = matches.bool("read-only");
    host.sysctls = map(matches.list("sysctl"));
    let security = security::parse(matches.list("security-opt"))?;
    host.security_opt = optional(security.options);
    if security.unmask {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    }
    Ok(())
}

/// Names in one form: `net_admin` is `CAP_NET_ADMIN`; `ALL` covers the others.
fn capabilities(names: &[String]) -> Vec<String> {
    let full = |name: &String| match name.trim().to_ascii_uppercase() {
        name if name == "ALL" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    let all: std::collections::BTreeSet<String> = names.iter().map(full).collect();
    if all.contains("ALL") { vec!["ALL".to_owned()] } else { all.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_one_form() {
        let of = |names: &[&str]| capabilities(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["net_admin", "CAP_SYS_TIME", "NET_ADMIN"]), ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert_eq!(of(&["chown", "all"]), ["ALL"]);
    }

    #[test]
    fn hosts_lines_have_one_form() {
        for (given, sent) in [("a=1.2.3.4", "a:1.2.3.4"), ("a:[::1]", "a:::1"), ("a:host-gateway", "a:host-gateway")] {
            assert_eq!(extra_host(given), sent);
        }
    }
}
