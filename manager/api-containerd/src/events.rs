//! `ctr events`: what shims, clients and the manager itself tell.

use futures_util::stream::{self, BoxStream};
use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::services::events::v1 as api;
use proto_containerd::services::events::v1::events_server::Events;
use proto_containerd::types::Envelope;
use rcontainerd_core::primitives::task::{EventItem, TaskEvent};
use rcontainerd_types::{Error, Result, id};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::{Answer, namespace, status, system_time};
use crate::filter::Filters;

fn wire(event: TaskEvent) -> Envelope {
    let (type_url, value) = event.raw;
    Envelope { timestamp: system_time(event.time), namespace: event.namespace, topic: event.topic, event: Some(Any { type_url, value }) }
}

impl Service {
    /// Tells of a change to an object of the manager.
    pub(crate) fn announce<M: Message + Name>(&self, namespace: &str, topic: &str, event: &M) {
        self.core.tasks.publish(namespace, topic, (M::full_name(), event.encode_to_vec()), None);
    }
}

/// A path of identifiers, such as `/tasks/exit`.
fn check_topic(topic: &str) -> Result<()> {
    let parts = topic.strip_prefix('/').ok_or_else(|| Error::invalid(format!("topic {topic:?} must start with '/'")))?;
    parts.split('/').try_for_each(|part| id::validate_identifier(part).map_err(|err| err.context(format!("topic {topic:?}"))))
}

fn given(event: Option<Any>) -> Result<(String, Vec<u8>)> {
    event.map(|any| (any.type_url, any.value)).ok_or_else(|| Error::invalid("no event in the request"))
}

#[tonic::async_trait]
impl Events for Service {
    async fn publish(&self, request: Request<api::PublishRequest>) -> Answer<()> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        check_topic(&request.topic).map_err(status)?;
        self.core.tasks.publish(&namespace, &request.topic, given(request.event).map_err(status)?, None);
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<api::ForwardRequest>) -> Answer<()> {
        let envelope = request.into_inner().envelope.ok_or_else(|| Status::invalid_argument("no envelope in the request"))?;
        id::validate_identifier(&envelope.namespace).and_then(|()| check_topic(&envelope.topic)).map_err(status)?;
        let time = envelope.timestamp.and_then(|time| time.try_into().ok());
        let time = time.ok_or_else(|| Status::invalid_argument("an event on its way needs the time that it happened"))?;
        self.core.tasks.publish(&envelope.namespace, &envelope.topic, given(envelope.event).map_err(status)?, Some(time));
        Ok(Response::new(()))
    }

    type SubscribeStream = BoxStream<'static, Result<Envelope, Status>>;

    async fn subscribe(&self, request: Request<api::SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        let filters = Filters::parse(&request.get_ref().filters).map_err(status)?;
        let events = self.core.tasks.subscribe();
        let stream = stream::unfold((events, filters), |(mut events, filters)| async move {
            loop {
                let item = match events.next().await? {
                    EventItem::Event(event) if passes(&filters, &event) => Ok(wire(event)),
                    EventItem::Event(_) => continue,
                    // A gap is told, not hidden: the stream ends with it.
                    EventItem::Lagged(missed) => Err(Status::data_loss(format!("{missed} events were lost: read faster"))),
                };
                return Some((item, (events, filters)));
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn passes(filters: &Filters, event: &TaskEvent) -> bool {
    filters.pass(|path| match path {
        ["topic"] => Some(event.topic.clone()),
        ["namespace"] => Some(event.namespace.clone()),
        ["event", field @ ..] => crate::event_fields::value(&event.raw.0, &event.raw.1, field),
        _ => None,
    })
}
