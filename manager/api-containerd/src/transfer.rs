//! `ctr images pull`, `import`, `export`, `tag` as containerd's newer clients ask for them: the server does the work, streams carry what
//! comes from and goes to the client.

use std::path::PathBuf;

use prost::Name;
use prost_types::Any;
use proto_containerd::services::transfer::v1 as api;
use proto_containerd::services::transfer::v1::transfer_server::Transfer;
use proto_containerd::types::Platform as WirePlatform;
use proto_containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, ImageExportStream, ImageImportStream, ImageStore, OciRegistry, Progress, RegistryResolver,
};
use rcontainerd_core::images::{Credentials, LayerStep, PullEvent};
use rcontainerd_core::primitives::transfer::PullInto;
use rcontainerd_types::{Error, Platform, Result};
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, labels, namespace, signed, status};
use crate::streaming::{Channel, decode};

/// One end of a transfer.
enum End {
    Registry(OciRegistry),
    Store(ImageStore),
    Import(ImageImportStream),
    Export(ImageExportStream),
}

impl End {
    fn of(any: Option<Any>, what: &str) -> Result<Self> {
        let any = any.ok_or_else(|| Error::invalid(format!("the transfer has no {what}")))?;
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name == OciRegistry::full_name() {
            return decode(&any).map(Self::Registry);
        }
        if name == ImageStore::full_name() {
            return decode(&any).map(Self::Store);
        }
        if name == ImageImportStream::full_name() {
            return decode(&any).map(Self::Import);
        }
        if name == ImageExportStream::full_name() {
            return decode(&any).map(Self::Export);
        }
        Err(Error::unsupported(format!("transfer: {what} of type {name:?} is not supported")))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Registry(_) => "a registry",
            Self::Store(_) => "the image store",
            Self::Import(_) => "an archive to import",
            Self::Export(_) => "an archive to export",
        }
    }
}

/// Where progress goes, if the client wants to know.
struct Feed(Option<Channel>);

impl Feed {
    async fn tell(&mut self, progress: Progress) {
        if let Some(channel) = &self.0
            && channel.send(&progress).await.is_err()
        {
            // The client looks no more; its transfer goes on.
            self.0 = None;
        }
    }

    async fn status(&mut self, event: String) {
        self.tell(Progress { event, ..Progress::default() }).await;
    }
}

#[tonic::async_trait]
impl Transfer for Service {
    async fn transfer(&self, request: Request<api::TransferRequest>) -> Answer<()> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let progress = request.options.map(|options| options.progress_stream).filter(|name| !name.is_empty());
        let feed = progress.map(|name| self.streams.take(&namespace, &name)).transpose().map_err(status)?;
        let ends = End::of(request.source, "source").and_then(|source| Ok((source, End::of(request.destination, "destination")?)));
        let (source, destination) = ends.map_err(status)?;
        let done = match (source, destination) {
            (End::Registry(registry), End::Store(store)) => self.pull(&namespace, registry, store, Feed(feed)).await,
            (End::Store(source), End::Store(destination)) => self.core.transfers.tag(&namespace, source.name, names(destination)).await,
            (End::Import(stream), End::Store(store)) => self.import(&namespace, &stream, &store, Feed(feed)).await,
            (End::Store(store), End::Export(stream)) => self.export(&namespace, store, &stream, Feed(feed)).await,
            (source, destination) => {
                Err(Error::unsupported(format!("transfer from {} to {} is not supported", source.name(), destination.name())))
            }
        };
        done.map(Response::new).map_err(status)
    }
}

/// The names that a store end stands for.
fn names(store: ImageStore) -> Vec<String> {
    let extra = store.extra_references.into_iter().map(|reference| reference.name);
    std::iter::once(store.name).chain(extra).filter(|name| !name.is_empty()).collect()
}

impl Service {
    async fn pull(&self, namespace: &str, registry: OciRegistry, store: ImageStore, mut feed: Feed) -> Result<()> {
        let request = self.pull_request(namespace, registry, store).await?;
        feed.status(format!("Resolving from OCI Registry ({})", request.reference)).await;
        let mut pull = self.core.transfers.pull(&request)?;
        while let Some(event) = pull.next().await {
            if let Some(progress) = progress_of(event) {
                feed.tell(progress).await;
            }
        }
        pull.finish().await?;
        self.core.transfers.name(&request).await?;
        feed.status(format!("Completed pull from OCI Registry ({})", request.reference)).await;
        Ok(())
    }

    async fn pull_request(&self, namespace: &str, registry: OciRegistry, store: ImageStore) -> Result<PullInto> {
        let resolver = registry.resolver.unwrap_or_default();
        refuse_unknown(&resolver)?;
        let credentials = match resolver.auth_stream.as_str() {
            "" => Credentials::Anonymous,
            stream => ask_credentials(self.streams.take(namespace, stream)?, &registry.reference).await?,
        };
        Ok(PullInto {
            namespace: namespace.to_owned(),
            reference: registry.reference,
            platform: platform(&store.platforms)?,
            labels: labels(store.labels.clone()),
            names: names(store),
            credentials,
            plain_http: resolver.default_scheme == "http",
            host_dir: Some(PathBuf::from(resolver.host_dir)).filter(|dir| !dir.as_os_str().is_empty()),
        })
    }

