//! Create: resolve, prepare the snapshot, make volumes, record in one transaction; on failure all of it is undone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rcontainerd_store::records::{self, AnyValue, ContainerRecord};
use rcontainerd_store::{Durability, Persistence};
use rcontainerd_types::{Error, Result, id};

use super::commands::{CreateContainer, Created};
use super::model::{Container, MountKind, MountPoint, State};
use super::outline::Outline;
use super::registry::{CONTAINERS, Entry};
use super::resolve::{self, MountSource, PlannedMount, Resolved};
use super::{joined, links, runtimes, start, volumes_from};
use crate::engine::{Engine, NAMESPACE, blocking, container_event, make_dir, remove_dir};
use crate::images::{Image, PreparedRootfs};
use crate::rootfs::{self, Rootfs, users};
use crate::spec;
use crate::volumes::{CreateVolume, RemoveVolume, Volume};

/// How containerd names the type of an OCI configuration.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

pub(super) async fn create(engine: Arc<Engine>, mut request: CreateContainer) -> Result<Created> {
    if request.config.image.is_empty() {
        return Err(Error::invalid("no image specified"));
    }
    let image = engine.images.inspect(&request.config.image).await?;
    check_platform(&request, &image)?;
    joined::pin(&engine, &mut request.host_config)?;
    links::pin(&engine, &mut request)?;
    runtimes::options(&engine, &request.host_config.runtime)?;
    let id = id::generate()?;
    let resolved = resolve::resolve(&request, image.config(), &engine.host, &id)?;
    let name = reserve_name(&engine, &request, &id)?;
    let mut made = Made::default();
    let result = build(&engine, &request, image, resolved, (&id, &name), &mut made).await;
    if result.is_err() {
        // The name last: as long as it is held, what was made is not nobody's.
        made.undo(&engine, &id).await;
        engine.registry.release(&name, &id);
    }
    result
}

fn check_platform(request: &CreateContainer, image: &Image) -> Result<()> {
    let Some(wanted) = request.platform.as_deref().filter(|text| !text.is_empty()) else { return Ok(()) };
    let wanted: rcontainerd_types::Platform = wanted.parse()?;
    if wanted.matches(&image.platform) {
        return Ok(());
    }
    let name = &request.config.image;
    Err(Error::not_found(format!(
        "image with reference {name} was found but its platform ({}) does not match the specified platform ({wanted})",
        image.platform
    )))
}

fn reserve_name(engine: &Engine, request: &CreateContainer, id: &str) -> Result<String> {
    let wanted = request.name.as_deref().map(|name| name.strip_prefix('/').unwrap_or(name)).filter(|name| !name.is_empty());
    match wanted {
        Some(name) => {
            crate::names::validate(name)?;
            engine.registry.reserve(name, id)?;
            Ok(name.to_owned())
        }
        None => loop {
            let name = crate::names::random(|name| engine.registry.name_taken(name))?;
            if engine.registry.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        },
    }
}

/// What has been made so far.
#[derive(Default)]
struct Made {
    rootfs: Option<PreparedRootfs>,
    volumes: Vec<String>,
    directory: bool,
}

impl Made {
    /// Takes everything back; what fails is logged, so that the first error is the one told.
    async fn undo(self, engine: &Arc<Engine>, id: &str) {
        for name in self.volumes {
            log_undo(engine.volumes.remove(RemoveVolume { name, force: true }).await);
        }
        if let Some(rootfs) = self.rootfs {
            let store = engine.store.clone();
            log_undo(blocking(move || store.snapshotter(NAMESPACE, &rootfs.snapshotter)?.remove(&rootfs.key)).await);
        }
        if self.directory {
            log_undo(remove_dir(&engine.container_dir(id)));
        }
    }
}

fn log_undo(result: Result<()>) {
    if let Err(err) = result {
        tracing::warn!("undoing a failed create: {err}");
    }
}

