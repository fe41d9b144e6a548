//! `--mount type=bind,source=…,target=…,readonly`.

use proto_docker::host_config::{BindOptions, ImageOptions, Mount, TmpfsOptions, VolumeDriver, VolumeOptions};

use crate::cmdline::check as form;

/// Fields of a line of comma-separated values, where quotes may hold commas.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut all = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let last = all.last_mut().expect("starts with one field");
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => last.push('"'),
            '"' if quoted => quoted = false,
            '"' if last.is_empty() => quoted = true,
            '"' => return Err("parse error on line 1: bare \" in non-quoted field".to_owned()),
            ',' if !quoted => all.push(String::new()),
            c => last.push(c),
        }
    }
    if quoted { Err("parse error on line 1: extraneous or missing \" in quoted-field".to_owned()) } else { Ok(all) }
}

pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// # Errors
/// What is wrong with it, in docker's words.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in fields(text.trim())? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        set(&mut mount, &key.trim().to_ascii_lowercase(), value, &field)?;
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    consistent(&mount)?;
    if mount.kind == "bind" && mount.source.starts_with('.') {
        mount.source = super::volume::absolute(&mount.source);
    }
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
    let Some(value) = value else {
        let flag = |on: bool| if on { Ok(()) } else { Err(format!("invalid field '{field}' must be a key=value pair")) };
        return match key {
            "readonly" | "ro" => {
                mount.read_only = true;
                Ok(())
            }
            "volume-nocopy" => {
                volume(mount).no_copy = true;
                Ok(())
            }
            "bind-nonrecursive" => {
                bind(mount).non_recursive = true;
                Ok(())
            }
            "bind-create-src" => {
                bind(mount).create_mountpoint = true;
                Ok(())
            }
            _ => flag(false),
        };
    };
    let truth = || form::parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"));
    match key {
        "type" => mount.kind = value.to_ascii_lowercase(),
        "source" | "src" => mount.source = value.to_owned(),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "readonly" | "ro" => mount.read_only = truth()?,
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_ascii_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = truth()?,
        "bind-recursive" => recursive(mount, value)?,
        "bind-create-src" => bind(mount).create_mountpoint = truth()?,
        "volume-nocopy" => volume(mount).no_copy = truth()?,
        "volume-subpath" => volume(mount).subpath = value.to_owned(),
        "volume-label" => label(mount, value),
        "volume-driver" => driver(mount).name = value.to_owned(),
        "volume-opt" => option(mount, value),
        "image-subpath" => mount.image_options.get_or_insert_with(ImageOptions::default).subpath = value.to_owned(),
        "tmpfs-size" => tmpfs(mount).size_bytes = form::parse_bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?,
        "tmpfs-mode" => tmpfs(mount).mode = u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?,
        _ => return Err(format!("unknown option '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(VolumeOptions::default)
}

fn driver(mount: &mut Mount) -> &mut VolumeDriver {
    volume(mount).driver_config.get_or_insert_with(VolumeDriver::default)
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default)
}

fn label(mount: &mut Mount, value: &str) {
    let (key, value) = value.split_once('=').unwrap_or((value, ""));
    volume(mount).labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

fn option(mount: &mut Mount, value: &str) {
    let (key, value) = value.split_once('=').unwrap_or((value, ""));
    driver(mount).options.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

fn recursive(mount: &mut Mount, value: &str) -> Result<(), String> {
    let options = bind(mount);
    match value {
        "enabled" => {}
        "disabled" => options.non_recursive = true,
        "writable" => options.read_only_non_recursive = true,
        "readonly" => options.read_only_force_recursive = true,
        _ => {
            return Err(format!(
                "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
            ));
        }
    }
    Ok(())
}

fn consistent(mount: &Mount) -> Result<(), String> {
    let kind = mount.kind.as_str();
    let mixed = |what: &str| Err(format!("cannot mix '{what}-*' options with mount type '{kind}'"));
    match () {
        () if mount.bind_options.is_some() && kind != "bind" => mixed("bind"),
        () if mount.volume_options.is_some() && kind != "volume" => mixed("volume"),
        () if mount.image_options.is_some() && kind != "image" => mixed("image"),
        () if mount.tmpfs_options.is_some() && kind != "tmpfs" => mixed("tmpfs"),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared").expect("parses");
        assert_eq!((mount.kind.as_str(), mount.source.as_str(), mount.target.as_str(), mount.read_only), ("bind", "/a", "/b", true));
        assert_eq!(mount.bind_options.expect("has options").propagation, "rshared");
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").expect("parses");
        let options = mount.tmpfs_options.expect("has options");
        assert_eq!((options.size_bytes, options.mode), (1 << 20, 0o1770));
        let mount = parse(r#"target=/v,source=data,"volume-opt=o=a,b",volume-nocopy"#).expect("parses");
        let options = mount.volume_options.expect("has options");
        assert!(options.no_copy && mount.kind == "volume");
        assert_eq!(options.driver_config.expect("has a driver").options.expect("has options")["o"], "a,b");
    }

    #[test]
    fn errors_are_dockers() {
        for (text, why) in [
            ("type=bind", "target is required"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("type=bind,target=/x,foo=1", "unknown option 'foo' in 'foo=1'"),
            ("type=bind,target=/x,readonly=maybe", "invalid value for readonly: maybe"),
            ("type=bind,target=/x,tmpfs-size=1m", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
