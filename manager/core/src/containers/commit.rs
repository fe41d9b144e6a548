//! Commit: a container's changes become a layer on its image.

use std::sync::Arc;

use rcontainerd_store::tree;
use rcontainerd_types::{Digest, ErrorKind, Result};

use super::commands::CommitContainer;
use super::config::{Config, HealthCheck};
use super::model::Status;
use super::registry::Entry;
use super::{runstate, stop};
use crate::engine::{Engine, NAMESPACE, container_event};
use crate::files::MOUNT_PLACES;
use crate::images::config::Empty;
use crate::images::{ExtendImage, Healthcheck, ImageConfig, apply_instructions};

pub(super) async fn commit(engine: &Arc<Engine>, entry: &Arc<Entry>, command: CommitContainer) -> Result<Digest> {
    let container = engine.record(entry).await?;
    let mut config = command.config;
    apply_instructions(&mut config, &command.changes)?;
    let config = over(config, &of_container(&container.config));
    let request = ExtendImage {
        base: container.image_id.parse()?,
        config,
        author: command.author,
        comment: command.comment.clone(),
        created_by: container.config.cmd.clone().unwrap_or_default().join(" "),
        reference: command.reference.clone(),
    };
    let _files = entry.files.read().await;
    let paused = command.pause && container.state.status == Status::Running && freeze(engine, entry).await?;
    let store = engine.store.clone();
    let (snapshotter, key) = (container.snapshotter.clone(), container.snapshot_key.clone());
    let made = engine
        .images
        .extend(request, move |out| tree::write_layer(&*store.snapshotter(NAMESPACE, &snapshotter)?, &key, MOUNT_PLACES, out).map(drop))
        .await;
    if paused {
        thaw(engine, entry).await;
    }
    let image = made?;
    let mut extra = vec![("comment", command.comment), ("imageID", image.to_string())];
    extra.extend(command.reference.map(|reference| ("imageRef", reference.familiar())));
    engine.events.announce(container_event(&entry.view(), "commit", &extra));
    Ok(image)
}

/// A container that has ended meanwhile holds still by itself.
async fn freeze(engine: &Arc<Engine>, entry: &Arc<Entry>) -> Result<bool> {
    let dir = engine.run_dir(&entry.id);
    if !dir.is_dir() {
        return Ok(false);
    }
    runstate::hold(&dir)?;
    match stop::pause(engine, entry, true).await {
        Ok(()) => Ok(true),
        Err(err) => {
            runstate::let_go(&dir)?;
            if err.kind() == ErrorKind::Conflict { Ok(false) } else { Err(err) }
        }
    }
}

async fn thaw(engine: &Arc<Engine>, entry: &Arc<Entry>) {
    // A client may have been faster, or the container has ended.
    if let Err(err) = stop::pause(engine, entry, false).await {
        tracing::warn!(container = entry.id, "unpause after the commit: {err}");
    }
    if let Err(err) = runstate::let_go(&engine.run_dir(&entry.id)) {
        tracing::warn!(container = entry.id, "after the commit: {err}");
    }
}

/// The part of a container's configuration that an image can have.
fn of_container(config: &Config) -> ImageConfig {
    let set = |names: &std::collections::BTreeSet<String>| names.iter().map(|name| (name.clone(), Empty {})).collect();
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: config.env.iter().filter(|entry| entry.contains('=')).cloned().collect(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        volumes: set(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.as_ref().map(health),
        shell: config.shell.clone(),
        on_build: config.on_build.clone(),
    }
}

fn health(check: &HealthCheck) -> Healthcheck {
    Healthcheck {
        test: check.test.clone(),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// What the client asks for, filled up by what the container has.
fn over(mut asked: ImageConfig, own: &ImageConfig) -> ImageConfig {
    let fill = |field: &mut String, value: &String| {
        if field.is_empty() {
            field.clone_from(value);
        }
    };
    fill(&mut asked.user, &own.user);
    fill(&mut asked.working_dir, &own.working_dir);
    fill(&mut asked.stop_signal, &own.stop_signal);
    asked.exposed_ports.extend(own.exposed_ports.clone());
    asked.volumes.extend(own.volumes.clone());
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let missing = own.env.iter().filter(|entry| !asked.env.iter().any(|have| name(have) == name(entry)));
    let missing: Vec<String> = missing.cloned().collect();
    asked.env.extend(missing);
    for (key, value) in &own.labels {
        asked.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if asked.entrypoint.is_empty() {
        if asked.cmd.is_empty() {
            asked.cmd.clone_from(&own.cmd);
        }
        asked.entrypoint.clone_from(&own.entrypoint);
    }
    for (field, value) in [(&mut asked.shell, &own.shell), (&mut asked.on_build, &own.on_build)] {
        if field.is_empty() {
            field.clone_from(value);
        }
    }
    asked.healthcheck = asked.healthcheck.or_else(|| own.healthcheck.clone());
    asked
}
