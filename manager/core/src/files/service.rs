//! The service over containers' files.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcontainerd_store::tree::{self, Change, ExtractOptions, Scope, TarWriter, Times};
use rcontainerd_types::{Error, ErrorKind, Result};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::view::{self, Placed, Plan, Root};
use super::{ContainerPath, CopyInto, MOUNT_PLACES, PathStat, missing, paths, timestamp};
use crate::containers::registry::Entry;
use crate::containers::{Container, MountKind, MountPoint};
use crate::engine::{Engine, NAMESPACE, blocking, container_event, owned};
use crate::rootfs::{Rootfs, users};

/// Cheap to clone.
#[derive(Clone)]
pub struct Files {
    engine: Arc<Engine>,
}

impl Files {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// # Errors
    /// `NotFound` for the container or the path.
    pub async fn stat(&self, command: ContainerPath) -> Result<PathStat> {
        self.look(command, |_, scope, path| stat(scope, path)).await
    }

    /// What the path is; its archive then goes to `out`, in a task whose outcome is the receiver's.
    ///
    /// # Errors
    /// `NotFound` for the container or the path.
    pub async fn archive(
        &self,
        command: ContainerPath,
        out: impl Write + Send + 'static,
    ) -> Result<(PathStat, tokio::task::JoinHandle<Result<()>>)> {
        let (told, found) = oneshot::channel();
        let files = self.clone();
        let task = tokio::spawn(async move {
            let work = move |_: &Container, scope: &Scope, path: &str| {
                let found = stat(scope, path)?;
                // Nobody waits any more: the client has gone.
                drop(told.send(found));
                archive(scope, path, out)
            };
            files.look_and_tell(command, "archive-path", work).await
        });
        match found.await {
            Ok(found) => Ok((found, task)),
            Err(_) => match task.await {
                Ok(Err(err)) => Err(err),
                _ => Err(Error::internal("the archive ended before it began")),
            },
        }
    }

    /// Extracts an archive (plain, gzip, zstd, xz, bzip2).
    ///
    /// # Errors
    /// `NotFound` for the container or the directory; `PermissionDenied` where it is read-only; `InvalidArgument` for the archive.
    pub async fn copy_into(&self, command: CopyInto, archive: impl Read + Send + 'static) -> Result<()> {
        let owner = if command.as_user { Some(self.user_of(&command.container).await?) } else { None };
        let options = ExtractOptions { keep_kinds: command.keep_kinds, owner };
        let place = ContainerPath { container: command.container, path: command.path };
        let files = self.clone();
        let work = move |container: &Container, scope: &Scope, path: &str| extract(container, scope, path, options, archive);
        owned(async move { files.look_and_tell(place, "extract-to-dir", work).await }).await
    }

    /// Everything but volumes and binds, as one archive.
    ///
    /// # Errors
    /// `NotFound`; those of `out`.
    pub async fn export(&self, container: &str, out: impl Write + Send + 'static) -> Result<()> {
        let command = ContainerPath { container: container.to_owned(), path: "/".to_owned() };
        let entry = self.engine.registry.find(container)?;
        let work = move |_: &Container, scope: &Scope, _: &str| write(scope.root(), c".", b"", out);
        self.view(&entry, command.path, false, work).await?;
        self.engine.events.announce(container_event(&entry.view(), "export", &[]));
        Ok(())
    }

    /// What the container has changed of its image.
    ///
    /// # Errors
    /// `NotFound`; I/O errors.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let (engine, entry) = (Arc::clone(&self.engine), self.engine.registry.find(container)?);
        blocking(move || {
            let container = entry.view();
            tree::changes(&*engine.store.snapshotter(NAMESPACE, &container.snapshotter)?, &container.snapshot_key, MOUNT_PLACES)
        })
        .await
    }

    async fn user_of(&self, container: &str) -> Result<(u32, u32)> {
        let (engine, entry) = (Arc::clone(&self.engine), self.engine.registry.find(container)?);
        blocking(move || {
            let container = engine.record_now(&entry)?;
            let dirs = engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.layer_dirs(&container.snapshot_key)?;
            let user = users::resolve(&Rootfs::open(&dirs)?, &container.config.user, &[])?;
            Ok((user.uid, user.gid))
        })
        .await
    }

    async fn look<T: Send + 'static>(
        &self,
        command: ContainerPath,
        work: impl FnOnce(&Container, &Scope, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let entry = self.engine.registry.find(&command.container)?;
        self.view(&entry, command.path.clone(), true, work).await.map_err(|err| match err.kind() {
            ErrorKind::NotFound => missing(&command.path, &command.container).with_source(err),
            _ => err,
        })
    }

    async fn look_and_tell<T: Send + 'static>(
        &self,
        command: ContainerPath,
        action: &'static str,
        work: impl FnOnce(&Container, &Scope, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let entry = self.engine.registry.find(&command.container)?;
        let done = self.look(command, work).await?;
        self.engine.events.announce(container_event(&entry.view(), action, &[]));
        Ok(done)
    }

    /// Works on the container's files. A stopped container's root is mounted for it, so nobody else may mount it meanwhile; a running
    /// one must not be started anew before the old root is let go.
    async fn view<T: Send + 'static>(
        &self,
        entry: &Arc<Entry>,
        path: String,
        volumes: bool,
        work: impl FnOnce(&Container, &Scope, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let operation = entry.operation.lock().await;
        let runs = entry.live().is_some();
        let held = Arc::clone(entry);
        let (shared, alone) = if runs { (Some(held.files.read().await), None) } else { (None, Some(held.files.write().await)) };
        drop(operation);
        let (engine, entry) = (Arc::clone(&self.engine), Arc::clone(entry));
        let done = blocking(move || {
            let container = engine.record_now(&entry)?;
            let plan = plan(&engine, &container, runs, volumes)?;
            let absolute = paths::absolute(&path);
            view::within(&plan, |scope| work(&container, scope, &absolute))
        })
        .await;
        drop((shared, alone));
        done
    }
}

