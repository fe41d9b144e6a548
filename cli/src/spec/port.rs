//! `-p` in its forms (`80`, `8080:80`, `127.0.0.1:8080:80/udp`, ranges, `published=…,target=…`) and `--expose`.

use proto_docker::host_config::{PortBinding, PortMap};
use proto_docker::{Empty, StringSet};

/// What `-p` and `--expose` ask for together.
#[derive(Debug, Default, PartialEq)]
pub struct Ports {
    pub exposed: StringSet,
    pub bindings: PortMap,
}

/// # Errors
/// The first malformed port, in docker's words.
pub fn parse(publish: &[String], expose: &[String]) -> Result<Ports, String> {
    let mut ports = Ports::default();
    for text in publish {
        let text = if text.contains('=') { long_form(text)? } else { text.clone() };
        for (port, binding) in short_form(&text)? {
            ports.exposed.insert(port.clone(), Empty {});
            ports.bindings.entry(port).or_default().get_or_insert_with(Vec::new).push(binding);
        }
    }
    for text in expose {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (low, high) = port_range(range).ok_or_else(|| format!("invalid range format for --expose: {text}"))?;
        for port in low..=high {
            ports.exposed.insert(format!("{port}/{}", protocol.to_ascii_lowercase()), Empty {});
        }
    }
    Ok(ports)
}

/// `published=8080,target=80,protocol=tcp` as a short form.
fn long_form(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = (String::new(), String::new(), "tcp".to_owned());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        match key {
            "published" => published = value.to_owned(),
            "target" => target = value.to_owned(),
            "protocol" => protocol = value.to_owned(),
            "mode" if value == "host" || value == "ingress" => {}
            "mode" => return Err(format!("invalid publish mode ({value}): must be either 'ingress' or 'host'")),
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if target.is_empty() {
        return Err("missing mandatory field 'target'".to_owned());
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn short_form(text: &str) -> Result<Vec<(String, PortBinding)>, String> {
    let (address, host, container) = split(text);
    let (container, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (low, high) = port_range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let host_range = if host.is_empty() { None } else { Some(port_range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?) };
    if let Some((host_low, host_high)) = host_range
        && high - low != host_high - host_low
        && low != high
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let bindings = (low..=high).map(|port| {
        let host_port = match host_range {
            None => String::new(),
            Some((host_low, host_high)) if low == high && host_low != host_high => format!("{host_low}-{host_high}"),
            Some((host_low, _)) => (host_low + (port - low)).to_string(),
        };
        (format!("{port}/{protocol}"), PortBinding { host_ip: address.clone(), host_port })
    });
    Ok(bindings.collect())
}

/// `[address:][host:]container`; an address may have colons of its own.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((front, container)) = text.rsplit_once(':') else { return ("", "", text) };
    match front.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", front, container),
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let ports = parse(&[text.to_owned()], &[]).unwrap_or_else(|err| panic!("{text}: {err}"));
        let each = |(port, bindings): (&String, &Option<Vec<PortBinding>>)| {
            let list =
                bindings.as_ref().expect("has bindings").iter().map(|b| format!("{}:{}", b.host_ip, b.host_port)).collect::<Vec<_>>();
            format!("{}->{port}", list.join(","))
        };
        ports.bindings.iter().map(each).collect()
    }

    #[test]
    fn every_form() {
        assert_eq!(shown("80"), [":->80/tcp"]);
        assert_eq!(shown("8080:80"), [":8080->80/tcp"]);
        assert_eq!(shown(":80"), [":->80/tcp"]);
        assert_eq!(shown("127.0.0.1:8080:80/udp"), ["127.0.0.1:8080->80/udp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1:->80/tcp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1:8080->80/tcp"]);
        assert_eq!(shown("8000-8001:80-81"), [":8000->80/tcp", ":8001->81/tcp"]);
        assert_eq!(shown("8000-8010:80"), [":8000-8010->80/tcp"]);
        assert_eq!(shown("published=8080,target=80"), [":8080->80/tcp"]);
    }

    #[test]
    fn bad_forms() {
        for (text, why) in [
            ("foo", "invalid containerPort: foo"),
            ("99999:80", "invalid hostPort: 99999"),
            ("x:80:80", "invalid IP address: x"),
            ("80/foo", "invalid proto: foo"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
        ] {
            assert_eq!(parse(&[text.to_owned()], &[]), Err(why.to_owned()), "{text}");
        }
        assert!(parse(&[], &["x".to_owned()]).is_err());
    }
}
