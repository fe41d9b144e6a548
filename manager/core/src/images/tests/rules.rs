//! Docker's rules and words for what images are to each other.

use super::*;
use crate::images::{ExtendImage, ImageConfig, PushImage};

async fn extend(host: &Host, base: &Digest, name: Option<&str>, file: &'static str) -> Digest {
    let request = ExtendImage {
        base: base.clone(),
        config: ImageConfig::default(),
        author: String::new(),
        comment: file.to_owned(),
        created_by: "a test".to_owned(),
        reference: name.map(|name| name.parse().expect("name")),
    };
    let layer = tar_of(&[(file, file.as_bytes(), 0o644)]);
    let write = move |out: &mut dyn std::io::Write| out.write_all(&layer).map_err(|err| rcontainerd_types::Error::io("write", err));
    host.images.extend(request, write).await.expect("extend")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_changes_no_file_makes_no_layer() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    registry.push(&one("x", &layers("f", 1, Compression::Gzip)), "x", "app:1", "oci");
    let base = host.pull(&format!("{}/app:1", registry.authority())).await.expect("pull").1.id;
    let request = ExtendImage {
        base,
        config: ImageConfig::default(),
        author: String::new(),
        comment: String::new(),
        created_by: "nothing".to_owned(),
        reference: Some("same:1".parse().expect("name")),
    };
    host.images
        .extend(request, |out| out.write_all(&[0; 1024]).map_err(|err| rcontainerd_types::Error::io("write", err)))
        .await
        .expect("extend");
    let found = host.images.inspect("same:1").await.expect("inspect");
    assert_eq!(found.file.rootfs.diff_ids.len(), 1);
    let lines = host.images.history("same:1", None).await.expect("history");
    assert_eq!(
        lines.iter().map(|line| (line.created_by.as_str(), line.size > 0)).collect::<Vec<_>>(),
        [("nothing", false), ("a test", true)]
    );
    host.images.prepare_rootfs(&found.id, "c", Persistence::Durable).await.expect("rootfs");
    let content = host.store.content("moby");
    assert!(!content.contains(&Digest::sha256(&[0; 1024])).expect("ask"), "nothing of it stays");
    assert_eq!(content.ingests().expect("ingests"), []);
}

/// An image of the registry, and one made of one made of it; the one between has no name.
async fn family(host: &Host, registry: &RealRegistry) -> [Digest; 3] {
    registry.push(&one("x", &layers("f", 1, Compression::Gzip)), "x", "app:1", "oci");
    let base = host.pull(&format!("{}/app:1", registry.authority())).await.expect("pull").1.id;
    let between = extend(host, &base, None, "between").await;
    let top = extend(host, &between, Some("top:1"), "top").await;
    [base, between, top]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unnamed_parents_go_with_their_last_child_unless_they_are_kept() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    let [base, between, top] = family(&host, &registry).await;
    let removed = host.remove("top:1", false, Vec::new()).await.expect("remove");
    assert!(removed.contains(&Removed::Deleted(top)) && removed.contains(&Removed::Deleted(between)), "{removed:?}");
    assert!(!removed.contains(&Removed::Deleted(base.clone())), "it has a name: {removed:?}");
    host.images.inspect(&base.to_string()).await.expect("still there");

    let between = extend(&host, &base, None, "between").await;
    extend(&host, &between, Some("top:1"), "top").await;
    let request = RemoveImage { name: "top:1".into(), force: false, keep_parents: true };
    host.images.remove(request, |_| Ok(Vec::new())).await.expect("remove");
    host.images.inspect(&between.to_string()).await.expect("kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_names_the_parents_that_are_here() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    let [base, between, top] = family(&host, &registry).await;
    let lines = host.images.history("top:1", None).await.expect("history");
    let ids: Vec<_> = lines.iter().map(|line| line.id.clone()).collect();
    assert_eq!(ids, [Some(top), Some(between), Some(base)]);
    assert_eq!(lines[2].tags.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_container_is_the_first_reason_against_a_removal() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    registry.push(&one("x", &layers("f", 1, Compression::Gzip)), "x", "app:1", "oci");
    let name = format!("{}/app:1", registry.authority());
    let id = host.pull(&name).await.expect("pull").1.id;
    host.images.tag(&name, "other:1".parse().expect("name")).await.expect("tag");
    let user = ImageUser { container_id: "c".repeat(64), image_id: id.clone(), image_name: name, running: true };
    let err = host.remove(&id.to_string(), false, vec![user]).await.expect_err("in use");
    assert!(err.message().contains("(cannot be forced) - image is being used by running container cccccccccccc"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_what_is_not_here_says_whether_it_is_the_tag_or_the_name() {
    let (registry, host) = (RealRegistry::start(Auth::Open, false), host());
    family(&host, &registry).await;
    let refused = async |name: &str| {
        let request = PushImage { reference: name.parse().expect("name"), platform: None, credentials: Credentials::Anonymous };
        let mut events = host.images.push(request);
        while let Some(event) = events.recv().await {
            if let Err(err) = event {
                return err.message().to_owned();
            }
        }
        panic!("pushed");
    };
    assert_eq!(refused("top:2").await, "tag does not exist: top:2");
    assert_eq!(refused("nothing:1").await, "An image does not exist locally with the tag: nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_the_registry_forgets_is_begun_anew() {
    let (source, host) = (RealRegistry::start(Auth::Open, false), host());
    family(&host, &source).await;
    let forgotten = AtomicUsize::new(0);
    let server = Server::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("HEAD", _) => Reply::new(404, ""),
        ("POST", path) => Reply::new(202, "").header("Location", format!("{path}1")),
        ("PATCH", _) if forgotten.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::new(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}"#)
        }
        ("PATCH", path) => Reply::new(202, "").header("Location", path),
        ("PUT", _) => Reply::new(201, ""),
        _ => Reply::new(200, "{}"),
    });
    let name = format!("{}/top:1", server.authority());
    host.images.tag("top:1", name.parse().expect("name")).await.expect("tag");
    let request = PushImage { reference: name.parse().expect("name"), platform: None, credentials: Credentials::Anonymous };
    let mut events = host.images.push(request);
    while let Some(event) = events.recv().await {
        event.expect("pushed in the end");
    }
    let begun = server.seen().iter().filter(|request| request.method == "POST").count();
    assert_eq!(begun, 5, "three layers, a config, and one of them twice");
    assert!(server.seen().iter().any(|request| request.method == "PUT" && request.path.ends_with("/manifests/1")));
}
