//! `ctr version`

use proto_containerd::services::version::v1::{VersionResponse, version_server::Version};
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, status};

#[tonic::async_trait]
impl Version for Service {
    async fn version(&self, _request: Request<()>) -> Answer<VersionResponse> {
        let version = self.core.system.version().await.map_err(status)?;
        Ok(Response::new(VersionResponse { version: version.version, revision: version.git_commit }))
    }
}
