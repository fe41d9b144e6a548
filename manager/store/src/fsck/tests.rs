use super::*;
use crate::descriptor::{Descriptor, media_type};
use crate::image::Manifest;
use crate::metadata::Labels;

const FULL: FsckOptions = FsckOptions { digests: true, repair: false };
const REPAIRING: FsckOptions = FsckOptions { digests: true, repair: true };

fn store() -> (tempfile::TempDir, Store, Digest) {
    let root = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(root.path()).expect("open");
    let put = |media_type: &str, bytes: &[u8]| {
        let info = store.content("test").put(bytes, Labels::new()).expect("put");
        Descriptor::new(media_type, info.digest, info.size)
    };
    let layer = put(media_type::OCI_LAYER, b"layer bytes");
    let digest = layer.digest.clone();
    let config = put(media_type::OCI_CONFIG, b"{}");
    let manifest = Manifest { schema_version: 2, media_type: None, config, layers: vec![layer] };
    let target = put(media_type::OCI_MANIFEST, &serde_json::to_vec(&manifest).expect("encode"));
    store.images("test").create("image", target, Labels::new()).expect("image");
    store.snapshots("test").prepare("rootfs", None, Labels::new()).expect("prepare");
    (root, store, digest)
}

fn subjects(report: &FsckReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.subject.as_str()).collect()
}

#[test]
fn a_healthy_store_is_clean() {
    let (_root, store, _) = store();
    assert_eq!(store.fsck(&FULL).expect("fsck").findings, []);
}

#[test]
fn bit_rot_is_found_by_digest_and_repair_asks_for_just_that_blob() {
    let (root, store, layer) = store();
    let file = root.path().join("content/blobs/sha256").join(layer.hex());
    std::fs::remove_file(&file).expect("remove");
    std::fs::write(&file, b"layer byteS").expect("write");
    assert!(store.fsck(&FsckOptions::default()).expect("fsck").is_clean(), "the size alone does not tell");
    let report = store.fsck(&FULL).expect("fsck");
    assert_eq!((subjects(&report), &report.refetch), (vec![format!("content {layer}").as_str()], &vec![layer.clone()]));
    assert!(store.content("test").contains(&layer).expect("contains"), "nothing is changed without --repair");
    store.fsck(&REPAIRING).expect("repair");
    assert!(!store.content("test").contains(&layer).expect("contains"), "so that a pull fetches it again");
    assert_eq!(subjects(&store.fsck(&FULL).expect("fsck")), ["image image (namespace test)"]);
    store.content("test").put(b"layer bytes", Labels::new()).expect("fetched again");
    assert!(store.fsck(&FULL).expect("fsck").is_clean());
}

#[test]
fn rubbish_and_lost_directories_are_found_and_repaired() {
    let (root, store, _) = store();
    let snapshots = root.path().join("snapshots").join(store.snapshots("test").name());
    std::fs::create_dir(snapshots.join("old")).expect("orphan");
    let orphan = Digest::sha256(b"orphan");
    std::fs::write(root.path().join("content/blobs/sha256").join(orphan.hex()), "orphan").expect("orphan");
    std::fs::remove_dir_all(snapshots.join("1")).expect("lose");
    let report = store.fsck(&REPAIRING).expect("fsck");
    assert_eq!(report.findings.len(), 3, "{report:?}");
    assert!(report.findings.iter().all(|finding| finding.remedy == "repaired"), "{report:?}");
    assert!(store.fsck(&FULL).expect("fsck").is_clean());
    assert!(!snapshots.join("old").exists());
}

#[test]
fn tables_that_disagree_are_brought_together() {
    let (_root, store, layer) = store();
    store.metadata().write(|tx| tx.delete(CONTENT, &format!("test/{layer}"))).expect("break");
    let report = store.fsck(&FULL).expect("fsck");
    assert_eq!(subjects(&report), [format!("content {layer}").as_str(), "image image (namespace test)"]);
    store.fsck(&REPAIRING).expect("repair");
    store.content("test").put(b"layer bytes", Labels::new()).expect("fetched again");
    assert!(store.fsck(&FULL).expect("fsck").is_clean());
}
