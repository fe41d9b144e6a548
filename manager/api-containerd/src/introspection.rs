//! What the server is made of, in containerd's terms: one "plugin" per service and snapshotter that there really is.

use std::collections::HashMap;

use proto_containerd::services::introspection::v1::introspection_server::Introspection;
use proto_containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use proto_containerd::types::Platform as WirePlatform;
use rcontainerd_types::Platform;
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, status, unimplemented};
use crate::filter::Filters;

const SERVICES: [&str; 10] =
    ["containers", "content", "events", "images", "introspection", "leases", "namespaces", "snapshots", "tasks", "version"];

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

    async fn plugin_info(&self, _request: Request<PluginInfoRequest>) -> Answer<PluginInfoResponse> {
        unimplemented("PluginInfo")
    }
}

impl Service {
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
        plugins.push(Plugin { platforms: vec![host], ..plugin("io.containerd.runtime.v2", "task") });
        plugins.extend(SERVICES.iter().map(|name| plugin("io.containerd.grpc.v1", name)));
        plugins
    }
}

/// The inode of our pid namespace.
fn pid_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}
