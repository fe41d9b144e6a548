//! The runtime's options, in the forms in which clients send them.
//!
//! Those that know us send `containerd.runc.v1.Options`, as for containerd's own shim. Clients of containerd 1.6 and 1.7 set single ones of
//! them, such as the owner of the streams, in `containerd.linux.runc.CreateOptions`. A kubelet's containerd and dockerd know only that one
//! by name: for other runtimes they send what their configuration says as TOML, `runtimeoptions.v1.Options`; its keys are the fields' names.

use std::borrow::Cow;

use prost::Message;
use prost_types::Any;
use proto_containerd::containerd::linux::runc::CreateOptions;
use proto_containerd::runc::v1::Options;
use proto_containerd::runtimeoptions::v1::Options as Generic;
use shim_ttrpc::{Code, Status};

const RUNC: &str = "containerd.runc.v1.Options";
const GENERIC: &str = "runtimeoptions.v1.Options";
const LEGACY: &str = "containerd.linux.runc.CreateOptions";
/// What a client makes of no options at all.
const EMPTY: &str = "google.protobuf.Empty";

/// A message's name: old and new type URLs differ in what stands before it.
fn name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether it is one of the forms.
pub fn is_options(any: &Any) -> bool {
    [RUNC, GENERIC, LEGACY].contains(&name(any))
}

/// # Errors
/// `InvalidArgument` for another message, or one that cannot be understood.
pub fn decode(options: Option<&Any>) -> Result<Options, Status> {
    let Some(any) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
    let decoded = match name(any) {
        EMPTY => Ok(Options::default()),
        RUNC => Options::decode(any.value.as_slice()).map_err(|err| err.to_string()),
        GENERIC => Generic::decode(any.value.as_slice()).map_err(|err| err.to_string()).and_then(|generic| from_generic(&generic)),
        LEGACY => CreateOptions::decode(any.value.as_slice()).map(from_legacy).map_err(|err| err.to_string()),
        other => Err(format!("type {other:?} is not understood, expected {RUNC} or {GENERIC}")),
    };
    decoded.map_err(|why| Status::new(Code::InvalidArgument, format!("runtime options: {why}")))
}

fn from_legacy(legacy: CreateOptions) -> Options {
    let CreateOptions { no_pivot_root, no_new_keyring, shim_cgroup, io_uid, io_gid } = legacy;
    Options { no_pivot_root, no_new_keyring, shim_cgroup, io_uid, io_gid, ..Options::default() }
}

fn from_generic(generic: &Generic) -> Result<Options, String> {
    let body = match generic.config_path.as_str() {
        "" => Cow::Borrowed(generic.config_body.as_slice()),
        path => Cow::Owned(std::fs::read(path).map_err(|err| format!("read {path}: {err}"))?),
    };
    let text = std::str::from_utf8(&body).map_err(|_| "the configuration is not UTF-8".to_owned())?;
    let mut options = Options::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is no KEY = VALUE"))?;
        set(&mut options, key.trim(), value.trim())?;
    }
    Ok(options)
}

fn set(options: &mut Options, key: &str, value: &str) -> Result<(), String> {
    let switch = || value.parse::<bool>().map_err(|_| format!("{key} is {value}, expected true or false"));
    let number = || value.parse::<u32>().map_err(|_| format!("{key} is {value}, expected a number"));
    match key {
        "NoPivotRoot" => options.no_pivot_root = switch()?,
        "NoNewKeyring" => options.no_new_keyring = switch()?,
        "SystemdCgroup" => options.systemd_cgroup = switch()?,
        "ShimCgroup" => options.shim_cgroup = string(key, value)?,
        "BinaryName" => options.binary_name = string(key, value)?,
        "Root" => options.root = string(key, value)?,
        "IoUid" => options.io_uid = number()?,
        "IoGid" => options.io_gid = number()?,
        // For containerd itself, and for checkpoints, which are refused when they are asked for.
        "TypeUrl" | "ConfigPath" | "CriuImagePath" | "CriuWorkPath" => {}
        _ => {
            return Err(format!(
                "{key} is not known: expected BinaryName, Root, SystemdCgroup, ShimCgroup, NoPivotRoot, NoNewKeyring, IoUid or IoGid"
            ));
        }
    }
    Ok(())
}

/// A TOML string on one line; escapes, which no path needs, are refused.
fn string(key: &str, value: &str) -> Result<String, String> {
    let inner = [('\'', '\''), ('"', '"')].iter().find_map(|(open, close)| value.strip_prefix(*open)?.strip_suffix(*close));
    let plain = inner.filter(|inner| !inner.contains(['\\', '\'', '"']));
    plain.map(str::to_owned).ok_or_else(|| format!("{key} is {value}, expected a string in quotes, without escapes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, message: &impl Message) -> Any {
        Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
    }

    fn generic(body: &str) -> Result<Options, Status> {
        decode(Some(&any(GENERIC, &Generic { config_body: body.into(), ..Generic::default() })))
    }

    #[test]
    fn every_form_is_understood() {
        let options = Options { binary_name: "/usr/sbin/runc".into(), systemd_cgroup: true, ..Options::default() };
        for url in [RUNC, "types.containerd.io/containerd.runc.v1.Options"] {
            assert_eq!(decode(Some(&any(url, &options))).expect(url), options);
        }
        let body = "# of the runtime\nBinaryName = \"/usr/sbin/runc\"\n\nSystemdCgroup = true\n";
        assert_eq!(generic(body).expect("TOML"), options);
        assert_eq!(generic("BinaryName = '/usr/sbin/runc'\nSystemdCgroup = true").expect("TOML"), options);
        let legacy = CreateOptions { io_uid: 7, no_new_keyring: true, ..CreateOptions::default() };
        let options = Options { io_uid: 7, no_new_keyring: true, ..Options::default() };
        assert_eq!(decode(Some(&any(LEGACY, &legacy))).expect("legacy"), options);
        for none in [None, Some(Any::default()), Some(any(EMPTY, &()))] {
            assert_eq!(decode(none.as_ref()).expect("none"), Options::default());
        }
    }

    #[test]
    fn a_configuration_file_is_read_where_it_is() {
        let file = std::env::temp_dir().join(format!("shim-options-{}", std::process::id()));
        std::fs::write(&file, "Root = '/r'\nIoUid = 7\n").expect("file");
        let message = Generic { config_path: file.display().to_string(), ..Generic::default() };
        let options = decode(Some(&any(GENERIC, &message))).expect("options");
        assert_eq!((options.root.as_str(), options.io_uid), ("/r", 7));
        std::fs::remove_file(&file).expect("clean");
        assert!(decode(Some(&any(GENERIC, &message))).expect_err("gone").message.contains(&message.config_path));
    }

    #[test]
    fn what_is_not_understood_is_told_by_name() {
        for (body, word) in [("Colour = 'red'", "Colour"), ("SystemdCgroup = yes", "SystemdCgroup"), ("Root = /r", "Root"), ("[a]", "[a]")]
        {
            assert!(generic(body).expect_err(body).message.contains(word), "{body}");
        }
        assert!(decode(Some(&any("other.Options", &()))).expect_err("other").message.contains("other.Options"));
    }
}
