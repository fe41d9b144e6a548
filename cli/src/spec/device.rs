//! `--device /dev/x[:/dev/y][:rwm]` and `--device-cgroup-rule`.

use proto_docker::host_config::DeviceMapping;

/// # Errors
/// In docker's words.
pub fn parse(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if mode(second) => (*host, *host, *second),
        [host, container] => (*host, *container, "rwm"),
        [host, container, third] if mode(third) => (*host, *container, *third),
        [_, _, third] => return Err(format!("bad mode specified: {third}")),
        _ => return Err(format!("bad format for path: {text}")),
    };
    for path in [host, container] {
        if !path.starts_with('/') {
            return Err(format!("{path} is not an absolute path"));
        }
    }
    Ok(DeviceMapping { path_on_host: host.to_owned(), path_in_container: container.to_owned(), cgroup_permissions: permissions.to_owned() })
}

/// `c 1:3 rwm`.
pub fn check_rule(text: &str) -> Result<(), String> {
    let bad = || Err(format!("invalid device cgroup format '{text}'"));
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return bad() };
    let number = |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let numbers = numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
    let access = (1..=3).contains(&access.len()) && access.chars().all(|c| "rwm".contains(c));
    if matches!(kind, "a" | "b" | "c") && numbers && access { Ok(()) } else { bad() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let mapping = parse("/dev/a:/dev/b:r").expect("parses");
        assert_eq!(
            (mapping.path_on_host.as_str(), mapping.path_in_container.as_str(), mapping.cgroup_permissions.as_str()),
            ("/dev/a", "/dev/b", "r")
        );
        assert_eq!(parse("/dev/a:rw").expect("parses").path_in_container, "/dev/a");
        assert_eq!(parse("a"), Err("a is not an absolute path".into()));
        assert_eq!(parse("/dev/a:/dev/b:q"), Err("bad mode specified: q".into()));
        assert!(check_rule("c 1:* rwm").is_ok() && check_rule("c 1 rwm").is_err());
    }
}
