//! The service against Debian's registry and against one that a test controls, with a real store.

mod caps;
mod carried;
mod catalog;
mod leftovers;
mod rules;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcontainerd_registry::testing::{Auth, Compression, ImageBuilder, Layout, RealRegistry, Reply, Request, Server, tar_of};
use rcontainerd_registry::{Limits, RegistryConfig};
use rcontainerd_store::{Persistence, Store};
use rcontainerd_types::{Digest, ErrorKind, Reference, Result};

use super::{
    Credentials, ImageEvent, ImageFilters, ImageService, ImageUser, ImagesConfig, LayerStep, PullEvent, PullImage, PulledImage,
    RemoveImage, Removed,
};

/// A service on a store of its own.
struct Host {
    images: ImageService,
    store: Store,
    events: Arc<Mutex<Vec<ImageEvent>>>,
    _dir: Option<tempfile::TempDir>,
}

fn host() -> Host {
    let dir = tempfile::tempdir().expect("directory");
    let host = host_at(dir.path());
    Host { _dir: Some(dir), ..host }
}

fn host_at(root: &std::path::Path) -> Host {
    let store = Store::open(root).expect("store");
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let limits = Limits { first_pause: Duration::from_millis(5), longest_pause: Duration::from_millis(20), ..Limits::default() };
    let config = ImagesConfig {
        registry: RegistryConfig { host_dirs: Vec::new(), limits, ..RegistryConfig::default() },
        on_event: Arc::new(move |event| heard.lock().expect("lock").push(event)),
        ..ImagesConfig::default()
    };
    Host { images: ImageService::open(store.clone(), "moby", config), store, events, _dir: None }
}

impl Host {
    async fn pull(&self, name: &str) -> Result<(Vec<PullEvent>, PulledImage)> {
        self.pull_as(PullImage::anonymous(name.parse().expect("reference"))).await
    }

    async fn pull_as(&self, request: PullImage) -> Result<(Vec<PullEvent>, PulledImage)> {
        let mut pull = self.images.pull(request);
        let mut events = Vec::new();
        while let Some(event) = pull.next().await {
            events.push(event);
        }
        pull.finish().await.map(|mut pulled| (events, pulled.remove(0)))
    }

    /// Nothing is half made: no ingest, no lease, no active snapshot.
    fn assert_clean(&self) {
        assert_eq!(self.store.content("moby").ingests().expect("ingests"), []);
        assert!(self.store.leases("moby").list().expect("leases").is_empty());
        let snapshots = self.store.snapshots("moby").list().expect("snapshots");
        assert!(snapshots.iter().all(|info| info.kind == rcontainerd_store::Kind::Committed), "{snapshots:?}");
    }

    fn assert_empty(&self) {
        self.assert_clean();
        assert_eq!(self.store.content("moby").list().expect("content"), []);
        assert_eq!(self.store.snapshots("moby").list().expect("snapshots"), []);
        assert_eq!(self.store.images("moby").list().expect("images"), []);
    }

    async fn remove(&self, name: &str, force: bool, users: Vec<ImageUser>) -> Result<Vec<Removed>> {
        self.images.remove(RemoveImage { name: name.into(), force, keep_parents: false }, move |_| Ok(users.clone())).await
    }
}

fn layers(prefix: &str, count: usize, compression: Compression) -> ImageBuilder {
    (0..count).fold(ImageBuilder::default(), |image, n| {
        image.layer(tar_of(&[(&format!("{prefix}{n}"), format!("{prefix} {n}").repeat(1000).as_bytes(), 0o644)]), compression)
    })
}

fn one(tag: &str, image: &ImageBuilder) -> Layout {
    let mut layout = Layout::new();
    let target = layout.image(image);
    layout.tag(tag, &target);
    layout
}

