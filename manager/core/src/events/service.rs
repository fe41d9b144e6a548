//! The event service.
//!
//! An event is written in the transaction that it tells of ([`Events::record`]) and handed to readers after that transaction
//! ([`Events::publish`]). What tells of nothing durable (an attach, a resize) is announced at once and written with the next transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use jiff::Timestamp;
use rcontainerd_store::Store;
use rcontainerd_store::metadata::{Table, WriteTx};
use rcontainerd_types::{Error, ErrorKind, Result};
use tokio::sync::broadcast;

use super::{Event, EventKind, EventQuery, EventStream, NewEvent};
use crate::filters::Filters;

const EVENTS: Table<Event> = Table::new("docker.events", 1);
/// Events kept for `since`; older ones are forgotten.
const KEPT: u64 = 1000;
/// Events that a slow reader may lag behind before it is ended with an error.
const QUEUE: usize = 1024;
const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];
/// Kinds of objects that there are none of here, nor ever an event.
const ABSENT: [&str; 5] = ["config", "node", "plugin", "secret", "service"];

/// Cheap to clone.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    sender: broadcast::Sender<Event>,
}

struct State {
    next: u64,
    /// Announced, to be written with the next transaction.
    unwritten: Vec<Event>,
    /// The last [`KEPT`] events, oldest first.
    recent: VecDeque<Event>,
}

impl Events {
    /// Goes on with the numbering where the store's last event ended.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn open(store: &Store) -> Result<Self> {
        let rows = store.metadata().read(|tx| tx.list(EVENTS))?;
        let mut recent: VecDeque<Event> = rows.into_iter().map(|(_, event)| event).collect();
        recent.make_contiguous().sort_by_key(|event| event.sequence);
        let next = recent.back().map_or(1, |event| event.sequence + 1);
        let (sender, _) = broadcast::channel(QUEUE);
        Ok(Self { inner: Arc::new(Inner { state: Mutex::new(State { next, unwritten: Vec::new(), recent }), sender }) })
    }

    /// Numbers an event and writes it in the caller's transaction; [`Self::publish`] it once that is committed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn record(&self, tx: &WriteTx<'_>, event: NewEvent) -> Result<Event> {
        let mut state = self.lock();
        let event = state.number(event);
        for event in std::mem::take(&mut state.unwritten).iter().chain([&event]) {
            tx.put(EVENTS, &row(event.sequence), event)?;
            tx.delete(EVENTS, &row(event.sequence.saturating_sub(KEPT)))?;
        }
        Ok(event)
    }

    /// Hands a recorded event to the readers.
    pub fn publish(&self, event: Event) {
        let mut state = self.lock();
        state.keep(event.clone());
        // No receiver is no failure: nobody listens.
        drop(self.inner.sender.send(event));
    }

    /// Numbers and hands out an event that tells of nothing durable.
    pub fn announce(&self, event: NewEvent) {
        let mut state = self.lock();
        let event = state.number(event);
        state.unwritten.push(event.clone());
        if state.unwritten.len() as u64 > KEPT {
            state.unwritten.remove(0);
        }
        state.keep(event.clone());
        drop(self.inner.sender.send(event));
    }

    pub fn listeners(&self) -> usize {
        self.inner.sender.receiver_count()
    }

    /// Past events since `query.since`, then those that come, until `query.until`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    pub async fn subscribe(&self, query: EventQuery) -> Result<EventStream> {
        query.filters.accept(FILTERS)?;
        if let (Some(since), Some(until)) = (query.since, query.until)
            && since > until
        {
            return Err(Error::invalid(format!("`since` time ({since}) cannot be after `until` time ({until})")));
        }
        let (past, receiver) = {
            let state = self.lock();
            let since = |event: &&Event| {
                query.since.is_some_and(|since| event.time >= since) && query.until.is_none_or(|until| event.time <= until)
            };
            (state.recent.iter().filter(since).cloned().collect::<VecDeque<_>>(), self.inner.sender.subscribe())
        };
        let deadline = query.until.map(|until| tokio::time::Instant::now() + remaining(until));
        let reader = Reader { past, receiver, deadline, filters: query.filters };
        Ok(Box::pin(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next().await {
                Some(Ok(event)) => Some((Ok(event), Some(reader))),
                Some(Err(err)) => Some((Err(err), None)),
                None => None,
            }
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self, event: NewEvent) -> Event {
        let sequence = self.next;
        self.next += 1;
        Event { sequence, time: Timestamp::now(), kind: event.kind, action: event.action, actor: event.actor, attributes: event.attributes }
    }

    fn keep(&mut self, event: Event) {
        self.recent.push_back(event);
        if self.recent.len() as u64 > KEPT {
            self.recent.pop_front();
        }
    }
}

