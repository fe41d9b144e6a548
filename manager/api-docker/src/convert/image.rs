//! Images as list, inspect and history print them.

use proto_docker::StringSet;
use proto_docker::config::{Config, HealthConfig, StrSlice};
use proto_docker::image::{
    DeleteItem, DistributionDescriptor, DistributionInspect, DistributionPlatform, HistoryItem, ImageInspect, ImageMetadata, ImageSummary,
    ManifestAttestation, ManifestImage, ManifestImageSize, ManifestSize, ManifestSummary, RemoteDocument, RootFs, SearchResult,
};
use proto_docker::inspect::GraphDriver;
use rcontainerd_core::Filters;
use rcontainerd_core::images::config::Empty;
use rcontainerd_core::images::{
    Healthcheck, HistoryLine, Image, ImageConfig, ImageFilters, ListedImage, LocalManifest, Match, PruneImages, RemoteImage,
    RemoteManifest, Removed,
};
use rcontainerd_types::Reference;

use super::container::signed;
use super::create::some_map;
use crate::wire::error::ApiError;
use crate::wire::time;

pub(crate) fn summary(image: ListedImage) -> ImageSummary {
    ImageSummary {
        containers: -1,
        created: image.created.unwrap_or_default(),
        id: image.id.to_string(),
        labels: (!image.labels.is_empty()).then_some(image.labels),
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests: familiar(&image.repo_digests),
        repo_tags: familiar(&image.repo_tags),
        shared_size: -1,
        size: signed(image.size),
        virtual_size: None,
        manifests: None,
    }
}

fn familiar(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::familiar).collect()
}

/// `driver`: the snapshotter that holds the layers.
pub(crate) fn inspect(image: &Image, driver: &str) -> ImageInspect {
    let file = &image.file;
    ImageInspect {
        id: image.id.to_string(),
        repo_tags: familiar(&image.repo_tags),
        repo_digests: familiar(&image.repo_digests),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: file.comment.clone(),
        created: image.created_text.clone(),
        container: None,
        container_config: None,
        docker_version: file.docker_version.clone(),
        author: file.author.clone(),
        config: Some(config(image.config())),
        architecture: file.architecture.clone(),
        variant: file.variant.clone(),
        os: file.os.clone(),
        os_version: file.os_version.clone(),
        size: signed(image.size),
        virtual_size: None,
        graph_driver: GraphDriver { data: None, name: driver.to_owned() },
        root_fs: RootFs { kind: file.rootfs.kind.clone(), layers: file.rootfs.diff_ids.iter().map(ToString::to_string).collect() },
        manifests: None,
        metadata: ImageMetadata { last_tag_time: image.last_tagged.clone().unwrap_or_else(|| time::NEVER.to_owned()) },
    }
}

fn config(config: &ImageConfig) -> Config {
    let set = |names: Vec<&String>| -> Option<StringSet> {
        (!names.is_empty()).then(|| names.into_iter().map(|name| (name.clone(), proto_docker::Empty {})).collect())
    };
    let list = |words: &Vec<String>| (!words.is_empty()).then(|| StrSlice(words.clone()));
    Config {
        user: config.user.clone(),
        exposed_ports: set(config.exposed_ports.keys().collect()),
        env: (!config.env.is_empty()).then(|| config.env.clone()),
        cmd: list(&config.cmd),
        healthcheck: config.healthcheck.as_ref().map(healthcheck),
        volumes: set(config.volumes.keys().collect()),
        working_dir: config.working_dir.clone(),
        entrypoint: list(&config.entrypoint),
        on_build: (!config.on_build.is_empty()).then(|| config.on_build.clone()),
        labels: some_map(&config.labels),
        stop_signal: config.stop_signal.clone(),
        shell: list(&config.shell),
        ..Config::default()
    }
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: check.test.clone(),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// The body of `commit`: what an image can have of a container's configuration.
pub(crate) fn config_to_core(config: Config) -> ImageConfig {
    let set = |names: Option<StringSet>| names.unwrap_or_default().into_keys().map(|name| (name, Empty {})).collect();
    let list = |words: Option<StrSlice>| words.map(|words| words.0).unwrap_or_default();
    let check = |check: HealthConfig| Healthcheck {
        test: check.test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    };
    ImageConfig {
        user: config.user,
        exposed_ports: set(config.exposed_ports),
        env: config.env.unwrap_or_default(),
        entrypoint: list(config.entrypoint),
        cmd: list(config.cmd),
        volumes: set(config.volumes),
        working_dir: config.working_dir,
        labels: config.labels.unwrap_or_default(),
        stop_signal: config.stop_signal,
        healthcheck: config.healthcheck.map(check),
        shell: list(config.shell),
        on_build: config.on_build.unwrap_or_default(),
    }
}

/// What `prune` takes: dangling images unless `dangling=false` asks for all that are unused.
///
/// # Errors
/// 400 for an unknown key or a malformed value.
pub(crate) fn prune(filters: Filters) -> Result<PruneImages, ApiError> {
    filters.accept(&["dangling", "until", "label", "label!"])?;
    Ok(PruneImages { dangling_only: filters.flag("dangling")?.unwrap_or(true), until: until(&filters)?, labels: filters })
}

fn until(filters: &Filters) -> Result<Option<i64>, ApiError> {
    let until = filters.get("until").first().map(|text| {
        time::point(text, jiff::Timestamp::now())
            .map(jiff::Timestamp::as_second)
            .ok_or_else(|| ApiError::bad_request(format!("invalid filter 'until={text}': neither a time nor a duration")))
    });
    until.transpose()
}

/// What a registry says of a name.
pub(crate) fn distribution(found: &RemoteImage) -> DistributionInspect {
    let platform = |platform: &rcontainerd_types::Platform| DistributionPlatform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    };
    DistributionInspect { descriptor: descriptor(&found.descriptor), platforms: found.platforms.iter().map(platform).collect() }
}

