//! `rcontainerd uninstall`: removes what the manager made, once nothing runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rcontainerd_network::{Network, NetworkConfig};

use crate::config::Config;
use crate::{compose, sockets};

pub fn run(config: &Config) -> Result<()> {
    if !config.root.exists() && !config.state.exists() {
        return Ok(());
    }
    sockets::safe_dir(&config.state)?;
    // Refuses while a manager has the root.
    let store = compose::open_store(config)?;
    refuse_while_running(&config.state.join("tasks"))?;
    let network = Network::open(NetworkConfig { bridge: config.network.bridge.clone(), ..NetworkConfig::new(config.state.join("netns")) })?;
    network.teardown()?;
    drop(store);
    for dir in [&config.root, &config.state] {
        refuse_mounts(dir)?;
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

fn refuse_while_running(tasks: &Path) -> Result<()> {
    let namespaces = fs::read_dir(tasks).into_iter().flatten().flatten();
    let bundles = namespaces.flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten());
    match bundles.map(|bundle| bundle.file_name().to_string_lossy().into_owned()).next() {
        Some(id) => bail!("container {id} still runs or left its bundle in {}: remove it first (rdocker rm -f {id})", tasks.display()),
        None => Ok(()),
    }
}

/// Removing through a mount would remove somebody else's files.
fn refuse_mounts(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let below =
        table.lines().filter_map(|line| line.split(' ').nth(4)).find(|point| Path::new(point).starts_with(dir) && Path::new(point) != dir);
    match below {
        Some(point) => bail!("{point} is still mounted: unmount it, then uninstall again"),
        None => Ok(()),
    }
}