async fn build(
    engine: &Arc<Engine>,
    request: &CreateContainer,
    image: Image,
    resolved: Resolved,
    (id, name): (&str, &str),
    made: &mut Made,
) -> Result<Created> {
    let (persistence, durability) = kept(resolved.host_config.auto_remove);
    let rootfs = engine.images.prepare_rootfs(&image.id, id, persistence).await?;
    made.rootfs = Some(rootfs.clone());
    let mut mounts = volumes_from::inherit(&engine.registry, &resolved.host_config.volumes_from)?;
    for planned in &resolved.mounts {
        // A volume of the image gives way to another container's in its place; what this request says itself does not.
        let taken = mounts.iter().position(|mount| mount.destination == planned.destination);
        match (taken, planned.is_implied(request)) {
            (Some(_), true) => continue,
            (Some(position), false) => drop(mounts.remove(position)),
            (None, _) => {}
        }
        mounts.push(place(engine, planned, &rootfs, made).await?);
    }
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    make_dir(&engine.container_dir(id), 0o710)?;
    made.directory = true;
    let mut warnings = resolved.warnings.clone();
    warnings.extend(dropped_capabilities(engine, &resolved)?);
    let container = record(request, &image, resolved, mounts, &rootfs, (id, name), &warnings);
    let owner = Arc::clone(engine);
    let outline = Outline::from(&container);
    let entry = Arc::new(Entry::new(outline.clone()));
    blocking(move || {
        let spec = preview(&owner, &container);
        let events = owner.store.metadata().write_as(durability, |tx| {
            // Of one that is removed at its end a power loss leaves nothing to look for.
            if durability == Durability::Immediate {
                tx.names_directory(&owner.container_dir(&container.id));
            }
            tx.create(CONTAINERS, &container.id, &container)?;
            tx.put(records::CONTAINERS, &rcontainerd_store::metadata::key(NAMESPACE, &container.id), &primitive(&container, spec))?;
            owner.record_all(tx, vec![container_event(&outline, "create", &[])])
        })?;
        events.into_iter().for_each(|event| owner.events.publish(event));
        Ok(())
    })
    .await?;
    engine.registry.insert(entry);
    Ok(Created { id: id.to_owned(), warnings })
}

/// A container that is removed at its end is worth no sync: what a power loss leaves of it is cleaned up, a crash of the manager loses nothing.
/// Any other's snapshot becomes durable with its record.
fn kept(auto_remove: bool) -> (Persistence, Durability) {
    if auto_remove { (Persistence::Scratch, Durability::Volatile) } else { (Persistence::WithNext, Durability::Immediate) }
}

/// Asked-for capabilities that this host does not have; the default set's are told too, but a privileged container gets what there is.
fn dropped_capabilities(engine: &Engine, resolved: &Resolved) -> Result<Option<String>> {
    let host_config = &resolved.host_config;
    let wanted = crate::capabilities::resolve(&host_config.cap_add, &host_config.cap_drop, host_config.privileged)?;
    let (_, lacking) = crate::capabilities::split_by_host(&wanted, engine.host.bounding);
    let told = !lacking.is_empty() && !host_config.privileged && !host_config.cap_add.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    Ok(told.then(|| format!("the host does not have {}: the container runs without", lacking.join(", "))))
}

fn record(
    request: &CreateContainer,
    image: &Image,
    resolved: Resolved,
    mounts: Vec<MountPoint>,
    rootfs: &PreparedRootfs,
    (id, name): (&str, &str),
    warnings: &[String],
) -> Container {
    Container {
        id: id.to_owned(),
        name: name.to_owned(),
        created: Timestamp::now(),
        image_id: image.id.to_string(),
        manifest_digest: image.manifest.to_string(),
        platform: image.platform.to_string(),
        config: resolved.config,
        host_config: resolved.host_config,
        // `default` is what clients call the network that is used when none is named.
        endpoints: request
            .endpoints
            .iter()
            .map(|(name, endpoint)| (if name == "default" { "bridge".to_owned() } else { name.clone() }, endpoint.clone()))
            .collect(),
        left_mode: false,
        path: resolved.path,
        args: resolved.args,
        mounts,
        snapshot_key: rootfs.key.clone(),
        snapshotter: rootfs.snapshotter.clone(),
        hostname: resolved.hostname,
        warnings: warnings.to_vec(),
        state: State::default(),
    }
}

/// The OCI configuration as a start would write it now, for containerd's clients to look at; `None` where the start would fail, which is
/// the start's to tell.
fn preview(engine: &Engine, container: &Container) -> Option<AnyValue> {
    let build = || {
        let dirs = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.layer_dirs(&container.snapshot_key)?;
        let user = users::resolve(&Rootfs::open(&dirs)?, &container.config.user, &container.host_config.group_add)?;
        let netns = engine.config.network.netns_dir.join(&container.id);
        let inputs = spec::Inputs {
            host: &engine.host,
            user: &user,
            netns: Some(netns.as_path()).filter(|_| container.host_config.network_mode == "bridge"),
            joined: spec::Joined::default(),
            cgroups_path: start::cgroups_path(engine, container)?,
            files: start::files_of(engine, &container.id),
            init: &engine.config.init,
            console_size: container.host_config.console_size,
        };
        serde_json::to_vec(&spec::build(container, &inputs)?).map_err(|err| Error::internal(format!("encode config.json: {err}")))
    };
    match build() {
        Ok(value) => Some(AnyValue { type_url: SPEC_TYPE.to_owned(), value }),
        Err(err) => {
            tracing::debug!(container = container.id, "its configuration cannot be shown before the start: {err}");
            None
        }
    }
}

