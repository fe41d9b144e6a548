use super::*;
use crate::descriptor::media_type;
use crate::image::{Index, Manifest};
use crate::records::{ContainerRecord, Resource};

const NOW: GcOptions = GcOptions { grace: Duration::ZERO, graced: None, ingest_age: Duration::ZERO, dry_run: false };

struct Bench {
    _root: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(root.path()).expect("open");
        Self { _root: root, store }
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let info = self.store.content("test").put(bytes, Labels::new()).expect("put");
        Descriptor::new(media_type, info.digest, info.size)
    }

    /// An index over an image of one layer; its blobs in order and the layer's snapshot.
    fn image(&self, name: &str) -> (Vec<Digest>, String) {
        let layer = self.blob(media_type::OCI_LAYER, format!("layer of {name}").as_bytes());
        let config =
            self.blob(media_type::OCI_CONFIG, format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, layer.digest).as_bytes());
        let digests = vec![layer.digest.clone(), config.digest.clone()];
        let snapshot = layer.digest.to_string();
        let manifest = Manifest { schema_version: 2, media_type: None, config, layers: vec![layer] };
        let manifest = self.blob(media_type::OCI_MANIFEST, &serde_json::to_vec(&manifest).expect("encode"));
        let index = Index { schema_version: 2, media_type: None, manifests: vec![manifest.clone()] };
        let index = self.blob(media_type::OCI_INDEX, &serde_json::to_vec(&index).expect("encode"));
        let snapshots = self.store.snapshots("test");
        snapshots.prepare(&format!("unpack {name}"), None, Labels::new()).expect("prepare");
        snapshots.commit(&snapshot, &format!("unpack {name}"), Labels::new()).expect("commit");
        self.store.images("test").create(name, index.clone(), Labels::new()).expect("image");
        ([digests, vec![manifest.digest, index.digest]].concat(), snapshot)
    }

    fn gc(&self) -> GcReport {
        self.store.gc(&NOW).expect("gc")
    }
}

#[test]
fn an_image_keeps_all_that_it_leads_to_until_it_goes() {
    let bench = Bench::new();
    let (blobs, snapshot) = bench.image("one");
    assert_eq!(bench.gc(), GcReport::default());
    bench.store.images("test").delete("one").expect("delete");
    let told = bench.store.gc(&GcOptions { dry_run: true, ..NOW }).expect("dry run");
    let report = bench.gc();
    assert_eq!(told, report, "a dry run tells the same");
    let collected: BTreeSet<Digest> = report.content.into_iter().map(|(_, digest)| digest).collect();
    assert_eq!(collected, blobs.into_iter().collect());
    assert_eq!(report.snapshots, [(bench.store.snapshots("test").name().to_owned(), "test".to_owned(), snapshot)]);
    assert!(bench.store.content_files().files().expect("files").is_empty());
    assert_eq!(bench.store.snapshots("test").list().expect("list"), []);
    assert!(report.content_bytes > 0);
}

#[test]
fn containers_leases_labels_and_youth_keep_too() {
    let bench = Bench::new();
    let (blobs, snapshot) = bench.image("one");
    bench.store.images("test").delete("one").expect("delete");
    let snapshots = bench.store.snapshots("test");
    snapshots.prepare("rootfs", Some(&snapshot), Labels::new()).expect("prepare");
    let now = Timestamp::now();
    let container = ContainerRecord {
        id: "c".into(),
        labels: Labels::new(),
        image: String::new(),
        runtime_name: "io.containerd.runc.v2".into(),
        runtime_options: None,
        spec: None,
        snapshotter: snapshots.name().into(),
        snapshot_key: "rootfs".into(),
        sandbox: String::new(),
        created: now,
        updated: now,
        extensions: BTreeMap::new(),
    };
    bench.store.containers("test").create(&container).expect("container");
    let leases = bench.store.leases("test");
    leases.create("lease", Labels::new(), None).expect("lease");
    leases.add("lease", &Resource::Content(blobs[0].clone())).expect("add");
    let root = Labels::from([(ROOT_LABEL.to_owned(), "yes".to_owned()), (format!("{CONTENT_LABEL}.config"), blobs[1].to_string())]);
    bench.store.content("test").set_labels(&blobs[2], root).expect("labels");
    let young = bench.store.gc(&GcOptions { grace: Duration::from_secs(60), ..NOW }).expect("gc");
    assert_eq!(young, GcReport::default());
    let report = bench.gc();
    assert_eq!(report.content, [("test".to_owned(), blobs[3].clone())], "only the index");
    assert!(report.snapshots.is_empty(), "the container's snapshot and its parent");
    leases.delete("lease").expect("delete");
    leases.create("old", Labels::new(), Some(Timestamp::UNIX_EPOCH)).expect("lease");
    leases.add("old", &Resource::Content(blobs[0].clone())).expect("add");
    assert_eq!(bench.gc().content, [("test".to_owned(), blobs[0].clone())], "an expired lease keeps nothing");
}

