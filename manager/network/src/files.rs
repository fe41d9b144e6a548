//! The three files that every container gets: /etc/resolv.conf, /etc/hosts, /etc/hostname (pure text to text).

use std::net::{IpAddr, Ipv4Addr};

/// Docker's fallback when the host names no server that a container could reach.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// What the user asked of the resolver; empty parts are taken from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsOptions {
    pub servers: Vec<IpAddr>,
    /// `.` alone means: no search domains.
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// A container's resolv.conf from the host's (resolv.conf(5)). Loopback servers are left out unless the container shares the host's
/// network: in its own namespace nobody answers there.
pub fn resolv_conf(host: &str, wanted: &DnsOptions, shares_host_network: bool) -> String {
    let values = |keyword: &str| -> Vec<String> {
        let lines = host.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        lines
            .filter_map(|line| line.split_once(char::is_whitespace))
            .filter(|(key, _)| *key == keyword)
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    };
    let reachable = |server: &String| {
        let address = server.split('%').next().and_then(|text| text.parse::<IpAddr>().ok());
        shares_host_network || address.is_some_and(|ip| !ip.is_loopback())
    };
    let mut servers: Vec<String> = match wanted.servers.as_slice() {
        [] => values("nameserver").into_iter().filter(reachable).collect(),
        given => given.iter().map(ToString::to_string).collect(),
    };
    if servers.is_empty() {
        servers = FALLBACK_SERVERS.map(str::to_owned).to_vec();
    }
    let search = match wanted.search.as_slice() {
        [] => values("search").pop().or_else(|| values("domain").pop()).unwrap_or_default(),
        [dot] if dot == "." => String::new(),
        given => given.join(" "),
    };
    let options = if wanted.options.is_empty() { values("options").join(" ") } else { wanted.options.join(" ") };
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (keyword, value) in [("search", search), ("options", options)] {
        if !value.is_empty() {
            text += &format!("{keyword} {value}\n");
        }
    }
    text
}

/// The servers that a resolver on the host asks: the wished ones, else the host's own (loopback ones too), else Docker's fallback.
pub fn servers(host: &str, wanted: &DnsOptions) -> Vec<IpAddr> {
    if !wanted.servers.is_empty() {
        return wanted.servers.clone();
    }
    let lines = host.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).filter(|rest| rest.starts_with(char::is_whitespace));
    let servers: Vec<IpAddr> = lines.filter_map(|address| address.trim().parse().ok()).collect();
    if servers.is_empty() { FALLBACK_SERVERS.iter().filter_map(|server| server.parse().ok()).collect() } else { servers }
}

/// A container's resolv.conf where our own resolver answers at `resolver`. Names of containers have no dots: `ndots:0` asks for them as
/// they are, unless the user says otherwise.
pub fn embedded_resolv_conf(host: &str, wanted: &DnsOptions, resolver: Ipv4Addr) -> String {
    let mut text = resolv_conf(host, &DnsOptions { servers: vec![resolver.into()], ..wanted.clone() }, false);
    if text.contains("ndots:") {
        return text;
    }
    match text.find("options ") {
        Some(_) => text.truncate(text.trim_end().len()),
        None => text += "options",
    }
    text + " ndots:0\n"
}

/// /etc/hosts: the loopback names, `extra` (address, names) in order, then the container's own addresses.
pub fn hosts(own: &[(IpAddr, &str)], extra: &[(IpAddr, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (address, name) in extra {
        text += &format!("{address}\t{name}\n");
    }
    for (address, names) in own {
        text += &format!("{address}\t{names}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0\n";

    #[test]
    fn loopback_servers_are_left_out() {
        let text = resolv_conf(HOST, &DnsOptions::default(), false);
        assert_eq!(text, "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0\n");
        assert_eq!(resolv_conf("nameserver ::1\n", &DnsOptions::default(), false), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        assert!(resolv_conf(HOST, &DnsOptions::default(), true).starts_with("nameserver 127.0.0.53\n"));
    }

    #[test]
    fn wishes_replace_the_host_s_values() {
        let wanted =
            DnsOptions { servers: vec!["9.9.9.9".parse().expect("ip")], search: vec![".".into()], options: vec!["ndots:2".into()] };
        assert_eq!(resolv_conf(HOST, &wanted, false), "nameserver 9.9.9.9\noptions ndots:2\n");
    }

    #[test]
    fn our_resolver_is_asked_for_names_without_dots() {
        let resolver = Ipv4Addr::new(127, 0, 0, 11);
        let text = embedded_resolv_conf(HOST, &DnsOptions::default(), resolver);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 ndots:0\n");
        assert_eq!(embedded_resolv_conf("", &DnsOptions::default(), resolver), "nameserver 127.0.0.11\noptions ndots:0\n");
        let own = DnsOptions { options: vec!["ndots:3".into()], ..DnsOptions::default() };
        assert_eq!(embedded_resolv_conf("", &own, resolver), "nameserver 127.0.0.11\noptions ndots:3\n");
        let ip = |text: &str| text.parse::<IpAddr>().expect("ip");
        assert_eq!(servers(HOST, &DnsOptions::default()), [ip("127.0.0.53"), ip("192.0.2.1")]);
        assert_eq!(servers("", &DnsOptions::default()), [ip("8.8.8.8"), ip("8.8.4.4")]);
    }

    #[test]
    fn hosts_has_the_container_s_name_last() {
        let text = hosts(&[("172.17.0.2".parse().expect("ip"), "abc")], &[("10.0.0.1".parse().expect("ip"), "db".into())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.1\tdb\n172.17.0.2\tabc\n"));
    }
}
