//! `ctr events`: what shims tell. Clients may not publish: nothing here would be the wiser for it.

use futures_util::stream::{self, BoxStream};
use prost_types::Any;
use proto_containerd::services::events::v1 as api;
use proto_containerd::services::events::v1::events_server::Events;
use proto_containerd::types::Envelope;
use rcontainerd_core::primitives::task::{EventItem, TaskEvent};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::{Answer, status, system_time, unimplemented};
use crate::filter::Filters;

fn wire(event: TaskEvent) -> Envelope {
    let (type_url, value) = event.raw;
    Envelope { timestamp: system_time(event.time), namespace: event.namespace, topic: event.topic, event: Some(Any { type_url, value }) }
}

#[tonic::async_trait]
impl Events for Service {
    async fn publish(&self, _request: Request<api::PublishRequest>) -> Answer<()> {
        unimplemented("publishing events")
    }

    async fn forward(&self, _request: Request<api::ForwardRequest>) -> Answer<()> {
        unimplemented("forwarding events")
    }

    type SubscribeStream = BoxStream<'static, Result<Envelope, Status>>;

    async fn subscribe(&self, request: Request<api::SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        let filters = Filters::parse(&request.get_ref().filters).map_err(status)?;
        let events = self.core.tasks.subscribe();
        let stream = stream::unfold((events, filters), |(mut events, filters)| async move {
            loop {
                let item = match events.next().await? {
                    EventItem::Event(event) => {
                        let passes = filters.pass(|path| match path {
                            ["topic"] => Some(event.topic.clone()),
                            ["namespace"] => Some(event.namespace.clone()),
                            _ => None,
                        });
                        if !passes {
                            continue;
                        }
                        Ok(wire(event))
                    }
                    // A gap is told, not hidden: the stream ends with it.
                    EventItem::Lagged(missed) => Err(Status::data_loss(format!("{missed} events were lost: read faster"))),
                };
                return Some((item, (events, filters)));
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
