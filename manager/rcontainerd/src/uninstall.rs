//! `rcontainerd uninstall`: removes what the manager made, once nothing runs; `--force` ends what runs.

use std::fs;
use std::io::ErrorKind::{NotADirectory, NotFound, ResourceBusy};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcontainerd_core::containers::commands::{ListContainers, RemoveContainer};
use rcontainerd_core::{Core, NAMESPACE};
use rcontainerd_network::{Network, NetworkConfig};
use rcontainerd_store::Store;
use rcontainerd_task::TaskKey;
use rcontainerd_types::ErrorKind;

use crate::config::Config;
use crate::programs::Programs;
use crate::{compose, sockets, units};

/// Signal 9 of signal(7).
const KILL: u32 = 9;

pub fn run(config: &Config, force: bool) -> Result<()> {
    // First: systemd would start the manager anew.
    units::remove()?;
    if !config.root.exists() && !config.state.exists() {
        return Ok(());
    }
    sockets::safe_dir(&config.state)?;
    // Refuses while a manager has the root.
    let store = compose::open_store(config)?;
    if force {
        end_containers(config, &store)?;
    }
    refuse_while_running(&config.state.join("tasks"))?;
    remove_network(config, &store)?;
    remove_cgroup(&config.cgroup_parent)?;
    drop(store);
    for dir in [&config.root, &config.state] {
        refuse_mounts(dir)?;
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

fn end_containers(config: &Config, store: &Store) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start the async runtime")?;
    let ended = runtime.block_on(async {
        let core = compose::services(config, store.clone(), &Programs::find()?).await?;
        let ended = remove_containers(&core).await;
        core.close();
        ended
    });
    // What watches the containers holds the store: it must be gone before the root is.
    drop(runtime);
    ended
}

/// Docker's containers by their records, everyone else's tasks by their bundles.
async fn remove_containers(core: &Core) -> Result<()> {
    let all = ListContainers { all: true, ..ListContainers::default() };
    for container in core.containers.list(all).await? {
        core.containers.remove(RemoveContainer { id: container.container.id.clone(), force: true, volumes: true }).await?;
    }
    for key in core.tasks.list().await? {
        if key.namespace != NAMESPACE {
            end_task(core, &key).await.with_context(|| format!("end task {} of namespace {}", key.id, key.namespace))?;
        }
    }
    Ok(())
}

async fn end_task(core: &Core, key: &TaskKey) -> Result<()> {
    let Ok(task) = core.primitive_tasks.get(key).await else { return Ok(()) };
    match task.kill(None, KILL, true).await {
        Err(err) if !matches!(err.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => return Err(err.into()),
        _ => {}
    }
    task.wait(None).await?;
    core.primitive_tasks.delete(key).await?;
    Ok(())
}

fn refuse_while_running(tasks: &Path) -> Result<()> {
    let namespaces = fs::read_dir(tasks).into_iter().flatten().flatten();
    let bundles = namespaces.flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten());
    match bundles.map(|bundle| bundle.file_name().to_string_lossy().into_owned()).next() {
        Some(id) => bail!("container {id} still runs or left its bundle in {}: remove it first, or uninstall --force", tasks.display()),
        None => Ok(()),
    }
}

fn remove_network(config: &Config, store: &Store) -> Result<()> {
    let network = Network::open(NetworkConfig {
        bridge: config.network.bridge.clone(),
        nft_table: config.network.nft_table.clone(),
        ..NetworkConfig::new(config.state.join("netns"))
    })?;
    network.define(&rcontainerd_core::networks::definitions(store)?)?;
    match network.teardown() {
        // Without netfilter there is no table of ours either.
        Err(err) if matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::Unsupported) => {
            eprintln!("rcontainerd: firewall table not looked for: {err}");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Removes the parent of our containers' cgroups from every hierarchy, with what containers left there that were killed behind
/// our back; unless somebody else uses it too.
fn remove_cgroup(parent: &str) -> Result<()> {
    let base = Path::new("/sys/fs/cgroup");
    let below = parent.trim_start_matches('/');
    if below.is_empty() {
        return Ok(());
    }
    let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    for cgroup in hierarchies.chain([base.to_owned()]).map(|hierarchy| hierarchy.join(below)) {
        for container in subdirectories(&cgroup).filter(|path| is_container_id(path)) {
            remove_cgroups(&container)?;
        }
        remove_one_cgroup(&cgroup)?;
    }
    Ok(())
}

fn is_container_id(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.len() == 64 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit))
}

fn subdirectories(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir())
}

fn remove_cgroups(cgroup: &Path) -> Result<()> {
    for below in subdirectories(cgroup) {
        remove_cgroups(&below)?;
    }
    remove_one_cgroup(cgroup)
}

/// One that is in use stays.
fn remove_one_cgroup(cgroup: &Path) -> Result<()> {
    match fs::remove_dir(cgroup) {
        Err(err) if !matches!(err.kind(), NotFound | ResourceBusy | NotADirectory) => {
            Err(err).with_context(|| format!("remove cgroup {}", cgroup.display()))
        }
        _ => Ok(()),
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
