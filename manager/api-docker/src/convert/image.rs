//! Images as list, inspect and history print them.

use proto_docker::StringSet;
use proto_docker::config::{Config, HealthConfig, StrSlice};
use proto_docker::image::{DeleteItem, HistoryItem, ImageInspect, ImageMetadata, ImageSummary, RootFs};
use proto_docker::inspect::GraphDriver;
use rcontainerd_core::Filters;
use rcontainerd_core::images::{Healthcheck, HistoryLine, Image, ImageConfig, ImageFilters, Removed};
use rcontainerd_types::Reference;

use super::container::signed;
use super::create::some_map;
use crate::wire::error::ApiError;
use crate::wire::time;

pub(crate) fn summary(image: &Image) -> ImageSummary {
    ImageSummary {
        containers: -1,
        created: image.created.unwrap_or_default(),
        id: image.id.to_string(),
        labels: some_map(&image.config().labels),
        parent_id: String::new(),
        repo_digests: familiar(&image.repo_digests),
        repo_tags: familiar(&image.repo_tags),
        shared_size: -1,
        size: signed(image.size),
        virtual_size: None,
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
        parent: String::new(),
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
    let until = filters.get("until").first().map(|text| {
        time::point(text, jiff::Timestamp::now())
            .map(jiff::Timestamp::as_second)
            .ok_or_else(|| ApiError::bad_request(format!("invalid filter 'until={text}': neither a time nor a duration")))
    });
    Ok(ImageFilters {
        dangling: filters.flag("dangling")?,
        labels: filters.get("label").iter().map(label).collect(),
        before: filters.get("before").first().cloned(),
        since: filters.get("since").first().cloned(),
        references: filters.get("reference").to_vec(),
        until: until.transpose()?,
    })
}
