//! What fails leaves nothing, and nobody takes what is just being brought.

use std::io::{Cursor, Read};

use super::*;
use crate::images::{ImportImage, PruneImages};

/// A layer that is rightly refused, behind one that is fine.
fn hostile() -> ImageBuilder {
    let mut evil = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().expect("gnu").name[..10].copy_from_slice(b"../../evil");
    header.set_size(3 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    evil.append(&header, &[7u8; 3 << 20][..]).expect("append");
    layers("fine", 1, Compression::None).layer(evil.into_inner().expect("layer"), Compression::None)
}

fn fine() -> ImageBuilder {
    layers("fine", 1, Compression::None)
}

/// As `docker save` writes it.
fn archive(image: &ImageBuilder, name: &str) -> Vec<u8> {
    let layout = Layout::new();
    let target = layout.image(image);
    let manifest: serde_json::Value = serde_json::from_slice(&layout.read(&target.digest)).expect("manifest");
    let digest = |value: &serde_json::Value| value["digest"].as_str().expect("digest").parse::<Digest>().expect("digest");
    let parts = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]).map(digest);
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let parts: Vec<(String, Vec<u8>)> = parts.map(|digest| (path(&digest), layout.read(&digest))).collect();
    let (config, layers) = parts.split_last().expect("a config");
    let layers: Vec<&str> = layers.iter().map(|(path, _)| path.as_str()).collect();
    let top = serde_json::json!([{ "Config": config.0, "RepoTags": [name], "Layers": layers }]).to_string();
    let files: Vec<(&str, &[u8], u32)> = parts
        .iter()
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice(), 0o644))
        .chain([("manifest.json", top.as_bytes(), 0o644)])
        .collect();
    tar_of(&files)
}

