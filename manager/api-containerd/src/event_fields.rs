//! The text fields of events that filters can ask for (`event.container_id==x`), by name.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Event type → its text fields and their numbers.
const FIELDS: &[(&str, &[(&str, u32)])] = &[
    ("containerd.events.TaskCreate", &[("container_id", 1), ("bundle", 2), ("checkpoint", 5)]),
    ("containerd.events.TaskStart", &[("container_id", 1)]),
    ("containerd.events.TaskDelete", &[("container_id", 1), ("id", 5)]),
    ("containerd.events.TaskExit", &[("container_id", 1), ("id", 2)]),
    ("containerd.events.TaskOOM", &[("container_id", 1)]),
    ("containerd.events.TaskExecAdded", &[("container_id", 1), ("exec_id", 2)]),
    ("containerd.events.TaskExecStarted", &[("container_id", 1), ("exec_id", 2)]),
    ("containerd.events.TaskPaused", &[("container_id", 1)]),
    ("containerd.events.TaskResumed", &[("container_id", 1)]),
    ("containerd.events.TaskCheckpointed", &[("container_id", 1), ("checkpoint", 2)]),
    ("containerd.events.ContainerCreate", &[("id", 1), ("image", 2)]),
    ("containerd.events.ContainerUpdate", &[("id", 1), ("image", 2), ("snapshot_key", 4)]),
    ("containerd.events.ContainerDelete", &[("id", 1)]),
    ("containerd.events.ContentCreate", &[("digest", 1)]),
    ("containerd.events.ContentDelete", &[("digest", 1)]),
    ("containerd.events.NamespaceCreate", &[("name", 1)]),
    ("containerd.events.NamespaceUpdate", &[("name", 1)]),
    ("containerd.events.NamespaceDelete", &[("name", 1)]),
    ("containerd.events.SnapshotPrepare", &[("key", 1), ("parent", 2), ("snapshotter", 5)]),
    ("containerd.events.SnapshotCommit", &[("key", 1), ("name", 2), ("snapshotter", 5)]),
    ("containerd.events.SnapshotRemove", &[("key", 1), ("snapshotter", 5)]),
    ("containerd.services.images.v1.ImageCreate", &[("name", 1)]),
    ("containerd.services.images.v1.ImageUpdate", &[("name", 1)]),
    ("containerd.services.images.v1.ImageDelete", &[("name", 1)]),
];

/// The value of a field; `None` for an event or field that is not in the table, or is not set.
pub(crate) fn value(type_url: &str, message: &[u8], path: &[&str]) -> Option<String> {
    let [field] = path else { return None };
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let (_, fields) = FIELDS.iter().find(|(known, _)| *known == name)?;
    let (_, number) = fields.iter().find(|(known, _)| known == field)?;
    text(message, *number)
}

fn text(mut message: &[u8], wanted: u32) -> Option<String> {
    while !message.is_empty() {
        let (number, kind) = decode_key(&mut message).ok()?;
        if number == wanted && kind == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            return String::from_utf8(message.get(..length)?.to_vec()).ok();
        }
        skip_field(kind, number, &mut message, DecodeContext::default()).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};
    use proto_containerd::events::{TaskExit, TaskOom};

    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let exit = TaskExit { container_id: "c".into(), id: "e".into(), pid: 3, exit_status: 4, exited_at: None };
        let (name, bytes) = (TaskExit::full_name(), exit.encode_to_vec());
        assert_eq!(value(&name, &bytes, &["container_id"]).as_deref(), Some("c"));
        assert_eq!(value(&format!("types.x/{name}"), &bytes, &["id"]).as_deref(), Some("e"));
        assert_eq!(value(&name, &bytes, &["pid"]), None);
        assert_eq!(value(&name, &bytes[..1], &["id"]), None);
        assert!(FIELDS.iter().any(|(known, _)| *known == TaskOom::full_name()));
    }
}
