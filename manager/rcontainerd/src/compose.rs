//! Puts the services together from the configuration; the only place that knows all of them.

use std::time::Duration;

use anyhow::{Context, Result};
use rcontainerd_core::images::{Proxies, RegistryConfig};
use rcontainerd_core::{Core, CoreConfig, RuntimeConfig};
use rcontainerd_network::NetworkConfig;
use rcontainerd_store::{Options, SnapshotterChoice, Store};
use rcontainerd_task::{TaskConfig, TaskService};
use rcontainerd_types::Error;

use crate::config::Config;
use crate::programs::Programs;

/// How long a shim may take to answer a quick call.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// Opens the store, and with it takes the root's lock.
pub fn open_store(config: &Config) -> Result<Store> {
    Ok(store(config)?)
}

/// As [`open_store`], with an error that tells its kind.
pub fn store(config: &Config) -> rcontainerd_types::Result<Store> {
    let snapshotter = match config.snapshotter.as_str() {
        "auto" => SnapshotterChoice::Auto,
        "overlay" => SnapshotterChoice::Overlay,
        "native" => SnapshotterChoice::Native,
        other => return Err(Error::invalid(format!("snapshotter {other:?} is unknown: expected auto, overlay or native"))),
    };
    Store::open_with(&config.root, &Options { snapshotter })
}

/// All services, with the containers that live on taken up and our own image at hand.
pub async fn core(config: &Config, store: Store, programs: &Programs) -> Result<Core> {
    let core = services(config, store, programs).await?;
    ship(&core, programs).await;
    Ok(core)
}

/// All services, with the containers that live on taken up.
pub async fn services(config: &Config, store: Store, programs: &Programs) -> Result<Core> {
    let tasks = TaskService::open(TaskConfig {
        state_dir: config.state.clone(),
        shim: programs.shim.clone(),
        runtime: programs.runtime.clone(),
        publish_binary: programs.manager.clone(),
        timeout: SHIM_PATIENCE,
    })
    .await?;
    Ok(Core::open(core_config(config, programs)?, store, tasks).await?)
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
        nft_table: config.network.nft_table.clone(),
        ..NetworkConfig::new(config.state.join("netns"))
    };
    Ok(CoreConfig {
        state_dir: config.state.clone(),
        runtime: programs.runtime.clone(),
        // Named even when absent: a container that asks for --init is then told which file is missing.
        init: programs.init.clone().unwrap_or_else(|| programs.runtime.with_file_name("rcontainerd-init")),
        cgroup_parent: config.cgroup_parent.clone(),
        network,
        netd: vec![programs.manager.display().to_string(), "--state".into(), config.state.display().to_string(), "netd".into()],
        registry: registry(config)?,
        caps: config.storage.caps()?,
        runtimes: config.runtimes.iter().map(|(name, runtime)| (name.clone(), runtime_config(runtime))).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("RCONTAINERD_GIT_COMMIT").unwrap_or_default().to_owned(),
    })
}

/// How registries are spoken to.
///
/// # Errors
/// For a mirror, proxy or registry that is malformed: told now, not with the first pull.
pub fn registry(config: &Config) -> Result<RegistryConfig> {
    let given = &config.registry;
    let any_proxy = given.http_proxy.is_some() || given.https_proxy.is_some() || given.no_proxy.is_some();
    let proxies =
        any_proxy.then(|| Proxies { http: given.http_proxy.clone(), https: given.https_proxy.clone(), none_for: given.no_proxy.clone() });
    let config = RegistryConfig {
        insecure_registries: given.insecure.clone(),
        mirrors: given.mirrors.clone(),
        host_dirs: given.certs_dirs.clone(),
        proxies,
        referrers: given.referrers,
        ..RegistryConfig::default()
    };
    config.check().context("[registry]")?;
    Ok(config)
}

fn runtime_config(runtime: &crate::config::Runtime) -> RuntimeConfig {
    RuntimeConfig { binary: runtime.path.clone(), shim: runtime.shim.clone() }
}
