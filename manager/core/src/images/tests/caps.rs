//! Caps on what images take, and images that are pinned.

use super::*;
use crate::images::{Amount, Caps, Collect, ImportImage, PruneImages};

/// Of each image's one file.
const SIZE: usize = 2 << 20;
/// Room for two images (packed and unpacked) and what the database grows by, not for three.
const MORE: u64 = 2 * 2 * SIZE as u64 + (3 << 20);

/// A host whose images may take so much more than nothing takes; `busy` is in use once it is set.
fn host_with(collect: Collect, reserved: Option<u64>) -> (Host, Arc<Mutex<Option<Digest>>>) {
    let dir = tempfile::tempdir().expect("directory");
    let store = Store::open(dir.path()).expect("store");
    let before = store.recorded_space().expect("space");
    let busy: Arc<Mutex<Option<Digest>>> = Arc::default();
    let used = Arc::clone(&busy);
    let config = ImagesConfig {
        caps: Caps { max_used: Some(Amount::Bytes(before + MORE)), min_free: None, reserved: reserved.map(Amount::Bytes), collect },
        in_use: Arc::new(move |image| used.lock().expect("lock").as_ref() == Some(image)),
        ..ImagesConfig::default()
    };
    let host = Host { images: ImageService::open(store.clone(), "moby", config), store, events: Arc::default(), _dir: Some(dir) };
    (host, busy)
}

async fn import(host: &Host, name: Option<&str>, byte: u8) -> Result<Digest> {
    let tar = tar_of(&[("file", &vec![byte; SIZE], 0o644)]);
    let request = ImportImage { reference: name.map(|name| name.parse().expect("name")), ..ImportImage::default() };
    host.images.import(request, std::io::Cursor::new(tar)).await
}

async fn names(host: &Host) -> Vec<String> {
    let listed: Vec<_> = host.images.list(ImageFilters::default()).await.expect("list").collect();
    let mut names: Vec<String> = listed.iter().flat_map(|image| &image.repo_tags).map(Reference::familiar).collect();
    names.sort();
    names
}

fn pin(host: &Host, name: &str) {
    let full = name.parse::<Reference>().expect("name").or_latest().to_string();
    let pinned = |record: &mut rcontainerd_store::records::ImageRecord| {
        record.labels.insert("io.cri-containerd.pinned".to_owned(), "pinned".to_owned());
        Ok(())
    };
    host.store.images("moby").update(&full, pinned).expect("pin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_beyond_the_cap_is_refused_in_one_line_and_leaves_nothing() {
    let (host, _) = host_with(Collect::Dangling, None);
    import(&host, Some("one:1"), 1).await.expect("room");
    import(&host, Some("two:1"), 2).await.expect("room");
    let blobs = host.store.content("moby").list().expect("list").len();
    let err = import(&host, Some("three:1"), 3).await.expect_err("no room");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
    let told = err.message();
    assert!(told.starts_with("no room for docker.io/library/three:1: images take ") && told.contains("max_used_space is"), "{told}");
    assert!(told.contains("rdocker image prune -a") && !told.contains('\n'), "{told}");
    host.assert_clean();
    assert_eq!(host.store.content("moby").list().expect("list").len(), blobs);
    assert_eq!(names(&host).await, ["one:1", "two:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_without_a_name_make_room_for_others() {
    let (host, _) = host_with(Collect::Dangling, None);
    import(&host, None, 1).await.expect("room");
    import(&host, Some("two:1"), 2).await.expect("room");
    import(&host, Some("three:1"), 3).await.expect("what had no name made room");
    assert_eq!(host.images.list(ImageFilters::default()).await.expect("list").len(), 2);
    assert_eq!(names(&host).await, ["three:1", "two:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_ago_named_unused_image_makes_room_where_that_is_allowed() {
    let (host, busy) = host_with(Collect::Unused, None);
    let one = import(&host, Some("one:1"), 1).await.expect("room");
    import(&host, Some("two:1"), 2).await.expect("room");
    *busy.lock().expect("lock") = Some(one);
    import(&host, Some("three:1"), 3).await.expect("two made room");
    assert_eq!(names(&host).await, ["one:1", "three:1"], "what a container was made from stays");
    pin(&host, "three:1");
    let err = import(&host, Some("four:1"), 4).await.expect_err("one is used, the other pinned");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
    assert_eq!(names(&host).await, ["one:1", "three:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reserved_is_never_taken_to_make_room() {
    let (host, _) = host_with(Collect::Unused, Some(1 << 40));
    import(&host, Some("one:1"), 1).await.expect("room");
    import(&host, Some("two:1"), 2).await.expect("room");
    assert_eq!(import(&host, Some("three:1"), 3).await.expect_err("no room").kind(), ErrorKind::ResourceExhausted);
    assert_eq!(names(&host).await, ["one:1", "two:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_does_not_fit_is_refused_before_its_layers_come() {
    let registry = RealRegistry::start(Auth::Open, false);
    let (host, _) = host_with(Collect::Unused, None);
    let noise: Vec<u8> = (0..MORE + (1 << 20)).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let image = ImageBuilder::default().layer(tar_of(&[("big", &noise, 0o644)]), Compression::None);
    registry.push(&one("x", &image), "x", "app:1", "oci");
    let err = host.pull(&format!("{}/app:1", registry.authority())).await.expect_err("no room");
    assert!(err.message().contains("app:1: images take") && err.message().contains("more are needed"), "{err}");
    host.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_image_goes_by_its_name_alone() {
    let host = host();
    let id = import(&host, Some("kept:1"), 1).await.expect("import");
    pin(&host, "kept:1");
    let pruned = host.images.prune(PruneImages::default(), |_| Ok(Vec::new())).await.expect("prune");
    assert_eq!(pruned.removed, []);
    let err = host.remove(id.hex(), true, Vec::new()).await.expect_err("by id");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert!(err.message().contains("image is pinned: remove it as docker.io/library/kept:1"), "{err}");
    // The pin is the name's: what the name is given to next has it too.
    import(&host, Some("kept:1"), 2).await.expect("again");
    assert_eq!(host.images.prune(PruneImages::default(), |_| Ok(Vec::new())).await.expect("prune").removed.len(), 2, "the first one");
    host.remove("kept:1", false, Vec::new()).await.expect("by name");
    host.assert_empty();
}
