use std::time::Instant;

use rcontainerd_types::Digest;

use super::*;
use crate::descriptor::Descriptor;
use crate::records::{IMAGES, put_image};

fn open() -> (tempfile::TempDir, Metadata) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let metadata = Metadata::open(&dir.path().join("meta.redb")).expect("open");
    (dir, metadata)
}

const NUMBERS: Table<u64> = Table::new("numbers", 1);

#[test]
fn a_failed_transaction_changes_nothing() {
    let (_dir, metadata) = open();
    metadata.write(|tx| tx.put(NUMBERS, "a", &1)).expect("write");
    let err = metadata
        .write(|tx| {
            tx.put(NUMBERS, "a", &2)?;
            tx.put(NUMBERS, "b", &3)?;
            Err::<(), _>(Error::conflict("no"))
        })
        .expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert_eq!(metadata.read(|tx| tx.list(NUMBERS)).expect("list"), [("a".to_owned(), 1)]);
}

#[test]
fn a_prefix_lists_only_its_namespace() {
    let (_dir, metadata) = open();
    metadata
        .write(|tx| {
            for name in ["a/1", "a/2", "a-b/1", "ab/1", "b/1"] {
                tx.put(NUMBERS, name, &0)?;
            }
            Ok(())
        })
        .expect("write");
    assert_eq!(metadata.read(|tx| tx.keys(NUMBERS, &prefix("a"))).expect("keys"), ["a/1", "a/2"]);
}

#[test]
fn a_table_that_needs_a_newer_reader_is_refused_with_both_versions() {
    let (dir, metadata) = open();
    const NEWER: Table<u64> = Table::new("numbers", 7).min_reader(5);
    metadata.write(|tx| tx.put(NEWER, "a", &1)).expect("write");
    drop(metadata);
    let metadata = Metadata::open(&dir.path().join("meta.redb")).expect("open");
    for err in [
        metadata.read(|tx| tx.get(NUMBERS, "a")).expect_err("refused"),
        metadata.write(|tx| tx.put(NUMBERS, "a", &2)).expect_err("refused"),
    ] {
        assert_eq!(err.kind(), ErrorKind::Unsupported);
        assert!(err.message().contains("reader of schema 5") && err.message().contains("schema 1"), "{err}");
    }
    // A newer writer that kept old readers in mind is no obstacle.
    const COMPATIBLE: Table<u64> = Table::new("others", 7).min_reader(1);
    metadata.write(|tx| tx.put(COMPATIBLE, "a", &1)).expect("write");
    const OLD: Table<u64> = Table::new("others", 1);
    assert_eq!(metadata.read(|tx| tx.get(OLD, "a")).expect("read"), Some(1));
}

#[test]
fn counters_count_in_the_transaction() {
    let (_dir, metadata) = open();
    let numbers: Vec<u64> = (0..3).map(|_| metadata.write(|tx| tx.next(NUMBERS, "n")).expect("next")).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn ten_thousand_records_are_listed_at_once() {
    let (dir, metadata) = open();
    let target = Descriptor::new("application/vnd.oci.image.manifest.v1+json", Digest::sha256(b""), 1234);
    metadata
        .write(|tx| {
            for n in 0..10_000 {
                put_image(tx, "moby", &format!("docker.io/library/image-{n}:latest"), target.clone(), Labels::new())?;
            }
            Ok(())
        })
        .expect("write");
    drop(metadata);
    let start = Instant::now();
    let metadata = Metadata::open(&dir.path().join("meta.redb")).expect("open");
    let opened = start.elapsed();
    let start = Instant::now();
    let listed = metadata.read(|tx| tx.list_prefix(IMAGES, "moby/")).expect("list").len();
    println!("open {opened:?}, list {:?}", start.elapsed());
    assert_eq!(listed, 10_000);
}