/// The container as containerd's clients see it in namespace `moby`.
fn primitive(container: &Container, spec: Option<AnyValue>) -> ContainerRecord {
    ContainerRecord {
        id: container.id.clone(),
        labels: BTreeMap::new(),
        image: container.config.image.clone(),
        runtime_name: "io.containerd.rrun.v2".to_owned(),
        runtime_options: None,
        spec,
        snapshotter: container.snapshotter.clone(),
        snapshot_key: container.snapshot_key.clone(),
        sandbox: String::new(),
        created: container.created,
        updated: container.created,
        extensions: BTreeMap::new(),
    }
}

/// Gives a planned mount its place on the host.
async fn place(engine: &Arc<Engine>, planned: &PlannedMount, rootfs: &PreparedRootfs, made: &mut Made) -> Result<MountPoint> {
    let mut point = MountPoint {
        kind: MountKind::Bind,
        name: String::new(),
        source: String::new(),
        destination: planned.destination.clone(),
        driver: String::new(),
        mode: planned.mode.clone(),
        read_write: !planned.read_only,
        propagation: planned.propagation.clone(),
        anonymous: false,
        no_copy: false,
        non_recursive: planned.non_recursive,
        tmpfs_options: Vec::new(),
    };
    match &planned.source {
        MountSource::Bind { path, create } => {
            bind_source(Path::new(path), *create)?;
            point.source.clone_from(path);
            if point.propagation.is_empty() {
                "rprivate".clone_into(&mut point.propagation);
            }
        }
        MountSource::Tmpfs { options } => {
            point.kind = MountKind::Tmpfs;
            point.tmpfs_options.clone_from(options);
        }
        MountSource::Volume { name, labels, no_copy, .. } => {
            let volume = volume(engine, name.as_deref(), labels, made).await?;
            if !no_copy {
                copy_up(engine, &volume, &planned.destination, rootfs).await?;
            }
            point.kind = MountKind::Volume;
            point.anonymous = name.is_none();
            point.no_copy = *no_copy;
            point.driver = volume.driver;
            point.source = volume.mountpoint.to_string_lossy().into_owned();
            point.name = volume.name;
        }
    }
    Ok(point)
}

async fn volume(engine: &Engine, name: Option<&str>, labels: &BTreeMap<String, String>, made: &mut Made) -> Result<Volume> {
    let existed = match name {
        Some(name) => engine.volumes.inspect(name).await.is_ok(),
        None => false,
    };
    let command = CreateVolume { name: name.unwrap_or_default().to_owned(), labels: labels.clone(), ..CreateVolume::default() };
    let volume = engine.volumes.create(command).await?;
    if !existed {
        made.volumes.push(volume.name.clone());
    }
    Ok(volume)
}

/// `-v` makes a missing directory, as Docker does; `--mount` says that it is missing.
fn bind_source(path: &Path, create: bool) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound && create => make_dir(path, 0o755),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::invalid(format!("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display())))
        }
        Err(err) => Err(Error::invalid(format!("invalid mount config for type \"bind\": stat {}: {err}", path.display()))),
    }
}

async fn copy_up(engine: &Arc<Engine>, volume: &Volume, destination: &str, rootfs: &PreparedRootfs) -> Result<()> {
    let owner = Arc::clone(engine);
    let (volume, destination, rootfs) = (volume.clone(), destination.to_owned(), rootfs.clone());
    blocking(move || {
        let looked =
            rootfs::copy::is_empty(&volume.mountpoint).map_err(|err| Error::io(format!("look into volume {}", volume.name), err))?;
        if !looked {
            return Ok(());
        }
        let dirs = owner.store.snapshotter(NAMESPACE, &rootfs.snapshotter)?.layer_dirs(&rootfs.key)?;
        rootfs::copy::populate(&Rootfs::open(&dirs)?, &destination, &volume.mountpoint)
    })
    .await
}
