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
        let namespace = namespace(&request)?;
        let images = self.core.store.images(&namespace);
        let image = request.into_inner().image;
        let made = blocking(move || {
            let image = given(image)?;
            images.create(&image.name, from_wire(image.target)?, labels(image.labels)).map(wire)
        });
        let image = made.await?;
        self.announce(&namespace, "/images/create", &api::ImageCreate { name: image.name.clone(), labels: image.labels.clone() });
        Ok(Response::new(api::CreateImageResponse { image: Some(image) }))
    }

    async fn update(&self, request: Request<api::UpdateImageRequest>) -> Answer<api::UpdateImageResponse> {
        let namespace = namespace(&request)?;
        let images = self.core.store.images(&namespace);
        let request = request.into_inner();
        let updated = blocking(move || {
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
            Ok(wire(record))
        });
        let image = updated.await?;
        self.announce(&namespace, "/images/update", &api::ImageUpdate { name: image.name.clone(), labels: image.labels.clone() });
        Ok(Response::new(api::UpdateImageResponse { image: Some(image) }))
    }

    /// Takes the name, then what nobody needs any more.
    async fn delete(&self, request: Request<api::DeleteImageRequest>) -> Answer<()> {
        let namespace = namespace(&request)?;
        let images = self.core.store.images(&namespace);
        let request = request.into_inner();
        let name = request.name.clone();
        blocking(move || images.delete(&name)).await?;
        self.announce(&namespace, "/images/delete", &api::ImageDelete { name: request.name });
        self.collect(request.sync).await.map(Response::new)
    }
}
