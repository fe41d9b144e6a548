//! What is carried whole: images of several platforms, artifacts, what refers to images.

use std::io::Cursor;

use rcontainerd_registry::manifest;
use rcontainerd_types::{Descriptor, Platform, media_type};
use serde_json::json;

use super::*;
use crate::images::push::PushEvent;
use crate::images::{LocalManifest, PushImage};

const OTHER: &str = "linux/s390x";

fn other() -> Platform {
    OTHER.parse().expect("platform")
}

/// An index of an image for this host and one for another platform.
fn both() -> (Layout, Digest) {
    let mut layout = Layout::new();
    let images =
        [layout.image(&layers("host", 2, Compression::Gzip)), layout.image(&layers("other", 3, Compression::Gzip).platform(OTHER))];
    let index = layout.index(&images);
    layout.tag("both:1", &index);
    (layout, index.digest)
}

fn archive(layout: &Layout) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", layout.path()).expect("append");
    tar.into_inner().expect("tar")
}

async fn saved(host: &Host, name: &str, platform: Option<Platform>) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new().expect("file");
    host.images.save(vec![name.into()], platform, file.reopen().expect("file")).await?;
    Ok(std::fs::read(file.path()).expect("read"))
}

async fn push(host: &Host, name: &str, platform: Option<Platform>) -> Result<Digest> {
    let request = PushImage { reference: name.parse().expect("name"), platform, credentials: Credentials::Anonymous };
    let mut events = host.images.push(request);
    let mut pushed = None;
    while let Some(event) = events.recv().await {
        if let PushEvent::Tagged { digest, .. } = event? {
            pushed = Some(digest);
        }
    }
    Ok(pushed.expect("tagged"))
}

