//! The image that ships with the project: one static program as an OCI image, the same bytes from the same program.

use std::path::Path;

use oci_spec::image::{ConfigBuilder, HistoryBuilder, ImageConfigurationBuilder, RootFsBuilder};
use rcontainerd_store::metadata::key;
use rcontainerd_store::records::IMAGES;
use rcontainerd_store::{Content, Labels, Store};
use rcontainerd_types::{Descriptor, Digest, Error, Platform, Result, media_type};
use serde_json::json;

use super::catalog::{ImageRow, NAMES};
use super::document;

pub(super) const NAME: &str = "docker.io/rcontainerd/hello:latest";
/// Where the program lies in the image, and what it is told to do.
const PROGRAM: &str = "hello";

/// The image's parts in the content store.
pub(super) struct Shipped {
    pub target: Descriptor,
    pub config: Digest,
    pub row: ImageRow,
}

/// Whether the name stands for this very image already. Asked of the records: a start need not read the whole catalogue for it.
pub(super) fn is_here(store: &Store, namespace: &str, shipped: &Shipped) -> Result<bool> {
    let key = key(namespace, NAME);
    let (record, row) = store.metadata().read(|tx| Ok((tx.get(IMAGES, &key)?, tx.get(NAMES, &key)?)))?;
    Ok(record.is_some_and(|record| record.target.digest == shipped.target.digest)
        && row.is_some_and(|row| row.target == shipped.target.digest && row.image == shipped.config))
}

/// Builds the image from the program's file.
pub(super) fn build(content: &Content, program: &Path) -> Result<Shipped> {
    let bytes = std::fs::read(program).map_err(|err| Error::io(format!("read {}", program.display()), err))?;
    let layer = layer(&bytes)?;
    let layer_digest = Digest::sha256(&layer);
    let config = config(&layer_digest)?;
    let config_descriptor = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
    let layer_descriptor = Descriptor::new(media_type::OCI_LAYER, layer_digest, layer.len() as u64);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config_descriptor,
        "layers": [layer_descriptor],
    });
    let manifest = manifest.to_string().into_bytes();
    let target = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&manifest), manifest.len() as u64);
    let (_, document) = rcontainerd_registry::manifest::parse(Some(media_type::OCI_MANIFEST), &manifest)?;
    let rcontainerd_registry::Document::Manifest(parsed) = &document else {
        return Err(Error::internal("the shipped image's manifest is not a manifest"));
    };
    let row = document::image_row(&target, parsed, &document::parse_config(&config)?)?;
    document::keep(content, &layer_descriptor, &layer, Labels::new())?;
    document::keep(content, &config_descriptor, &config, Labels::new())?;
    document::keep(content, &target, &manifest, document::references(&document))?;
    Ok(Shipped { target, config: config_descriptor.digest, row })
}

/// The image's configuration document (image-spec, "config").
fn config(layer: &Digest) -> Result<Vec<u8>> {
    let failed = |err: oci_spec::OciSpecError| Error::internal(format!("write the shipped image's configuration: {err}"));
    let platform = Platform::host();
    let process = ConfigBuilder::default()
        .entrypoint([format!("/{PROGRAM}"), PROGRAM.to_owned()])
        .env(["PATH=/".to_owned()])
        .working_dir("/")
        .build()
        .map_err(failed)?;
    let layers = RootFsBuilder::default().typ("layers").diff_ids([layer.to_string()]).build().map_err(failed)?;
    let origin =
        HistoryBuilder::default().created_by(format!("COPY {PROGRAM} /")).comment("ships with rcontainerd").build().map_err(failed)?;
    let document = ImageConfigurationBuilder::default()
        .architecture(platform.architecture.as_str())
        .os(platform.os.as_str())
        .config(process)
        .rootfs(layers)
        .history([origin])
        .build()
        .map_err(failed)?;
    document.to_string().map(String::into_bytes).map_err(failed)
}

/// A tar with the program alone: no dates, no names of this machine.
fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let failed = |err| Error::io("pack the shipped image", err);
    let mut header = tar::Header::new_ustar();
    header.set_path(PROGRAM).map_err(failed)?;
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, program).map_err(failed)?;
    archive.into_inner().map_err(failed)
}
