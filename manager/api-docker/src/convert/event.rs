//! Events as `docker events` reads them.

use proto_docker::events::{Actor, Event as EventDto};
use rcontainerd_core::events::{Event, EventKind};

pub(crate) fn event(event: &Event) -> EventDto {
    let legacy = matches!(event.kind, EventKind::Container | EventKind::Image);
    let legacy = |text: &str| if legacy { text.to_owned() } else { String::new() };
    EventDto {
        status: legacy(&event.action),
        id: legacy(&event.actor),
        from: match event.kind {
            EventKind::Container => event.attributes.get("image").cloned().unwrap_or_default(),
            _ => String::new(),
        },
        kind: event.kind.as_str().to_owned(),
        action: event.action.clone(),
        actor: Actor { id: event.actor.clone(), attributes: event.attributes.clone() },
        scope: "local".to_owned(),
        time: event.time.as_second(),
        time_nano: i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    }
}