/// Serves a layout as repository `app`; `watch` sees each request and may answer itself.
fn serve(layout: Layout, tags: Vec<(&'static str, Digest)>, watch: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    Server::start(move |request| {
        if let Some(reply) = watch(request) {
            return reply;
        }
        let last = request.path.rsplit('/').next().unwrap_or_default();
        let digest = tags.iter().find(|(tag, _)| *tag == last).map(|(_, digest)| digest.clone()).or_else(|| last.parse().ok());
        match digest {
            Some(digest) => {
                let kind = if request.path.contains("/manifests/") {
                    rcontainerd_types::media_type::OCI_MANIFEST
                } else {
                    "application/octet-stream"
                };
                Reply::new(200, layout.read(&digest)).header("Content-Type", kind).header("Docker-Content-Digest", digest)
            }
            None => Reply::new(200, "{}"),
        }
    })
}

fn steps(events: &[PullEvent]) -> Vec<LayerStep> {
    let step = |event: &PullEvent| match event {
        PullEvent::Layer { step, .. } => Some(*step),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pull_from_a_real_registry_and_pull_again() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    registry.push(&one("x", &layers("f", 3, Compression::Gzip)), "x", "app:1", "oci");
    let name = format!("{}/app:1", registry.authority());
    let (events, pulled) = host.pull(&name).await.expect("pull");
    assert!(pulled.is_new);
    let reference: Reference = name.parse().expect("reference");
    assert_eq!(events.first(), Some(&PullEvent::Started { reference: reference.clone() }));
    assert_eq!(events.last(), Some(&PullEvent::Finished { reference: reference.clone(), is_new: true }));
    assert_eq!(steps(&events).iter().filter(|step| **step == LayerStep::PullComplete).count(), 3);

    let image = host.images.inspect(&name).await.expect("inspect");
    assert_eq!(image.id, pulled.id);
    assert_eq!(image.repo_tags, std::slice::from_ref(&reference));
    assert_eq!(image.repo_digests, [reference.with_digest(pulled.digest.clone())]);
    assert!(image.size > 0 && image.created == Some(1_704_164_645), "{image:?}");
    assert_eq!(image.config().cmd, ["/bin/sh"]);

    let (again, second) = host.pull(&name).await.expect("pull again");
    assert!(!second.is_new && second.id == pulled.id);
    assert_eq!(steps(&again), []);
    assert_eq!(again.last(), Some(&PullEvent::Finished { reference, is_new: false }));
    host.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_and_format_gives_the_same_files() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    for (tag, compression, format) in [
        ("a", Compression::Gzip, "oci"),
        ("b", Compression::Gzip, "v2s2"),
        ("c", Compression::Zstd, "oci"),
        ("d", Compression::None, "all"),
    ] {
        registry.push(&one("x", &layers("f", 2, compression)), "x", &format!("app:{tag}"), format);
        let name = format!("{}/app:{tag}", registry.authority());
        let (_, pulled) = host.pull(&name).await.unwrap_or_else(|err| panic!("{tag}: {err}"));
        let rootfs = host.images.prepare_rootfs(&pulled.id, &format!("container-{tag}"), Persistence::Durable).await.expect("rootfs");
        let snapshots = host.store.snapshotter("moby", &rootfs.snapshotter).expect("snapshotter");
        let dirs = snapshots.layer_dirs(&rootfs.key).expect("dirs");
        let found = dirs.lowers.iter().chain([&dirs.upper]).any(|dir| dir.join("f1").exists());
        assert!(found, "{tag}: the layer's file is in {dirs:?}");
    }
    let err = host.images.prepare_rootfs(&Digest::sha256(b"?"), "x", Persistence::Durable).await.expect_err("no such image");
    assert_eq!(err.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_followed_to_the_platform() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    let mut layout = Layout::new();
    let entry = |arch: &str| layout.image(&layers(&arch.replace('/', "-"), 1, Compression::Gzip).platform(arch));
    let images = [entry("linux/amd64"), entry("linux/arm/v7"), entry("linux/s390x")];
    let index = layout.index(&images);
    layout.tag("multi", &index);
    registry.push(&layout, "multi", "app:multi", "all");
    let name = format!("{}/app:multi", registry.authority());
    let (_, pulled) = host.pull(&name).await.expect("host's platform");
    assert_eq!(pulled.digest, index.digest, "the name points at the index");
    let of = |platform: &str| PullImage {
        platform: Some(platform.parse().expect("platform")),
        ..PullImage::anonymous(name.parse().expect("name"))
    };
    let (_, arm) = host.pull_as(of("linux/arm/v7")).await.expect("arm");
    assert_eq!(host.images.inspect(&name).await.expect("inspect").id, arm.id, "the name moved to what was asked for last");
    assert_ne!(arm.id, pulled.id);
    let err = host.pull_as(of("linux/arm64")).await.expect_err("not offered");
    assert_eq!(err.message(), "no matching manifest for linux/arm64 in the manifest list entries");
    host.assert_clean();

    registry.push(&layout, "multi", "single:1", "oci");
    let single: Reference = format!("{}/single:1", registry.authority()).parse().expect("name");
    let err = host.pull_as(PullImage { platform: Some("linux/arm64".parse().expect("platform")), ..PullImage::anonymous(single) }).await;
    assert!(err.expect_err("another platform").message().contains("does not match the specified platform"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_reach_the_registry() {
    let (registry, host) = (RealRegistry::start(Auth::Token(60), false), host());
    registry.push(&one("x", &layers("f", 1, Compression::Gzip)), "x", "app:1", "oci");
    let reference: Reference = format!("{}/app:1", registry.authority()).parse().expect("name");
    let credentials = Credentials::Basic { username: RealRegistry::USER.into(), password: RealRegistry::PASSWORD.into() };
    host.pull_as(PullImage { credentials, ..PullImage::anonymous(reference.clone()) }).await.expect("pull");
    assert_eq!(host.pull(&reference.to_string()).await.expect_err("anonymous").kind(), ErrorKind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moved_leaves_a_dangling_image() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    let name = format!("{}/app:1", registry.authority());
    registry.push(&one("x", &layers("old", 1, Compression::Gzip)), "x", "app:1", "oci");
    let old = host.pull(&name).await.expect("old").1.id;
    registry.push(&one("x", &layers("new", 1, Compression::Gzip)), "x", "app:1", "oci");
    let (_, new) = host.pull(&name).await.expect("new");
    assert!(new.is_new && new.id != old);
    let dangling: Vec<_> =
        host.images.list(ImageFilters { dangling: Some(true), ..ImageFilters::default() }).await.expect("list").collect();
    assert_eq!(dangling.iter().map(|image| &image.id).collect::<Vec<_>>(), [&old]);
    let removed = host.remove(&old.hex()[..12], false, Vec::new()).await.expect("remove by prefix");
    assert_eq!(removed.first(), Some(&Removed::Deleted(old)));
    host.remove(&name, false, Vec::new()).await.expect("remove the other");
    host.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_layer_that_is_here_nothing_else_is_told() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    registry.push(&one("x", &layers("same", 2, Compression::Gzip)), "x", "app:1", "oci");
    let more = layers("same", 2, Compression::Gzip).layer(tar_of(&[("more", b"x", 0o644)]), Compression::Gzip);
    registry.push(&one("x", &more), "x", "more:1", "oci");
    host.pull(&format!("{}/app:1", registry.authority())).await.expect("the first");
    let (events, _) = host.pull(&format!("{}/more:1", registry.authority())).await.expect("the second");
    let steps: Vec<(&str, &LayerStep)> = events
        .iter()
        .filter_map(|event| if let PullEvent::Layer { id, step } = event { Some((id.as_str(), step)) } else { None })
        .collect();
    let there: Vec<&str> = steps.iter().filter(|(_, step)| **step == LayerStep::AlreadyExists).map(|(name, _)| *name).collect();
    assert_eq!(there.len(), 2, "{steps:?}");
    assert!(steps.iter().all(|(name, step)| !there.contains(name) || **step == LayerStep::AlreadyExists), "{steps:?}");
    assert!(steps.iter().any(|(_, step)| **step == LayerStep::PullComplete), "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_at_once_fetch_each_blob_once() {
    let layout = Layout::new();
    let target = layout.image(&layers("f", 4, Compression::Gzip));
    let blobs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&blobs);
    let server = serve(layout, vec![("1", target.digest.clone()), ("2", target.digest)], move |request| {
        count.fetch_add(usize::from(request.path.contains("/blobs/")), Ordering::SeqCst);
        None
    });
    let host = host();
    let names = [format!("{}/app:1", server.authority()), format!("{}/app:2", server.authority())];
    let (first, second) = tokio::join!(host.pull(&names[0]), host.pull(&names[1]));
    assert_eq!(first.expect("first").1.id, second.expect("second").1.id);
    assert_eq!(blobs.load(Ordering::SeqCst), 5, "four layers and a config");
    assert_eq!(host.images.list(ImageFilters::default()).await.expect("list").len(), 1);
    host.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_pull_leaves_nothing_half_made() {
    let layout = Layout::new();
    let target = layout.image(&layers("f", 2, Compression::Gzip));
    let manifest: serde_json::Value = serde_json::from_slice(&layout.read(&target.digest)).expect("manifest");
    let slow: Digest = manifest["layers"][1]["digest"].as_str().expect("digest").parse().expect("digest");
    let bytes = layout.read(&slow);
    let server = serve(layout, vec![("1", target.digest)], move |request| {
        let stalls = request.path.ends_with(&slow.to_string());
        stalls.then(|| Reply {
            claimed_length: Some(bytes.len()),
            stall: Some(Duration::from_secs(20)),
            ..Reply::new(200, &bytes[..bytes.len() / 2])
        })
    });
    let host = host();
    let mut pull = host.images.pull(PullImage::anonymous(format!("{}/app:1", server.authority()).parse().expect("name")));
    while let Some(event) = pull.next().await {
        if matches!(event, PullEvent::Layer { step: LayerStep::Downloading(now, all), .. } if now < all) {
            break;
        }
    }
    pull.cancel();
    assert_eq!(pull.finish().await.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert_eq!(host.store.images("moby").list().expect("images"), []);
    // The writer's thread and the lease end on their own time.
    for _ in 0..500 {
        let gone = host.store.content("moby").ingests().expect("ingests").is_empty()
            && host.store.leases("moby").list().expect("leases").is_empty()
            && host.store.snapshots("moby").list().expect("snapshots").iter().all(|info| info.kind == rcontainerd_store::Kind::Committed);
        if gone {
            return host.assert_clean();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_or_a_layer_that_lies_gives_no_image() {
    let layout = Layout::new();
    let target = layout.image(&layers("f", 1, Compression::Gzip));
    let manifest: serde_json::Value = serde_json::from_slice(&layout.read(&target.digest)).expect("manifest");
    let liar: Digest = manifest["layers"][0]["digest"].as_str().expect("digest").parse().expect("digest");
    let mut bytes = layout.read(&liar);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let server = serve(layout, vec![("1", target.digest)], move |request| {
        request.path.ends_with(&liar.to_string()).then(|| Reply::new(200, bytes.clone()))
    });
    let host = host();
    let err = host.pull(&format!("{}/app:1", server.authority())).await.expect_err("wrong digest");
    assert_eq!(err.kind(), ErrorKind::DataLoss);
    assert!(err.message().contains("what arrived has digest") && !err.message().contains('\n'), "the cause, not its consequence: {err}");
    assert_eq!(host.images.list(ImageFilters::default()).await.expect("list").len(), 0);
    assert_eq!(host.store.snapshots("moby").list().expect("snapshots"), []);
    host.assert_clean();

    // Blobs that are what their digests say, under a config that names other content.
    let layout = Layout::new();
    let honest = layout.image(&layers("f", 1, Compression::Gzip));
    let mut manifest: serde_json::Value = serde_json::from_slice(&layout.read(&honest.digest)).expect("manifest");
    let config: Digest = manifest["config"]["digest"].as_str().expect("digest").parse().expect("digest");
    let mut config: serde_json::Value = serde_json::from_slice(&layout.read(&config)).expect("config");
    config["rootfs"]["diff_ids"] = serde_json::json!([Digest::sha256(b"something else")]);
    manifest["config"] =
        serde_json::to_value(layout.blob(rcontainerd_types::media_type::OCI_CONFIG, config.to_string().as_bytes())).expect("json");
    let target = layout.blob(rcontainerd_types::media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
    let server = serve(layout, vec![("1", target.digest)], |_| None);
    let err = host.pull(&format!("{}/app:1", server.authority())).await.expect_err("wrong DiffID");
    assert_eq!(err.kind(), ErrorKind::DataLoss, "{err}");
    assert_eq!(host.store.snapshots("moby").list().expect("snapshots"), []);
    host.assert_clean();
}

/// An image with one plain layer of two large files, and that layer's digest.
fn two_files() -> (Layout, Digest, Digest) {
    let layout = Layout::new();
    let tar = tar_of(&[("first", &[1; 1 << 20], 0o644), ("second", &[2; 1 << 20], 0o644)]);
    let target = layout.image(&ImageBuilder::default().layer(tar, Compression::None));
    let manifest: serde_json::Value = serde_json::from_slice(&layout.read(&target.digest)).expect("manifest");
    let layer = manifest["layers"][0]["digest"].as_str().expect("digest").parse().expect("digest");
    (layout, target.digest, layer)
}

/// The offset that a request's range begins at.
fn range_start(request: &Request) -> usize {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")).unwrap_or("0-");
    range.trim_end_matches('-').parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_is_unpacked_while_it_comes_and_seen_when_it_is_whole() {
    let (layout, target, layer) = two_files();
    let bytes = layout.read(&layer);
    let (half, path) = (bytes.len() * 3 / 4, layer.to_string());
    let server = serve(layout, vec![("1", target)], move |request| {
        request.path.ends_with(&path).then(|| match range_start(request) {
            0 => Reply { claimed_length: Some(bytes.len()), stall: Some(Duration::from_secs(2)), ..Reply::new(200, &bytes[..half]) },
            from => Reply::new(206, &bytes[from..]).header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        })
    });
    let host = host();
    let name = format!("{}/app:1", server.authority());
    let pull = host.pull(&name);
    tokio::pin!(pull);
    let early = async {
        loop {
            let active = host.store.snapshots("moby").list().expect("snapshots").into_iter().find(|info| info.name.starts_with("extract-"));
            if let Some(active) = active
                && let Ok(dirs) = host.store.snapshots("moby").layer_dirs(&active.name)
                && std::fs::metadata(dirs.upper.join("first")).is_ok_and(|file| file.len() == 1 << 20)
            {
                return host.store.content("moby").contains(&layer).expect("content");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let here = tokio::select! { here = early => here, _ = &mut pull => panic!("the pull ended before a file was seen") };
    assert!(!here, "the blob is not whole yet");
    pull.await.expect("pull");
    host.assert_clean();
    assert_eq!(host.store.snapshots("moby").list().expect("snapshots").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_always_breaks_gives_no_image_and_the_next_pull_goes_on() {
    let (layout, target, layer) = two_files();
    let bytes = layout.read(&layer);
    let (path, mended) = (layer.to_string(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let (whole, starts) = (Arc::clone(&mended), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&starts);
    let server = serve(layout, vec![("1", target)], move |request| {
        let from = range_start(request);
        request.path.ends_with(&path).then(|| {
            seen.lock().expect("lock").push(from);
            let to = if whole.load(Ordering::SeqCst) { bytes.len() } else { bytes.len() / 2 };
            let reply = Reply {
                claimed_length: Some(bytes.len() - from),
                ..Reply::new(if from > 0 { 206 } else { 200 }, &bytes[from..to.max(from)])
            };
            reply.header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
        })
    });
    let host = host();
    let name = format!("{}/app:1", server.authority());
    let err = host.pull(&name).await.expect_err("cut short");
    assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
    assert!(!err.message().contains('\n'), "{err}");
    assert_eq!(host.store.images("moby").list().expect("images"), []);
    assert_eq!(host.store.snapshots("moby").list().expect("snapshots"), []);
    mended.store(true, Ordering::SeqCst);
    host.pull(&name).await.expect("pull");
    let last = *starts.lock().expect("lock").last().expect("asked");
    assert!(last > 1 << 19, "what had arrived was fetched again from {last}");
    host.assert_clean();
}

/// A tmpfs that is full with `megabytes`; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "test"]).arg(dir.path()).status();
        assert!(mounted.expect("mount").success(), "this test needs root");
        Self(dir)
    }

    fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.0.path()).expect("statvfs");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_fills_the_disk_gives_everything_back() {
    let layout = Layout::new();
    let tar = |name: &str, byte: u8| tar_of(&[(name, vec![byte; 2 << 20].as_slice(), 0o644)]);
    let image = (0..4).fold(ImageBuilder::default(), |image, n| image.layer(tar(&format!("f{n}"), n), Compression::None));
    let target = layout.image(&image);
    let server = serve(layout, vec![("1", target.digest)], |_| None);
    let disk = SmallDisk::new(11);
    let host = host_at(&disk.0.path().join("root"));
    let before = disk.used();
    let err = host.pull(&format!("{}/app:1", server.authority())).await.expect_err("no room");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
    assert!(err.message().contains("No space left on device") && !err.message().contains('\n'), "{err}");
    host.assert_empty();
    // The database keeps the pages that it has grown by, and may have given its reserve for it.
    let own = ["meta.redb", "meta.journal", "meta.reserve"].map(|name| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(disk.0.path().join("root").join(name)).map_or(0, |file| file.blocks() * 512)
    });
    let left = disk.used().saturating_sub(own.iter().sum());
    assert!(left < before.min(256 << 10), "{left} bytes are left, beside the database's {own:?}");
    assert!(host.store.fsck(&rcontainerd_store::fsck::FsckOptions { digests: true, repair: false }).expect("fsck").is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_ids_and_prefixes() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    registry.push(&one("x", &layers("f", 1, Compression::Gzip)), "x", "app:1", "oci");
    let name = format!("{}/app:1", registry.authority());
    let id = host.pull(&name).await.expect("pull").1.id;
    host.images.tag(&name, "mine/app".parse().expect("name")).await.expect("tag");
    for known in
        [name.as_str(), "mine/app", "mine/app:latest", "docker.io/mine/app", &id.to_string(), id.hex(), &id.hex()[..12], &id.hex()[..2]]
    {
        assert_eq!(host.images.resolve(known).await.unwrap_or_else(|err| panic!("{known}: {err}")), id);
    }
    let missing = host.images.resolve("nobody/knows").await.expect_err("missing");
    assert_eq!((missing.kind(), missing.message()), (ErrorKind::NotFound, "No such image: nobody/knows:latest"));
    assert_eq!(host.images.resolve("UPPER").await.expect_err("malformed").kind(), ErrorKind::InvalidArgument);

    let list: Vec<_> =
        host.images.list(ImageFilters { references: vec!["mine/*".into()], ..ImageFilters::default() }).await.expect("list").collect();
    assert_eq!(list[0].repo_tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["mine/app:latest"]);
    let history = host.images.history("mine/app", None).await.expect("history");
    assert_eq!(history.len(), 1);
    assert!(history[0].size > 0 && history[0].id == Some(id.clone()) && history[0].created_by == "a test", "{history:?}");

    let removed = host.remove("mine/app", false, Vec::new()).await.expect("untag");
    assert_eq!(removed, [Removed::Untagged("mine/app:latest".into())]);
    host.remove(&name, false, Vec::new()).await.expect("remove");
    host.assert_empty();
    assert!(host.events.lock().expect("lock").contains(&ImageEvent::Delete { id }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_protect_their_image_by_dockers_rules() {
    let host = host();
    let program = tempfile::NamedTempFile::new().expect("file");
    program.as_file().write_all(b"not really a program").expect("write");
    let id = host.images.ensure_shipped(program.path()).await.expect("shipped");
    let name = "rcontainerd/hello";
    let user = |running| vec![ImageUser { container_id: "c".repeat(64), image_id: id.clone(), image_name: name.into(), running }];
    let short = &id.hex()[..12];

    let err = host.remove(name, false, user(false)).await.expect_err("in use");
    assert_eq!(
        (err.kind(), err.message().to_owned()),
        (
            ErrorKind::Conflict,
            format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container cccccccccccc is using its referenced image {short}"
            )
        )
    );
    let err = host.remove(short, false, user(false)).await.expect_err("in use by a stopped one");
    assert_eq!(
        err.message(),
        format!("conflict: unable to delete {short} (must be forced) - image is being used by stopped container cccccccccccc")
    );
    let err = host.remove(short, true, user(true)).await.expect_err("in use by a running one");
    assert_eq!(
        err.message(),
        format!("conflict: unable to delete {short} (cannot be forced) - image is being used by running container cccccccccccc")
    );

    host.images.tag(name, "second/name:1".parse().expect("name")).await.expect("tag");
    let err = host.remove(short, false, Vec::new()).await.expect_err("two repositories");
    assert_eq!(
        err.message(),
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories")
    );

    let rootfs = host.images.prepare_rootfs(&id, "container", Persistence::Durable).await.expect("rootfs");
    let removed = host.remove(name, true, user(true)).await.expect("a name goes while another stays");
    assert_eq!(removed, [Removed::Untagged("rcontainerd/hello:latest".into())]);
    let removed = host.remove("second/name:1", true, user(true)).await.expect("the last name goes, the image stays");
    assert_eq!(removed, [Removed::Untagged("second/name:1".into())]);
    assert_eq!(host.images.resolve(short).await.expect("still here"), id);

    host.store.snapshots("moby").remove(&rootfs.key).expect("the container goes");
    host.remove(short, false, Vec::new()).await.expect("now it can go");
    host.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_image_is_the_same_everywhere_and_follows_its_program() {
    let program = tempfile::NamedTempFile::new().expect("file");
    program.as_file().write_all(b"one").expect("write");
    let (first, second) = (host(), host());
    let id = first.images.ensure_shipped(program.path()).await.expect("first");
    assert_eq!(second.images.ensure_shipped(program.path()).await.expect("second"), id);
    assert_eq!(first.images.ensure_shipped(program.path()).await.expect("again"), id);
    assert_eq!(first.images.inspect("rcontainerd/hello").await.expect("inspect").config().entrypoint, ["/hello", "hello"]);
    program.as_file().write_all(b"two").expect("write");
    let newer = first.images.ensure_shipped(program.path()).await.expect("newer");
    assert_ne!(newer, id);
    assert_eq!(first.images.resolve("rcontainerd/hello").await.expect("moved"), newer);
    first.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_here_loaded_there() {
    let (registry, here, there) = (RealRegistry::start(Auth::Open, false), host(), host());
    registry.push(&one("x", &layers("f", 2, Compression::Gzip)), "x", "app:1", "oci");
    let name = format!("{}/app:1", registry.authority());
    let id = here.pull(&name).await.expect("pull").1.id;
    here.images.tag(&name, "mine:1".parse().expect("name")).await.expect("tag");
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("image.tar");
    let save = |names: Vec<String>| here.images.save(names, None, std::fs::File::create(&path).expect("file"));
    save(vec![name.clone(), "mine:1".into()]).await.expect("save");
    let loaded = there.images.load(std::fs::File::open(&path).expect("file"), None).await.expect("load");
    let mut names: Vec<String> = loaded.iter().filter_map(|image| image.name.as_ref().map(Reference::familiar)).collect();
    names.sort();
    assert_eq!(names, [name.clone(), "mine:1".into()]);
    assert!(loaded.iter().all(|image| image.id == id), "{loaded:?}");
    assert_eq!(there.images.inspect("mine:1").await.expect("inspect").repo_digests, []);
    there.images.prepare_rootfs(&id, "c", Persistence::Durable).await.expect("rootfs");

    save(vec![id.hex()[..12].into()]).await.expect("save by id");
    let third = host();
    let loaded = third.images.load(std::fs::File::open(&path).expect("file"), None).await.expect("load without names");
    assert_eq!(loaded, [super::LoadedImage { id: id.clone(), name: None }]);
    assert_eq!(third.images.resolve(&id.hex()[..12]).await.expect("dangling"), id);
    assert_eq!(save(vec!["nobody".into()]).await.expect_err("missing").message(), "No such image: nobody:latest");

    let cut = std::fs::read(&path).expect("read");
    let fourth = host();
    let err = fourth.images.load(std::io::Cursor::new(cut[..cut.len() / 2].to_vec()), None).await.expect_err("cut short");
    assert_ne!(err.kind(), ErrorKind::Internal, "{err}");
    fourth.assert_empty();
}