#[test]
fn at_a_start_one_walk_takes_what_is_fresh_in_the_own_namespace_and_what_is_old_elsewhere() {
    let bench = Bench::new();
    for namespace in ["test", "other"] {
        bench.store.content(namespace).put(namespace.as_bytes(), Labels::new()).expect("put");
        bench.store.content(namespace).ingest("cut-off", None).expect("ingest").append(b"x").expect("append");
    }
    let report = bench.store.gc_at_start("test", &GcOptions { grace: Duration::from_secs(60), ..GcOptions::default() }).expect("gc");
    let namespaces: Vec<&str> = report.content.iter().map(|(namespace, _)| namespace.as_str()).collect();
    assert_eq!((namespaces, report.ingests), (vec!["test"], vec![("test".to_owned(), "cut-off".to_owned())]));
    let report = bench.store.gc_at_start("test", &GcOptions { ingest_age: Duration::ZERO, ..NOW }).expect("gc");
    assert_eq!((report.content.len(), report.ingests), (1, vec![("other".to_owned(), "cut-off".to_owned())]));
}

#[test]
fn a_walk_needs_nothing_of_a_container_but_what_it_refers_to() {
    let bench = Bench::new();
    let (_, snapshot) = bench.image("one");
    let snapshots = bench.store.snapshots("test");
    snapshots.prepare("rootfs", Some(&snapshot), Labels::new()).expect("prepare");
    // Of a spec that cannot be unpacked, the rest counts all the same: nobody unpacks it for a walk.
    let record = serde_json::json!({
        "id": "c", "snapshotter": snapshots.name(), "snapshot_key": "rootfs", "spec": { "type_url": "s", "packed": "not base64!" }
    });
    const RAW: crate::metadata::Table<serde_json::Value> = crate::metadata::Table::new("containers", 2).min_reader(2).followed();
    bench.store.metadata().write(|tx| tx.put(RAW, "test/c", &record)).expect("write");
    assert!(bench.store.containers("test").list().is_err(), "the record as a whole is damaged");
    assert!(bench.gc().snapshots.is_empty(), "kept by the container");
    assert_eq!(bench.store.containers_without_snapshot().expect("walk"), []);
}

#[test]
fn stale_ingests_go_unless_leased_or_being_written() {
    let bench = Bench::new();
    let content = bench.store.content("test");
    for key in ["stale", "leased"] {
        content.ingest(key, None).expect("ingest").append(b"x").expect("append");
    }
    let writing = content.ingest("writing", None).expect("ingest");
    let leases = bench.store.leases("test");
    leases.create("lease", Labels::new(), None).expect("lease");
    leases.add("lease", &Resource::Ingest("leased".into())).expect("add");
    assert_eq!(bench.gc().ingests, [("test".to_owned(), "stale".to_owned())]);
    drop(writing);
    let left: Vec<String> = content.ingests().expect("list").into_iter().map(|status| status.key).collect();
    assert_eq!(left, ["leased", "writing"]);
}

#[test]
fn the_grace_may_be_for_one_namespace_alone() {
    let bench = Bench::new();
    let fresh = bench.blob("", b"fresh").digest;
    let options = |graced| GcOptions { grace: Duration::from_secs(3600), graced, ..NOW };
    assert_eq!(bench.store.gc(&options(None)).expect("gc"), GcReport::default());
    assert_eq!(bench.store.gc(&options(Some("test"))).expect("gc"), GcReport::default());
    let report = bench.store.gc(&options(Some("other"))).expect("gc");
    assert_eq!(report.content, [("test".to_owned(), fresh)]);
}

#[test]
fn a_document_s_labels_say_what_of_it_is_kept() {
    let bench = Bench::new();
    let (blobs, snapshot) = bench.image("one");
    let [layer, config, manifest, _] = blobs.as_slice() else { panic!("an image of four blobs") };
    let labels = Labels::from([(format!("{CONTENT_LABEL}.config"), config.to_string())]);
    bench.store.content("test").set_labels(manifest, labels).expect("label");
    let report = bench.gc();
    assert_eq!(report.content, [("test".to_owned(), layer.clone())], "the layer alone is not labelled");
    assert!(bench.store.snapshots("test").stat(&snapshot).is_ok());
}