struct Reader {
    past: VecDeque<Event>,
    receiver: broadcast::Receiver<Event>,
    deadline: Option<tokio::time::Instant>,
    filters: Filters,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            let event = match self.past.pop_front() {
                Some(event) => Ok(event),
                None => self.receive().await?,
            };
            match event {
                Ok(event) if !matches(&self.filters, &event) => {}
                other => return Some(other),
            }
        }
    }

    async fn receive(&mut self) -> Option<Result<Event>> {
        let received = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, self.receiver.recv()).await.ok()?,
            None => self.receiver.recv().await,
        };
        match received {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let what = format!("event stream ended: this reader is {missed} events behind; ask again with `since`");
                Some(Err(Error::new(ErrorKind::ResourceExhausted, what)))
            }
        }
    }
}

fn remaining(until: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()
}

fn row(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// Docker's rules: values of one key are alternatives, keys add up; `container=x` takes ids, id prefixes and names.
fn matches(filters: &Filters, event: &Event) -> bool {
    let named = |wanted: &str| {
        event.actor == wanted || event.actor.starts_with(wanted) || event.attributes.get("name").is_some_and(|name| name == wanted)
    };
    let object = |key: &str, kind: EventKind| !filters.has(key) || (event.kind == kind && filters.any(key, named));
    let image = |wanted: &str| {
        let attribute =
            |key: &str| event.attributes.get(key).is_some_and(|value| value == wanted || value.split(':').next() == Some(wanted));
        named(wanted) || attribute("image") || attribute("name")
    };
    let action = |wanted: &str| event.action == wanted || event.action.split(':').next() == Some(wanted);
    !ABSENT.iter().any(|key| filters.has(key))
        && filters.any("type", |kind| kind == event.kind.as_str())
        && filters.any("event", action)
        && filters.any("scope", |scope| scope == "local")
        && filters.labels(&event.attributes)
        && object("container", EventKind::Container)
        && object("volume", EventKind::Volume)
        && object("network", EventKind::Network)
        && object("daemon", EventKind::Daemon)
        && filters.any("image", image)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::StreamExt;

    use super::*;

    fn new(action: &str, name: &str) -> NewEvent {
        NewEvent {
            kind: EventKind::Container,
            action: action.into(),
            actor: "abc123".into(),
            attributes: BTreeMap::from([("name".into(), name.into())]),
        }
    }

    fn write(store: &Store, events: &Events, event: NewEvent) {
        let event = store.metadata().write(|tx| events.record(tx, event)).expect("write");
        events.publish(event);
    }

    #[tokio::test]
    async fn numbers_go_on_after_a_restart_and_the_past_is_replayed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("store");
        let events = Events::open(&store).expect("events");
        events.announce(new("attach", "a"));
        write(&store, &events, new("start", "a"));
        drop(events);
        let events = Events::open(&store).expect("events");
        write(&store, &events, new("die", "a"));
        let query = EventQuery { since: Some(Timestamp::UNIX_EPOCH), until: Some(Timestamp::now()), filters: Filters::default() };
        let seen: Vec<Event> = events.subscribe(query).await.expect("subscribe").map(|event| event.expect("event")).collect().await;
        let told: Vec<(u64, &str)> = seen.iter().map(|event| (event.sequence, event.action.as_str())).collect();
        assert_eq!(told, [(1, "attach"), (2, "start"), (3, "die")]);
    }

    #[tokio::test]
    async fn a_live_reader_sees_only_what_it_asked_for() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("store");
        let events = Events::open(&store).expect("events");
        let filters = Filters(BTreeMap::from([("event".into(), vec!["die".into()]), ("container".into(), vec!["a".into()])]));
        let mut stream = events.subscribe(EventQuery { filters, ..EventQuery::default() }).await.expect("subscribe");
        for event in [new("start", "a"), new("die", "b"), new("die", "a")] {
            let mut event = event;
            event.actor = if event.attributes["name"] == "b" { "other".into() } else { event.actor };
            events.announce(event);
        }
        let event = stream.next().await.expect("one").expect("event");
        assert_eq!((event.action.as_str(), event.attributes["name"].as_str()), ("die", "a"));
    }

    #[tokio::test]
    async fn an_unknown_filter_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let events = Events::open(&Store::open(dir.path()).expect("store")).expect("events");
        let filters = Filters(BTreeMap::from([("colour".into(), vec!["red".into()])]));
        assert!(events.subscribe(EventQuery { filters, ..EventQuery::default() }).await.is_err());
    }
}
