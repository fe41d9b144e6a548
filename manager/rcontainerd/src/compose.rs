//! Puts the services together from the configuration; the only place that knows all of them.

use std::time::Duration;

use anyhow::{Context, Result};
use rcontainerd_core::{Core, CoreConfig};
use rcontainerd_network::NetworkConfig;
use rcontainerd_store::{Options, SnapshotterChoice, Store};
use rcontainerd_task::{TaskConfig, TaskService};

use crate::config::Config;
use crate::programs::Programs;

/// How long a shim may take to answer a quick call.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// Opens the store, and with it takes the root's lock.
pub fn open_store(config: &Config) -> Result<Store> {
    let snapshotter = match config.snapshotter.as_str() {
        "auto" => SnapshotterChoice::Auto,
        "overlay" => SnapshotterChoice::Overlay,
        "native" => SnapshotterChoice::Native,
        other => anyhow::bail!("snapshotter {other:?} is unknown: expected auto, overlay or native"),
    };
    Ok(Store::open_with(&config.root, &Options { snapshotter })?)
}

/// All services, with the containers that live on taken up.
pub async fn core(config: &Config, store: Store, programs: &Programs) -> Result<Core> {
    let tasks = TaskService::open(TaskConfig {
        state_dir: config.state.clone(),
        shim: programs.shim.clone(),
        runtime: programs.runtime.clone(),
        publish_binary: programs.manager.clone(),
        timeout: SHIM_PATIENCE,
    })
    .await?;
    let core = Core::open(core_config(config, programs)?, store, tasks).await?;
    ship(&core, programs).await;
    Ok(core)
}

/// Imports the image that ships with us. Without it the first `run` needs a registry, which is no reason not to serve.
async fn ship(core: &Core, programs: &Programs) {
    let Some(init) = &programs.init else {
        tracing::warn!("rcontainerd-init is neither beside rcontainerd nor on PATH: no shipped image, and --init will fail");
        return;
    };
    if let Err(err) = core.images.ensure_shipped(init).await {
        tracing::warn!("import the shipped image: {err}");
    }
}

fn core_config(config: &Config, programs: &Programs) -> Result<CoreConfig> {
    let parse =
        |subnet: &String| subnet.parse().with_context(|| format!("network.subnet {subnet:?} is no IPv4 network such as 172.30.0.0/16"));
    let network = NetworkConfig {
        bridge: config.network.bridge.clone(),
        subnet: config.network.subnet.as_ref().map(parse).transpose()?,
        ..NetworkConfig::new(config.state.join("netns"))
    };
    Ok(CoreConfig {
        state_dir: config.state.clone(),
        runtime: programs.runtime.clone(),
        // Named even when absent: a container that asks for --init is then told which file is missing.
        init: programs.init.clone().unwrap_or_else(|| programs.runtime.with_file_name("rcontainerd-init")),
        cgroup_parent: config.cgroup_parent.clone(),
        network,
        insecure_registries: config.registry.insecure.clone(),
        registry_mirrors: config.registry.mirrors.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("RCONTAINERD_GIT_COMMIT").unwrap_or_default().to_owned(),
    })
}
