//! What the server is made of, in containerd's terms: one "plugin" per service and snapshotter that there really is.

use std::collections::HashMap;

use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::services::introspection::v1::introspection_server::Introspection;
use proto_containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use proto_containerd::types::{Platform as WirePlatform, RuntimeInfo, RuntimeRequest};
use rcontainerd_types::{Platform, Result};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::{Answer, status};
use crate::filter::Filters;
use crate::streaming::decode;

const RUNTIMES: &str = "io.containerd.runtime.v2";
const SERVICES: [&str; 14] = [
    "containers",
    "content",
    "diff",
    "events",
    "images",
    "introspection",
    "leases",
    "namespaces",
    "sandboxes",
    "snapshots",
    "streaming",
    "tasks",
    "transfer",
    "version",
];

#[tonic::async_trait]
impl Introspection for Service {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Answer<PluginsResponse> {
        let filters = Filters::parse(&request.get_ref().filters).map_err(status)?;
        let mut plugins = self.plugins();
        plugins.retain(|plugin| {
            filters.pass(|path| match path {
                ["type"] => Some(plugin.r#type.clone()),
                ["id"] => Some(plugin.id.clone()),
                _ => None,
            })
        });
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn server(&self, _request: Request<()>) -> Answer<ServerResponse> {
        let info = self.core.system.info().await.map_err(status)?;
        Ok(Response::new(ServerResponse {
            uuid: info.id,
            pid: u64::from(std::process::id()),
            pidns: pid_namespace().unwrap_or(0),
            deprecations: Vec::new(),
        }))
    }

    /// Of the plugin for runtimes, `options` ask about one of them (`ctr plugins inspect-runtime`).
    async fn plugin_info(&self, request: Request<PluginInfoRequest>) -> Answer<PluginInfoResponse> {
        let request = request.into_inner();
        let found = self.plugins().into_iter().find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id);
        let plugin = found.ok_or_else(|| Status::not_found(format!("plugin {}.{} not found", request.r#type, request.id)))?;
        let extra = match request.options {
            Some(options) if plugin.r#type == RUNTIMES => Some(self.runtime_info(&options).await.map_err(status)?),
            Some(_) => return Err(Status::invalid_argument(format!("plugin {}.{} takes no options", request.r#type, request.id))),
            None => None,
        };
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin), extra }))
    }
}

impl Service {
    async fn runtime_info(&self, options: &Any) -> Result<Any> {
        let wanted: RuntimeRequest = decode(options)?;
        let options = wanted.options.map(|any| any.encode_to_vec()).unwrap_or_default();
        let value = self.core.primitive_tasks.runtime_info(&wanted.runtime_path, &options).await?;
        Ok(Any { type_url: RuntimeInfo::full_name(), value })
    }

    fn plugins(&self) -> Vec<Plugin> {
        let host = Platform::host();
        let host = WirePlatform {
            os: host.os,
            architecture: host.architecture,
            variant: host.variant.unwrap_or_default(),
            os_version: String::new(),
            os_features: Vec::new(),
        };
        let plugin = |kind: &str, id: &str| Plugin { r#type: kind.to_owned(), id: id.to_owned(), ..Plugin::default() };
        let mut plugins = vec![plugin("io.containerd.content.v1", "content"), plugin("io.containerd.metadata.v1", "redb")];
        for name in self.core.store.snapshotter_names() {
            let root = self.core.store.root().join("snapshots").join(name);
            plugins.push(Plugin {
                platforms: vec![host.clone()],
                exports: HashMap::from([("root".to_owned(), root.display().to_string())]),
                ..plugin("io.containerd.snapshotter.v1", name)
            });
        }
        plugins.push(Plugin { platforms: vec![host], ..plugin(RUNTIMES, "task") });
        plugins.extend(SERVICES.iter().map(|name| plugin("io.containerd.grpc.v1", name)));
        plugins
    }
}

/// The inode of our pid namespace.
fn pid_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}