fn everything() -> PruneImages {
    PruneImages { dangling_only: true, until: None, labels: crate::filters::Filters::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_while_it_unpacks_leaves_nothing() {
    let host = host();
    let err = host.images.load(Cursor::new(archive(&hostile(), "evil:1")), None).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{err}");
    host.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_fails_while_it_unpacks_leaves_nothing() {
    let layout = Layout::new();
    let target = layout.image(&hostile());
    let server = serve(layout, vec![("1", target.digest)], |_| None);
    let host = host();
    let err = host.pull(&format!("{}/app:1", server.authority())).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{err}");
    host.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_image_has_too_outlives_the_failure() {
    let host = host();
    let loaded = host.images.load(Cursor::new(archive(&fine(), "fine:1")), None).await.expect("load");
    let before = host.store.content("moby").list().expect("content").len();
    host.images.load(Cursor::new(archive(&hostile(), "evil:1")), None).await.expect_err("refused");
    assert_eq!(host.store.content("moby").list().expect("content").len(), before);
    host.images.prepare_rootfs(&loaded[0].id, "c", Persistence::Durable).await.expect("whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_fails_leaves_nothing() {
    let host = host();
    let request = || ImportImage { reference: None, message: String::new(), changes: Vec::new(), platform: None };
    host.images.import(request(), Cursor::new(vec![b'x'; 5000])).await.expect_err("no tar");
    host.assert_empty();
    host.images.import(request(), Cursor::new(tar_of(&[("a", b"a", 0o644)]))).await.expect("import");
}

/// What failed before there was a remedy, or lost its owner by a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_takes_what_nothing_refers_to_and_df_counts_it() {
    let host = host();
    host.images.load(Cursor::new(archive(&fine(), "fine:1")), None).await.expect("load");
    let lost = host.store.content("moby").put(&[1; 5000], rcontainerd_store::Labels::new()).expect("put").digest;
    assert_eq!(host.images.unreferenced_blobs().await.expect("count"), 5000);
    let filtered = PruneImages { until: Some(1), ..everything() };
    assert_eq!(host.images.prune(filtered, |_| Ok(Vec::new())).await.expect("prune").space_reclaimed, 0);
    assert!(host.store.content("moby").contains(&lost).expect("contains"));
    assert_eq!(host.images.prune(everything(), |_| Ok(Vec::new())).await.expect("prune").space_reclaimed, 5000);
    assert!(!host.store.content("moby").contains(&lost).expect("contains"));
    assert_eq!(host.images.unreferenced_blobs().await.expect("count"), 0);
    let id = host.images.resolve("fine:1").await.expect("kept");
    host.images.prepare_rootfs(&id, "c", Persistence::Durable).await.expect("whole");
}

/// Collects with every read: what a load brings is in nobody's way.
struct Pruning {
    archive: Cursor<Vec<u8>>,
    store: Store,
}

impl Read for Pruning {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.store.gc_namespace("moby", false).expect("collect");
        let most = buffer.len().min(2000);
        self.archive.read(&mut buffer[..most])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collection_beside_loads_imports_and_pulls_takes_nothing_of_theirs() {
    let layout = Layout::new();
    let target = layout.image(&layers("pulled", 4, Compression::Gzip));
    let server = serve(layout, vec![("1", target.digest)], |_| None);
    let host = host();
    let stop = tokio_util::sync::CancellationToken::new();
    let collecting = {
        let (store, stop) = (host.store.clone(), stop.clone());
        tokio::task::spawn_blocking(move || {
            while !stop.is_cancelled() {
                store.gc_namespace("moby", false).expect("collect");
            }
        })
    };
    for round in 0..5 {
        let source = Pruning {
            archive: Cursor::new(archive(&layers(&format!("r{round}-"), 3, Compression::None), "app:1")),
            store: host.store.clone(),
        };
        let request = ImportImage { reference: None, message: String::new(), changes: Vec::new(), platform: None };
        let tar = tar_of(&[(&format!("import{round}"), b"a", 0o644)]);
        let name = format!("{}/app:1", server.authority());
        let (loaded, imported, pulled) =
            tokio::join!(host.images.load(source, None), host.images.import(request, Cursor::new(tar)), host.pull(&name));
        let ids = [loaded.expect("load")[0].id.clone(), imported.expect("import"), pulled.expect("pull").1.id];
        for (n, id) in ids.iter().enumerate() {
            host.images.prepare_rootfs(id, &format!("c{round}-{n}"), Persistence::Durable).await.expect("whole");
        }
        host.store.snapshots("moby").remove(&format!("c{round}-2")).expect("remove");
        host.remove(&name, true, Vec::new()).await.expect("remove, so that the next round pulls again");
    }
    stop.cancel();
    collecting.await.expect("collecting");
}

/// A manager that died while it loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_manager_lets_go_of_what_the_last_one_was_making() {
    let host = host();
    let lost = host.store.content("moby").put(b"half a load", rcontainerd_store::Labels::new()).expect("put").digest;
    let leases = host.store.leases("moby");
    for (id, purpose) in [("make-1", "make"), ("pull-1", "pull")] {
        leases.create(id, [("rcontainerd.io/purpose".to_owned(), purpose.to_owned())].into(), None).expect("lease");
    }
    leases.add("make-1", &rcontainerd_store::records::Resource::Content(lost.clone())).expect("add");
    assert_eq!(host.images.collect_at_start().await.expect("collect").bytes(), 0);
    let next = ImageService::open(host.store.clone(), "moby", ImagesConfig::default());
    assert_eq!(next.collect_at_start().await.expect("collect").bytes(), 11);
    let left: Vec<String> = leases.list().expect("leases").into_iter().map(|lease| lease.id).collect();
    assert_eq!(left, ["pull-1"], "a pull goes on where it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_image_is_given_a_name_that_reads_as_an_id() {
    let host = host();
    let loaded = host.images.load(Cursor::new(archive(&fine(), "fine:1")), None).await.expect("load");
    let id = loaded[0].id.clone();
    let told = "refusing to create an ambiguous tag using digest algorithm as name";
    let name: Reference = "sha256:beef".parse().expect("a reference");
    assert_eq!(host.images.tag("fine:1", name.clone()).await.expect_err("tag").message(), told);
    let request = ImportImage { reference: Some(name), message: String::new(), changes: Vec::new(), platform: None };
    assert_eq!(host.images.import(request, Cursor::new(tar_of(&[("a", b"a", 0o644)]))).await.expect_err("import").message(), told);
    assert_eq!(
        host.images.load(Cursor::new(archive(&layers("x", 1, Compression::None), "sha256:beef")), None).await.expect_err("load").message(),
        told
    );
    assert_eq!(host.pull("sha256:beef").await.expect_err("pull").message(), told);
    assert_eq!(host.images.list(ImageFilters::default()).await.expect("list").len(), 1);
    host.assert_clean();
    let short = format!("sha256:{}", &id.hex()[..4]);
    assert_eq!(host.images.resolve(&short).await.expect("a short id"), id);
    let absent = if id.hex().starts_with("beef") { "sha256:cafe" } else { "sha256:beef" };
    assert_eq!(host.images.resolve(absent).await.expect_err("none").message(), format!("No such image: {absent}"));
    let removed = host.remove(&short, false, Vec::new()).await.expect("removed by its short id");
    assert!(removed.contains(&Removed::Deleted(id)), "{removed:?}");
}
