//! The services behind every API: adapters translate their protocol into one command struct, call one method here, translate back.
//!
//! ```text
//! Core ─┬ images      pull, load, list, remove; root filesystems of new containers
//!       ├ containers  create, start, stop, attach, logs, … (Docker's containers, namespace `moby`)
//!       ├ execs       further processes in running containers
//!       ├ files       copy, export, changes
//!       ├ volumes     named and anonymous
//!       ├ networks    bridge, host, none, and user-defined bridges with names
//!       ├ events      persisted, monotonic
//!       ├ system      info, version, disk usage
//!       └ fsck        all of it against each other and the host
//! ```
//!
//! What must survive what: records of containers, volumes and exit codes are synced to ROOT before a call returns; that a container runs (pid,
//! addresses) lies in STATE, since a reboot makes it untrue and the shim tells it again after a crash of the manager.

pub mod capabilities;
pub mod containers;
mod engine;
pub mod events;
pub mod execs;
pub mod files;
pub mod filters;
pub mod fsck;
pub mod host;
mod human;
pub mod images;
pub mod io;
mod names;
pub mod networks;
pub mod primitives;
mod rootfs;
pub mod seccomp;
mod signal;
mod spec;
mod stdin;
pub mod system;
pub mod volumes;

use std::sync::Arc;

use rcontainerd_network::netd::Netd;
use rcontainerd_network::{Network, Watch};
use rcontainerd_store::Store;
use rcontainerd_task::{EventItem, TaskEventKind, TaskService};
use rcontainerd_types::Result;

use containers::registry::Registry;
use engine::Engine;
use images::{ImageEvent, ImageService, ImagesConfig};

pub use engine::{CoreConfig, NAMESPACE, RuntimeConfig};
pub use filters::Filters;

/// All services; cheap to clone.
#[derive(Clone)]
pub struct Core {
    pub images: ImageService,
    pub containers: containers::Containers,
    pub execs: execs::Execs,
    pub files: files::Files,
    pub volumes: volumes::Volumes,
    pub networks: networks::Networks,
    pub events: events::Events,
    pub system: system::System,
    pub fsck: fsck::Fsck,
    pub store: Store,
    pub tasks: TaskService,
    /// Tasks of containers that are not Docker's.
    pub primitive_tasks: primitives::tasks::Tasks,
    pub transfers: primitives::transfer::Transfers,
    closing: tokio_util::sync::CancellationToken,
    _rules: Option<Arc<Watch>>,
}

impl Core {
    /// Opens every service and takes up the containers that an earlier manager left running.
    ///
    /// # Errors
    /// When a store, a directory or the network cannot be opened. Problems of single containers are logged.
    pub async fn open(config: CoreConfig, store: Store, tasks: TaskService) -> Result<Self> {
        let events = events::Events::open(&store)?;
        let told = events.clone();
        let registry = Arc::new(Registry::load(&store)?);
        let made_from = Arc::clone(&registry);
        let images_config = ImagesConfig {
            registry: config.registry.clone(),
            caps: config.caps,
            in_use: Arc::new(move |image| made_from.uses(&image.to_string())),
            on_event: Arc::new(move |event| told.announce(image_event(event))),
            ..ImagesConfig::default()
        };
        let images = ImageService::open(store.clone(), NAMESPACE, images_config.clone());
        let users = Arc::clone(&registry);
        let volumes = volumes::Volumes::open(store.clone(), events.clone(), Arc::new(move || Ok(users.volume_references())))?;
        engine::make_dir(&store.root().join("containers"), 0o711)?;
        engine::make_dir(&config.state_dir.join("c"), 0o711)?;
        let network = Arc::new(Network::open(config.network.clone())?);
        let catalog = networks::catalog::Catalog::load(&store)?;
        network.define(&networks::definitions(&store)?)?;
        let rules = watch_rules(&network);
        let netd = Netd::new(config.netd.clone(), config.state_dir.join("netd.sock"));
        let closing = tokio_util::sync::CancellationToken::new();
        let engine = Arc::new(Engine {
            config,
            store: store.clone(),
            tasks: tasks.clone(),
            network,
            networks: catalog,
            netd,
            images: images.clone(),
            events: events.clone(),
            volumes: volumes.clone(),
            registry,
            execs: execs::table::ExecTable::default(),
            host: host::HostFacts::probe(),
            opened: jiff::Timestamp::now(),
            closing: closing.clone(),
            host_ends: tokio_util::sync::CancellationToken::new(),
        });
        watch_task_events(&engine);
        containers::recover::recover(&engine).await?;
        let runtimes = engine.config.runtimes.clone();
        let primitive_tasks = primitives::tasks::Tasks::open(store.clone(), tasks.clone(), runtimes, closing.clone()).await?;
        // Docker's listeners hear of Docker's namespace alone.
        let elsewhere = ImagesConfig { on_event: Arc::new(|_| {}), ..images_config };
        let transfers = primitives::transfer::Transfers::new(store.clone(), images.clone(), elsewhere);
        Ok(Self {
            images,
            containers: containers::Containers::new(Arc::clone(&engine)),
            execs: execs::Execs::new(Arc::clone(&engine)),
            files: files::Files::new(Arc::clone(&engine)),
            volumes,
            networks: networks::Networks::new(Arc::clone(&engine)),
            events,
            system: system::System::new(Arc::clone(&engine)),
            fsck: fsck::Fsck::new(engine),
            store,
            tasks,
            primitive_tasks,
            transfers,
            closing,
            _rules: rules,
        })
    }

    /// For the end of the host, which would wait for containers and shims: ends all of them, each in the time that it has for a stop.
    pub async fn end_with_host(&self) {
        self.containers.end_all().await;
    }

    /// Lets go of everything that watches, so that the last clone's drop gives the root free. Containers live on.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

/// A host without nf_tables has no rules to watch.
fn watch_rules(network: &Arc<Network>) -> Option<Arc<Watch>> {
    let watched = network.watch().map(Arc::new);
    watched.inspect_err(|err| tracing::debug!("the firewall rules are not watched: {err}")).ok()
}

/// Takes what only the shims' events tell: out of memory.
fn watch_task_events(engine: &Arc<Engine>) {
    let engine = Arc::clone(engine);
    let mut stream = engine.tasks.subscribe();
    let closing = engine.closing.clone();
    tokio::spawn(async move {
        while let Some(Some(item)) = closing.run_until_cancelled(stream.next()).await {
            let EventItem::Event(event) = item else { continue };
            let TaskEventKind::Oom { id } = &event.kind else { continue };
            if event.namespace == NAMESPACE
                && let Ok(entry) = engine.registry.find(id)
            {
                let told = engine::container_event(&entry.view(), "oom", &[]);
                engine.update_volatile(&entry, vec![told], |state| state.oom_killed = true);
            }
        }
    });
}

fn image_event(event: ImageEvent) -> events::NewEvent {
    let (action, id, name) = match event {
        ImageEvent::Pull { id, name } => ("pull", id, name),
        ImageEvent::Tag { id, name } => ("tag", id, name),
        ImageEvent::Untag { id, name } => ("untag", id, name),
        ImageEvent::Delete { id } => ("delete", id.clone(), id.to_string()),
        ImageEvent::Load { id, name } => ("load", id, name),
        ImageEvent::Save { id, name } => ("save", id, name),
    };
    // Docker tells a pull by the name, all else by the id.
    let actor = if action == "pull" { name.clone() } else { id.to_string() };
    let attributes = std::collections::BTreeMap::from([("name".to_owned(), name)]);
    events::NewEvent { kind: events::EventKind::Image, action: action.to_owned(), actor, attributes }
}
