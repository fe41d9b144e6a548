//! `ctr images`

use proto_containerd::services::images::v1 as api;
use proto_containerd::services::images::v1::images_server::Images;
use rcontainerd_core::primitives::store::records::ImageRecord;
use rcontainerd_types::{Error, Result};
use tonic::{Request, Response};

use crate::Service;
use crate::convert::{Answer, answer, blocking, from_wire, labels, masked_labels, namespace, timestamp, to_wire, wire_labels};
use crate::filter::{self, Filters};

fn wire(record: ImageRecord) -> api::Image {
    api::Image {
        name: record.name,
        labels: wire_labels(record.labels),
        target: Some(to_wire(record.target)),
        created_at: timestamp(record.created),
        updated_at: timestamp(record.updated),
    }
}

fn given(image: Option<api::Image>) -> Result<api::Image> {
    image.ok_or_else(|| Error::invalid("no image in the request"))
}

#[tonic::async_trait]
impl Images for Service {
    async fn get(&self, request: Request<api::GetImageRequest>) -> Answer<api::GetImageResponse> {
        let images = self.core.store.images(&namespace(&request)?);
        let name = request.into_inner().name;
        answer(move || Ok(api::GetImageResponse { image: Some(wire(images.get(&name)?)) })).await
    }

    async fn list(&self, request: Request<api::ListImagesRequest>) -> Answer<api::ListImagesResponse> {
        let images = self.core.store.images(&namespace(&request)?);
        answer(move || {
            let filters = Filters::parse(&request.get_ref().filters)?;
            let passes = |record: &ImageRecord| {
                filters.pass(|path| match path {
                    ["name"] => Some(record.name.clone()),
                    ["target", "digest"] => Some(record.target.digest.to_string()),
                    ["target", "mediatype"] => Some(record.target.media_type.clone()),
                    path => filter::label(&record.labels, path),
                })
            };
            let images = images.list()?.into_iter().filter(passes).map(wire).collect();
            Ok(api::ListImagesResponse { images })
        })
        .await
    }

    async fn create(&self, request: Request<api::CreateImageRequest>) -> Answer<api::CreateImageResponse> {
        let images = self.core.store.images(&namespace(&request)?);
        let image = request.into_inner().image;
        answer(move || {
            let image = given(image)?;
            let record = images.create(&image.name, from_wire(image.target)?, labels(image.labels))?;
            Ok(api::CreateImageResponse { image: Some(wire(record)) })
        })
        .await
    }

    async fn update(&self, request: Request<api::UpdateImageRequest>) -> Answer<api::UpdateImageResponse> {
        let images = self.core.store.images(&namespace(&request)?);
        let request = request.into_inner();
        answer(move || {
            let image = given(request.image)?;
            let mask = request.update_mask;
            let all = mask.as_ref().is_none_or(|mask| mask.paths.is_empty());
            let record = images.update(&image.name, |record| {
                let others = masked_labels(mask.as_ref(), &mut record.labels, labels(image.labels))?;
                if all || others.iter().any(|path| path == "target") {
                    record.target = from_wire(image.target)?;
                }
                match others.iter().find(|path| *path != "target") {
                    Some(path) => Err(Error::invalid(format!("cannot update {path:?} of an image"))),
                    None => Ok(()),
                }
            })?;
            Ok(api::UpdateImageResponse { image: Some(wire(record)) })
        })
        .await
    }

    /// Takes the name, then what nobody needs any more.
    async fn delete(&self, request: Request<api::DeleteImageRequest>) -> Answer<()> {
        let images = self.core.store.images(&namespace(&request)?);
        let request = request.into_inner();
        blocking(move || images.delete(&request.name)).await?;
        self.collect(request.sync).await.map(Response::new)
    }
}
