//! The services behind every API: adapters translate their protocol into one command struct, call one method here, translate back.
//!
//! ```text
//! Core ─┬ images      pull, load, list, remove; root filesystems of new containers
//!       ├ containers  create, start, stop, attach, logs, … (Docker's containers, namespace `moby`)
//!       ├ execs       further processes in running containers
//!       ├ volumes     named and anonymous
//!       ├ networks    bridge, host, none
//!       ├ events      persisted, monotonic
//!       └ system      info, version, disk usage
//! ```
//!
//! What must survive what: records of containers, volumes and exit codes are synced to ROOT before a call returns; that a container runs (pid,
//! addresses) lies in STATE, since a reboot makes it untrue and the shim tells it again after a crash of the manager.

pub mod capabilities;
pub mod containers;
mod engine;
pub mod events;
pub mod execs;
pub mod filters;
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

use rcontainerd_network::Network;
use rcontainerd_store::Store;
use rcontainerd_task::{EventItem, TaskEventKind, TaskService};
use rcontainerd_types::Result;

use containers::registry::Registry;
use engine::Engine;
use images::{ImageEvent, ImageService, ImagesConfig};

pub use engine::{CoreConfig, NAMESPACE};
pub use filters::Filters;

/// All services; cheap to clone.
#[derive(Clone)]
pub struct Core {
    pub images: ImageService,
    pub containers: containers::Containers,
    pub execs: execs::Execs,
    pub volumes: volumes::Volumes,
    pub networks: networks::Networks,
    pub events: events::Events,
    pub system: system::System,
    pub store: Store,
    pub tasks: TaskService,
    closing: tokio_util::sync::CancellationToken,
}

impl Core {
    /// Opens every service and takes up the containers that an earlier manager left running.
    ///
    /// # Errors
    /// When a store, a directory or the network cannot be opened. Problems of single containers are logged.
    pub async fn open(config: CoreConfig, store: Store, tasks: TaskService) -> Result<Self> {
        let events = events::Events::open(&store)?;
        let told = events.clone();
        let images = ImagesConfig {
            insecure_registries: config.insecure_registries.clone(),
            registry_mirrors: config.registry_mirrors.clone(),
            on_event: Arc::new(move |event| told.announce(image_event(event))),
            ..ImagesConfig::default()
        };
        let images = ImageService::open(store.clone(), NAMESPACE, images);
        let registry = Arc::new(Registry::load(&store)?);
        let users = Arc::clone(&registry);
        let volumes = volumes::Volumes::open(store.clone(), events.clone(), Arc::new(move || Ok(users.volume_references())))?;
        engine::make_dir(&store.root().join("containers"), 0o711)?;
        engine::make_dir(&config.state_dir.join("c"), 0o711)?;
        let network = Arc::new(Network::open(config.network.clone())?);
        let closing = tokio_util::sync::CancellationToken::new();
        let engine = Arc::new(Engine {
            config,
            store: store.clone(),
            tasks: tasks.clone(),
            network,
            images: images.clone(),
            events: events.clone(),
            volumes: volumes.clone(),
            registry,
            execs: execs::table::ExecTable::default(),
            host: host::HostFacts::probe(),
            opened: jiff::Timestamp::now(),
            closing: closing.clone(),
        });
        watch_task_events(&engine);
        containers::recover::recover(&engine).await?;
        Ok(Self {
            images,
            containers: containers::Containers::new(Arc::clone(&engine)),
            execs: execs::Execs::new(Arc::clone(&engine)),
            volumes,
            networks: networks::Networks::new(Arc::clone(&engine)),
            events,
            system: system::System::new(engine),
            store,
            tasks,
            closing,
        })
    }

    /// Lets go of everything that watches, so that the last clone's drop gives the root free. Containers live on.
    pub fn close(&self) {
        self.closing.cancel();
    }
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
                let told = engine::container_event(&entry.record(), "oom", &[]);
                engine.update_volatile(&entry, vec![told], |container| container.state.oom_killed = true);
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