    async fn import(&self, namespace: &str, stream: &ImageImportStream, store: &ImageStore, mut feed: Feed) -> Result<()> {
        if stream.force_compress {
            return Err(Error::unsupported("compressing layers on import is not supported: they are kept as they are"));
        }
        platform(&store.platforms)?;
        feed.status("Importing".to_owned()).await;
        let archive = self.streams.take(namespace, &stream.stream)?;
        for image in self.core.transfers.import(namespace, archive.reader()).await? {
            let name = image.name.map_or_else(|| image.id.to_string(), |name| name.to_string());
            feed.tell(Progress { event: "saved".to_owned(), name, ..Progress::default() }).await;
        }
        feed.status("Completed import".to_owned()).await;
        Ok(())
    }

    async fn export(&self, namespace: &str, store: ImageStore, stream: &ImageExportStream, mut feed: Feed) -> Result<()> {
        if stream.skip_compatibility_manifest || stream.skip_non_distributable {
            return Err(Error::unsupported("archives are written whole: leaving parts out is not supported"));
        }
        feed.status("Exporting".to_owned()).await;
        let archive = self.streams.take(namespace, &stream.stream)?;
        self.core.transfers.export(namespace, names(store), archive.writer()).await?;
        feed.status("Completed export".to_owned()).await;
        Ok(())
    }
}

/// What we would have to leave out is refused.
fn refuse_unknown(resolver: &RegistryResolver) -> Result<()> {
    if let Some(header) = resolver.headers.keys().next() {
        return Err(Error::unsupported(format!("pull with an own header ({header}) is not supported")));
    }
    if resolver.http_debug != 0 {
        return Err(Error::unsupported("dumping a pull's HTTP traffic is not supported: use the client's local mode"));
    }
    Ok(())
}

/// One platform at most: the host's, unless said.
fn platform(wanted: &[WirePlatform]) -> Result<Option<Platform>> {
    match wanted {
        [] => Ok(None),
        [one] => Ok(Some(Platform {
            os: one.os.clone(),
            architecture: one.architecture.clone(),
            variant: (!one.variant.is_empty()).then(|| one.variant.clone()),
        })),
        several => Err(Error::unsupported(format!("{} platforms in one transfer are not supported: name one", several.len()))),
    }
}

async fn ask_credentials(mut channel: Channel, reference: &str) -> Result<Credentials> {
    let host = reference.split('/').next().unwrap_or_default().to_owned();
    channel.send(&AuthRequest { host, reference: reference.to_owned(), wwwauthenticate: Vec::new() }).await?;
    let Some(answer) = channel.receive::<AuthResponse>().await? else { return Ok(Credentials::Anonymous) };
    match answer.auth_type() {
        AuthType::None => Ok(Credentials::Anonymous),
        AuthType::Credentials => Ok(Credentials::Basic { username: answer.username, password: answer.secret }),
        AuthType::Refresh => Ok(Credentials::IdentityToken(answer.secret)),
        AuthType::Header => match answer.secret.strip_prefix("Bearer ") {
            Some(token) => Ok(Credentials::RegistryToken(token.to_owned())),
            None => Err(Error::unsupported("credentials as a ready-made header are only supported as \"Bearer TOKEN\"")),
        },
    }
}

fn progress_of(event: PullEvent) -> Option<Progress> {
    let layer = |id: String, event: &str, (done, total): (u64, u64)| Progress {
        event: event.to_owned(),
        name: format!("layer-{id}"),
        progress: signed(done),
        total: signed(total),
        ..Progress::default()
    };
    match event {
        PullEvent::Layer { id, step } => Some(match step {
            LayerStep::AlreadyExists => layer(id, "already exists", (0, 0)),
            LayerStep::PullingFsLayer | LayerStep::Waiting | LayerStep::Retrying(_) => layer(id, "waiting", (0, 0)),
            LayerStep::Downloading(done, total) => layer(id, "downloading", (done, total)),
            LayerStep::VerifyingChecksum | LayerStep::DownloadComplete => layer(id, "downloaded", (0, 0)),
            LayerStep::Extracting(done, total) => layer(id, "extracting", (done, total)),
            LayerStep::PullComplete => layer(id, "complete", (0, 0)),
        }),
        PullEvent::Started { reference } => {
            Some(Progress { event: "fetching image content".to_owned(), name: reference.to_string(), ..Progress::default() })
        }
        PullEvent::Finished { reference, .. } => {
            Some(Progress { event: "saved".to_owned(), name: reference.to_string(), ..Progress::default() })
        }
        PullEvent::Digest(_) => None,
    }
}
