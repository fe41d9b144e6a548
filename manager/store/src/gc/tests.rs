use super::*;
use crate::descriptor::media_type;
use crate::image::{Index, Manifest};
use crate::records::{ContainerRecord, Resource};

const NOW: GcOptions = GcOptions { grace: Duration::ZERO, ingest_age: Duration::ZERO, dry_run: false };

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