/// The documents of a name at its registry; JSON that was hashed is handed on as it is, as text.
///
/// # Errors
/// When one of them is not text.
pub(crate) fn remote_manifest(found: &RemoteManifest) -> Result<RemoteDocument, ApiError> {
    let text = std::str::from_utf8(&found.bytes).map_err(|_| ApiError::bad_request("the registry's manifest is not text"))?;
    let platform = found.descriptor.platform.as_ref();
    Ok(RemoteDocument {
        descriptor: descriptor(&found.descriptor),
        platform: platform.map(|platform| DistributionPlatform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
        }),
        document: text.to_owned(),
        entries: found.entries.iter().map(remote_manifest).collect::<Result<_, _>>()?,
    })
}

fn descriptor(descriptor: &rcontainerd_types::Descriptor) -> DistributionDescriptor {
    DistributionDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
    }
}

/// One platform of an image, or a statement about one.
pub(crate) fn manifest(found: &LocalManifest) -> ManifestSummary {
    let kind = match (&found.platform, &found.attests) {
        (_, Some(_)) => "attestation",
        (Some(_), None) => "image",
        (None, None) => "unknown",
    };
    ManifestSummary {
        id: found.descriptor.digest.to_string(),
        descriptor: descriptor(&found.descriptor),
        available: found.available,
        size: ManifestSize { content: signed(found.content), total: signed(found.content.saturating_add(found.unpacked)) },
        kind: kind.to_owned(),
        image_data: found.platform.as_ref().filter(|_| found.attests.is_none()).map(|platform| ManifestImage {
            platform: DistributionPlatform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
                variant: platform.variant.clone().unwrap_or_default(),
            },
            containers: Vec::new(),
            size: ManifestImageSize { unpacked: signed(found.unpacked) },
        }),
        attestation_data: found.attests.as_ref().map(|image| ManifestAttestation { for_image: image.to_string() }),
    }
}

pub(crate) fn search_result(found: &Match) -> SearchResult {
    SearchResult {
        star_count: signed(found.stars),
        is_official: found.is_official,
        name: found.name.clone(),
        is_automated: found.is_automated,
        description: found.description.clone().unwrap_or_default(),
    }
}

/// What `search --filter` lets through.
///
/// # Errors
/// 400 for a malformed value.
pub(crate) fn search_filter(filters: &Filters) -> Result<impl Fn(&Match) -> bool + use<>, ApiError> {
    let (official, automated) = (filters.flag("is-official")?, filters.flag("is-automated")?);
    let mut stars = 0;
    for text in filters.get("stars") {
        let bad = |_| ApiError::bad_request(format!("invalid filter 'stars={text}'"));
        stars = stars.max(text.parse::<u64>().map_err(bad)?);
    }
    Ok(move |found: &Match| {
        official.is_none_or(|wanted| wanted == found.is_official)
            && automated.is_none_or(|wanted| wanted == found.is_automated)
            && found.stars >= stars
    })
}

pub(crate) fn history(line: &HistoryLine) -> HistoryItem {
    HistoryItem {
        comment: line.comment.clone(),
        created: line.created.unwrap_or_default(),
        created_by: line.created_by.clone(),
        id: line.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string),
        size: signed(line.size),
        tags: (!line.tags.is_empty()).then(|| familiar(&line.tags)),
    }
}

pub(crate) fn removed(removed: &Removed) -> DeleteItem {
    match removed {
        Removed::Untagged(name) => DeleteItem { untagged: name.clone(), ..DeleteItem::default() },
        Removed::Deleted(id) => DeleteItem { deleted: id.to_string(), ..DeleteItem::default() },
    }
}

/// The list's `filters`.
///
/// # Errors
/// 400 for an unknown key or a malformed value.
pub(crate) fn filters(filters: &Filters) -> Result<ImageFilters, ApiError> {
    filters.accept(&["dangling", "label", "before", "since", "reference", "until"])?;
    let label = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.clone(), None),
    };
    Ok(ImageFilters {
        dangling: filters.flag("dangling")?,
        labels: filters.get("label").iter().map(label).collect(),
        before: filters.get("before").first().cloned(),
        since: filters.get("since").first().cloned(),
        references: filters.get("reference").to_vec(),
        until: until(filters)?,
    })
}