#[test]
fn all_that_is_unreferenced_in_one_namespace_goes_however_fresh() {
    let bench = Bench::new();
    let (blobs, snapshot) = bench.image("one");
    let fresh = bench.blob("", b"of a load that failed").digest;
    let other = bench.store.content("other").put(b"elsewhere", Labels::new()).expect("put").digest;
    bench.store.content("test").ingest("cut short", None).expect("ingest").append(b"x").expect("append");
    let snapshots = bench.store.snapshots("test");
    let unpacking = Labels::from([(IN_PROGRESS.to_owned(), String::new())]);
    snapshots.prepare("extract", Some(&snapshot), unpacking).expect("prepare");
    let told = bench.store.gc_namespace("test", true).expect("dry run");
    let report = bench.store.gc_namespace("test", false).expect("gc");
    assert_eq!(told, report, "a dry run tells the same");
    assert_eq!(report.content, [("test".to_owned(), fresh)]);
    assert_eq!(report.content_bytes, 21);
    assert_eq!(report.snapshots, [], "what is being unpacked into is in use");
    assert_eq!(report.ingests, [("test".to_owned(), "cut short".to_owned())]);
    assert!(bench.store.content("other").contains(&other).expect("contains"));
    assert!(blobs.iter().all(|blob| bench.store.content("test").contains(blob).expect("contains")));
}

#[test]
fn of_what_a_lease_held_that_goes_which_nothing_else_needs() {
    let bench = Bench::new();
    let (blobs, snapshot) = bench.image("one");
    let (mine, leased, not_mine) = (bench.blob("", b"mine").digest, bench.blob("", b"leased").digest, bench.blob("", b"not mine").digest);
    let snapshots = bench.store.snapshots("test");
    let layer = |name: &str, parent: Option<&str>| {
        snapshots.prepare("filling", parent, Labels::new()).expect("prepare");
        snapshots.commit(name, "filling", Labels::new()).expect("commit");
    };
    layer("low", None);
    layer("middle", Some("low"));
    layer("top", Some("middle"));
    layer("alone", None);
    bench.store.leases("test").create("lease", Labels::new(), None).expect("lease");
    bench.store.leases("test").add("lease", &Resource::Content(leased.clone())).expect("add");
    let now = Timestamp::now();
    let held = LeaseRecord {
        id: String::new(),
        labels: Labels::new(),
        created: now,
        expires: None,
        content: vec![mine.clone(), leased.clone(), blobs[0].clone(), Digest::sha256(b"never came")],
        snapshots: BTreeMap::from([(snapshots.name().to_owned(), ["low", "middle", "alone", &snapshot].map(str::to_owned).to_vec())]),
        ingests: Vec::new(),
    };
    let report = bench.store.gc_held("test", &held).expect("gc");
    assert_eq!(report.content, [("test".to_owned(), mine)]);
    let gone: Vec<&str> = report.snapshots.iter().map(|(_, _, key)| key.as_str()).collect();
    assert_eq!(gone, ["alone"], "a parent stays with a child that nobody gave back");
    for kept in [&leased, &not_mine, &blobs[0]] {
        assert!(bench.store.content("test").contains(kept).expect("contains"), "{kept}");
    }
}

#[test]
fn what_names_something_that_is_kept_is_kept_with_it_in_its_namespace() {
    let bench = Bench::new();
    let (blobs, snapshot) = bench.image("one");
    let content = bench.store.content("test");
    let put = |bytes: &[u8], label: &str, value: &str| {
        content.put(bytes, Labels::from([(label.to_owned(), value.to_owned())])).expect("put").digest
    };
    let layer = blobs[0].to_string();
    let of_content = put(b"signature", "containerd.io/gc.bref.content.signature", &layer);
    let of_that = put(b"of the signature", "containerd.io/gc.bref.content", &of_content.to_string());
    let of_image = put(b"scan", "containerd.io/gc.bref.image/scan", "one");
    let snapshotter = bench.store.snapshots("test").name();
    let of_snapshot = put(b"index of files", &format!("containerd.io/gc.bref.snapshot.{snapshotter}/x"), &snapshot);
    let stray = put(b"stray", "containerd.io/gc.bref.content", &Digest::sha256(b"nothing").to_string());
    let elsewhere = Labels::from([("containerd.io/gc.bref.content".to_owned(), layer)]);
    let foreign = bench.store.content("other").put(b"of another namespace", elsewhere).expect("put").digest;
    let collected: BTreeSet<Digest> = bench.gc().content.into_iter().map(|(_, digest)| digest).collect();
    assert_eq!(collected, BTreeSet::from([stray, foreign]));
    bench.store.images("test").delete("one").expect("delete");
    let collected: BTreeSet<Digest> = bench.gc().content.into_iter().map(|(_, digest)| digest).collect();
    assert!([of_content, of_that, of_image, of_snapshot].iter().all(|digest| collected.contains(digest)));
}