fn plan(engine: &Engine, container: &Container, runs: bool, volumes: bool) -> Result<Plan> {
    let dir = engine.container_dir(&container.id);
    let root = if runs {
        Root::Mounted(engine.tasks.bundle_path(&engine.task_key(&container.id)).join("rootfs"))
    } else {
        Root::Snapshot(engine.store.snapshotter(NAMESPACE, &container.snapshotter)?.mounts(&container.snapshot_key)?)
    };
    let mut mounts = Vec::new();
    if volumes {
        mounts.extend(own_files(&dir, container));
        mounts.extend(container.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs).map(placed));
    }
    Ok(Plan { root, cover: dir, read_only: volumes && container.host_config.readonly_rootfs, mounts })
}

/// The three files that the last start has written.
fn own_files(dir: &Path, container: &Container) -> Vec<Placed> {
    let place = |name: &str| Placed {
        source: dir.join(name),
        destination: format!("/etc/{name}"),
        read_only: container.host_config.readonly_rootfs,
        recursive: false,
    };
    let taken = |placed: &Placed| container.mounts.iter().any(|mount| mount.destination == placed.destination);
    ["resolv.conf", "hostname", "hosts"].map(place).into_iter().filter(|placed| placed.source.exists() && !taken(placed)).collect()
}

fn placed(mount: &MountPoint) -> Placed {
    Placed {
        source: PathBuf::from(&mount.source),
        destination: mount.destination.clone(),
        read_only: !mount.read_write,
        recursive: !mount.non_recursive,
    }
}

fn failed(path: &str, err: Errno) -> Error {
    match err {
        Errno::NOENT => Error::not_found(format!("{path}: no such file or directory")),
        Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => Error::invalid(format!("{path}: {err}")),
        _ => Error::io(format!("look at {path}"), err.into()),
    }
}

/// A path's parent, opened, and the name in it.
fn open_parent(scope: &Scope, path: &str) -> Result<(std::os::fd::OwnedFd, CString)> {
    let (parent, name) = paths::split(path);
    let dir = scope.dir(parent.as_bytes()).map_err(|err| failed(path, err))?;
    let name = if name.is_empty() { "." } else { name };
    Ok((dir, CString::new(name).map_err(|_| Error::invalid("a path contains a NUL byte"))?))
}

fn stat(scope: &Scope, path: &str) -> Result<PathStat> {
    let (dir, name) = open_parent(scope, path)?;
    let (stat, link): (Stat, Option<CString>) = Scope::look(dir.as_fd(), &name).map_err(|err| failed(path, err))?;
    let link_target = match link {
        None => String::new(),
        Some(target) => follow(scope, path, &target.to_string_lossy())?,
    };
    Ok(PathStat {
        name: paths::base(path).to_owned(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: timestamp(stat.st_mtime, stat.st_mtime_nsec)?,
        link_target,
    })
}

/// Where a link leads in the end; one that leads nowhere is told as it is written.
fn follow(scope: &Scope, path: &str, target: &str) -> Result<String> {
    match scope.object(path.trim_start_matches('/').as_bytes()) {
        Ok(object) => view::path_of(scope, &object),
        Err(_) if target.starts_with('/') => Ok(paths::absolute(target)),
        Err(_) => Ok(paths::absolute(&format!("{}/{target}", paths::split(path).0))),
    }
}

fn archive(scope: &Scope, path: &str, out: impl Write) -> Result<()> {
    let (dir, name) = open_parent(scope, path)?;
    write(dir.as_fd(), &name, paths::base(path).as_bytes(), out)
}

fn write(dir: std::os::fd::BorrowedFd<'_>, name: &std::ffi::CStr, path: &[u8], out: impl Write) -> Result<()> {
    let mut writer = TarWriter::new(out, Times::Seconds);
    tree::write_tree(&mut writer, dir, name, path)?;
    writer.finish().map(drop)
}

fn extract(container: &Container, scope: &Scope, path: &str, options: ExtractOptions, archive: impl Read) -> Result<()> {
    let relative = path.trim_start_matches('/');
    let object = scope.object(relative.as_bytes()).map_err(|err| match err {
        Errno::NOTDIR => not_a_directory(),
        err => failed(path, err),
    })?;
    let found = rustix::fs::fstat(&object).map_err(|err| failed(path, err))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(not_a_directory());
    }
    let at = view::path_of(scope, &object)?;
    if view::is_read_only(&object) {
        let volume = container.mounts.iter().any(|mount| at == mount.destination || at.starts_with(&format!("{}/", mount.destination)));
        let what = if volume { "mounted volume is marked read-only" } else { "container rootfs is marked read-only" };
        return Err(Error::new(ErrorKind::PermissionDenied, what));
    }
    tree::extract(archive, scope, at.trim_start_matches('/').as_bytes(), options)
}

fn not_a_directory() -> Error {
    Error::invalid("extraction point is not a directory")
}