async fn manifests_of(host: &Host, name: &str) -> Vec<LocalManifest> {
    let id = host.images.resolve(name).await.expect("resolve");
    host.images.manifests().await.expect("manifests").remove(&id).expect("listed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platforms_are_loaded_shown_saved_and_pushed_together_or_apart() {
    let (layout, index) = both();
    let (registry, here) = (RealRegistry::start(Auth::Open, false), host());
    here.images.load(Cursor::new(archive(&layout)), None).await.expect("load");
    let own = here.images.inspect("both:1").await.expect("inspect");
    assert!(Platform::host().matches(&own.platform));
    let found = here.images.inspect_platform("both:1", other()).await.expect("the other");
    assert_eq!(found.platform, other());
    assert_eq!(here.images.history("both:1", Some(other())).await.expect("history").len(), 3);
    let err = here.images.history("both:1", Some("linux/riscv64".parse().expect("platform"))).await.expect_err("none");
    assert_eq!(err.message(), "image with reference both:1 was found but does not provide the specified platform (linux/riscv64)");
    let shown = manifests_of(&here, "both:1").await;
    assert_eq!(shown.iter().map(|one| (one.available, one.unpacked > 0)).collect::<Vec<_>>(), [(true, true), (true, false)]);

    // Together, the same bytes each time; apart.
    let whole = saved(&here, "both:1", None).await.expect("save");
    assert!(whole == saved(&here, "both:1", None).await.expect("save again"), "reproducible");
    let there = host();
    there.images.load(Cursor::new(whole), None).await.expect("load");
    assert_eq!(manifests_of(&there, "both:1").await.len(), 2);
    let apart = host();
    apart.images.load(Cursor::new(saved(&here, "both:1", Some(other())).await.expect("save")), None).await.expect("load");
    assert_eq!(apart.images.inspect("both:1").await.expect("inspect").platform, other());
    let picked = host();
    picked.images.load(Cursor::new(archive(&layout)), Some(other())).await.expect("load one");
    assert_eq!(picked.images.inspect("both:1").await.expect("inspect").platform, other());

    // The registry gets the index, if all of it is here.
    let name = format!("{}/both:1", registry.authority());
    here.images.tag("both:1", name.parse().expect("name")).await.expect("tag");
    assert_eq!(push(&here, &name, None).await.expect("push"), index);
    let puller = host();
    puller.pull_as(PullImage { platform: Some(other()), ..PullImage::anonymous(name.parse().expect("name")) }).await.expect("pull");
    assert_eq!(puller.images.inspect(&name).await.expect("inspect").platform, other());
    let again = format!("{}/again:1", registry.authority());
    puller.images.tag(&name, again.parse().expect("name")).await.expect("tag");
    assert_ne!(push(&puller, &again, None).await.expect("what is here alone"), index);
    let err = push(&puller, &again, Some(Platform::host())).await.expect_err("not here");
    assert_eq!(err.kind(), ErrorKind::NotFound);
    here.remove(&name, true, Vec::new()).await.expect("untag");
    here.remove("both:1", true, Vec::new()).await.expect("remove");
    here.assert_empty();
}

/// An artifact of one file.
fn artifact(layout: &Layout, subject: Option<&Descriptor>) -> Descriptor {
    let blob = layout.blob("text/x.note", b"a note");
    let config = layout.blob("application/vnd.oci.empty.v1+json", b"{}");
    let mut document = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x.notes", "config": config, "layers": [blob],
    });
    if let Some(subject) = subject {
        document["subject"] = json!(subject);
    }
    layout.blob(media_type::OCI_MANIFEST, document.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_is_carried_whole_and_not_run() {
    let layout = Layout::new();
    let target = artifact(&layout, None);
    let server = serve(layout, vec![("1", target.digest.clone())], |_| None);
    let (here, registry) = (host(), RealRegistry::start(Auth::Open, false));
    let name = format!("{}/app:1", server.authority());
    assert!(here.pull(&name).await.expect("pull").1.is_new);
    assert!(!here.pull(&name).await.expect("again").1.is_new);
    let found = here.images.inspect(&name).await.expect("inspect");
    assert_eq!((found.artifact.as_deref(), found.size), (Some("application/x.notes"), 8));
    assert_eq!(here.images.list(ImageFilters::default()).await.expect("list").len(), 1);
    let err = here.images.prepare_rootfs(&found.id, "c", Persistence::Durable).await.expect_err("nothing to run");
    assert!(err.message().contains("application/x.notes"), "{err}");

    let copy = format!("{}/copy:1", registry.authority());
    here.images.tag(&name, copy.parse().expect("name")).await.expect("tag");
    assert_eq!(push(&here, &copy, None).await.expect("push"), target.digest);
    let there = host();
    assert_eq!(there.pull(&copy).await.expect("pull").1.digest, target.digest);
    let third = host();
    third.images.load(Cursor::new(saved(&here, &name, None).await.expect("save")), None).await.expect("load");
    assert_eq!(third.images.inspect(&name).await.expect("inspect").id, found.id);
    there.remove(&copy, false, Vec::new()).await.expect("remove");
    there.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refers_to_an_image_comes_stays_and_goes_with_it() {
    let layout = Layout::new();
    let image = layout.image(&layers("f", 1, Compression::Gzip));
    let note = artifact(&layout, Some(&image));
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [note]}).to_string();
    assert!(manifest::parse(None, index.as_bytes()).is_ok());
    let server = serve(layout, vec![("1", image.digest.clone())], move |request| {
        request.path.contains("/referrers/").then(|| Reply::new(200, index.clone()))
    });
    let name = format!("{}/app:1", server.authority());
    let without = host();
    without.pull(&name).await.expect("pull");
    assert!(!without.store.content("moby").contains(&note.digest).expect("ask"));

    let dir = tempfile::tempdir().expect("directory");
    let store = Store::open(dir.path()).expect("store");
    let registry = RegistryConfig { host_dirs: Vec::new(), referrers: true, ..RegistryConfig::default() };
    let images = ImageService::open(store.clone(), "moby", ImagesConfig { registry, ..ImagesConfig::default() });
    let host = Host { images, store, events: Arc::default(), _dir: Some(dir) };
    host.pull(&name).await.expect("pull");
    let content = host.store.content("moby");
    for kept in [&note.digest, &Digest::sha256(b"a note"), &Digest::sha256(b"{}")] {
        assert!(content.contains(kept).expect("ask"), "{kept}");
    }
    host.images.collect_at_start().await.expect("collect");
    assert!(content.contains(&note.digest).expect("ask"), "held by the image");
    host.remove(&name, false, Vec::new()).await.expect("remove");
    host.assert_empty();
}