#[test]
fn a_flat_lease_keeps_what_it_names_and_not_what_that_leads_to() {
    let bench = Bench::new();
    let child = bench.blob(media_type::OCI_LAYER, b"child").digest;
    let to_child = Labels::from([(CONTENT_LABEL.to_owned(), child.to_string())]);
    let parent = bench.store.content("test").put(b"parent", to_child).expect("put").digest;
    let leases = bench.store.leases("test");
    leases.create("flat", Labels::from([(FLAT_LABEL.to_owned(), String::new())]), None).expect("lease");
    leases.add("flat", &Resource::Content(parent.clone())).expect("add");
    assert_eq!(bench.gc().content, [("test".to_owned(), child)]);
    leases.delete("flat").expect("delete");
    assert_eq!(bench.gc().content, [("test".to_owned(), parent)]);
}

#[test]
fn an_image_whose_date_has_passed_goes_with_what_it_kept() {
    let bench = Bench::new();
    let (blobs, _) = bench.image("one");
    let expires = |text: &str| {
        let label = Labels::from([(EXPIRE_LABEL.to_owned(), text.to_owned())]);
        let change = |image: &mut crate::records::ImageRecord| {
            image.labels = label;
            Ok(())
        };
        bench.store.images("test").update("one", change).expect("label");
    };
    expires("2999-01-01T00:00:00Z");
    assert_eq!(bench.gc(), GcReport::default());
    expires("2001-01-01T00:00:00Z");
    assert_eq!(bench.gc().content.len(), blobs.len());
    assert!(bench.store.images("test").list().expect("list").is_empty());
}

/// One that pulls: everything that a lease or a name holds is there, whenever somebody looks.
fn bring(store: &Store, round: u64, worker: u64) {
    let content = store.content("test");
    let snapshots = store.snapshots("test");
    let leases = store.leases("test");
    let lease = format!("pull-{worker}-{round}");
    leases.create(&lease, Labels::new(), None).expect("lease");
    let hold = |resource: Resource| leases.add(&lease, &resource).expect("hold");
    // Every second round takes up what an earlier one has left behind as garbage.
    let layer_bytes = format!("layer {worker} {}", round / 2);
    let layer = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(layer_bytes.as_bytes()), layer_bytes.len() as u64);
    let config_bytes = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, layer.digest);
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(config_bytes.as_bytes()), config_bytes.len() as u64);
    let manifest = Manifest { schema_version: 2, media_type: None, config: config.clone(), layers: vec![layer.clone()] };
    let manifest_bytes = serde_json::to_vec(&manifest).expect("encode");
    let manifest = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&manifest_bytes), manifest_bytes.len() as u64);
    let (name, key) = (layer.digest.to_string(), format!("unpack {worker} {round}"));
    for digest in [&layer.digest, &config.digest, &manifest.digest] {
        hold(Resource::Content(digest.clone()));
    }
    hold(Resource::Snapshot { snapshotter: snapshots.name().to_owned(), key: name.clone() });
    for bytes in [layer_bytes.as_bytes(), config_bytes.as_bytes(), &manifest_bytes] {
        content.put(bytes, Labels::new()).expect("put");
    }
    if snapshots.stat(&name).is_err() {
        snapshots.prepare(&key, None, [(IN_PROGRESS.to_owned(), String::new())].into()).expect("prepare");
        snapshots.commit(&name, &key, Labels::new()).expect("commit");
    }
    let image = format!("image {worker}");
    store.images("test").put(&image, manifest, Labels::new()).expect("name");
    leases.delete(&lease).expect("let go");
    for digest in [&layer.digest, &config.digest] {
        content.read(digest, 1000).expect("what a name leads to is there");
    }
    snapshots.stat(&name).expect("the layer of a name is there");
    if round.is_multiple_of(2) {
        store.images("test").delete(&image).expect("untag");
    }
}

#[test]
fn a_collection_beside_pulls_takes_nothing_that_they_bring_and_all_that_they_leave() {
    let bench = Bench::new();
    // So many that a collection takes several steps.
    for n in 0..600 {
        bench.blob("text/plain", format!("rubbish {n}").as_bytes());
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let collected = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                match bench.store.gc_namespace("test", false) {
                    Ok(report) => collected += report.content.len(),
                    Err(err) => assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}"),
                }
            }
            collected
        });
        let pullers: Vec<_> = (0..3)
            .map(|worker| {
                let store = &bench.store;
                scope.spawn(move || (0..20).for_each(|round| bring(store, round, worker)))
            })
            .collect();
        let pulled: Vec<_> = pullers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        pulled.into_iter().for_each(|pulled| pulled.expect("a pull lost something"));
        collector.join().expect("collect")
    });
    assert!(collected >= 600, "{collected}");
    bench.gc();
    let left = bench.store.content("test").list().expect("list").len();
    assert_eq!(left, 3 * 3, "three blobs for each worker's last image");
    assert_eq!(bench.store.snapshots("test").list().expect("list").len(), 3);
}
