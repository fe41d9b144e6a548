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

const COUNTS: Table<u64> = Table::new("numbers", 1);

#[test]
fn a_failed_transaction_changes_nothing() {
    let (_dir, metadata) = open();
    metadata.write(|tx| tx.put(COUNTS, "a", &1)).expect("write");
    let err = metadata
        .write(|tx| {
            tx.put(COUNTS, "a", &2)?;
            tx.put(COUNTS, "b", &3)?;
            Err::<(), _>(Error::conflict("no"))
        })
        .expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert_eq!(metadata.read(|tx| tx.list(COUNTS)).expect("list"), [("a".to_owned(), 1)]);
}

#[test]
fn a_prefix_lists_only_its_namespace() {
    let (_dir, metadata) = open();
    metadata
        .write(|tx| {
            for name in ["a/1", "a/2", "a-b/1", "ab/1", "b/1"] {
                tx.put(COUNTS, name, &0)?;
            }
            Ok(())
        })
        .expect("write");
    assert_eq!(metadata.read(|tx| tx.keys(COUNTS, &prefix("a"))).expect("keys"), ["a/1", "a/2"]);
}

#[test]
fn a_table_that_needs_a_newer_reader_is_refused_with_both_versions() {
    let (dir, metadata) = open();
    const NEWER: Table<u64> = Table::new("numbers", 7).min_reader(5);
    metadata.write(|tx| tx.put(NEWER, "a", &1)).expect("write");
    drop(metadata);
    let metadata = Metadata::open(&dir.path().join("meta.redb")).expect("open");
    for err in
        [metadata.read(|tx| tx.get(COUNTS, "a")).expect_err("refused"), metadata.write(|tx| tx.put(COUNTS, "a", &2)).expect_err("refused")]
    {
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
    let numbers: Vec<u64> = (0..3).map(|_| metadata.write(|tx| tx.next(COUNTS, "n")).expect("next")).collect();
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

/// A copy of the files as a process killed at this moment leaves them.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("temporary directory");
    for name in ["meta.redb", "meta.journal"] {
        std::fs::copy(dir.join(name), copy.path().join(name)).expect("copy");
    }
    copy
}

fn numbers(dir: &Path) -> Vec<(String, u64)> {
    Metadata::open(&dir.join("meta.redb")).expect("open").read(|tx| tx.list(COUNTS)).expect("list")
}

fn put(metadata: &Metadata, durability: Durability, key: &str, value: u64) {
    metadata.write_as(durability, |tx| tx.put(COUNTS, key, &value)).expect("write");
}

fn row(key: &str, value: u64) -> (String, u64) {
    (key.to_owned(), value)
}

#[test]
fn volatile_transactions_survive_a_kill() {
    let (dir, metadata) = open();
    put(&metadata, Durability::Immediate, "a", 1);
    put(&metadata, Durability::Volatile, "a", 2);
    put(&metadata, Durability::Volatile, "b", 3);
    metadata.write_as(Durability::Volatile, |tx| tx.delete(COUNTS, "b")).expect("delete");
    assert_eq!(metadata.read(|tx| tx.get(COUNTS, "a")).expect("read"), Some(2));
    let copy = killed(dir.path());
    assert_eq!(numbers(copy.path()), [row("a", 2)]);
    // And again: what was taken over is durable.
    assert_eq!(numbers(copy.path()), [row("a", 2)]);
}

#[test]
fn a_new_table_made_by_a_volatile_transaction_has_its_schema_after_a_kill() {
    let (dir, metadata) = open();
    const NEWER: Table<u64> = Table::new("numbers", 7).min_reader(5);
    metadata.write_as(Durability::Volatile, |tx| tx.put(NEWER, "a", &1)).expect("write");
    let copy = killed(dir.path());
    let metadata = Metadata::open(&copy.path().join("meta.redb")).expect("open");
    let err = metadata.read(|tx| tx.get(COUNTS, "a")).expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_durable_transaction_takes_the_volatile_ones_before_it_to_the_disk() {
    let (dir, metadata) = open();
    put(&metadata, Durability::Volatile, "a", 1);
    let journal = std::fs::read(dir.path().join("meta.journal")).expect("journal");
    put(&metadata, Durability::Immediate, "a", 2);
    assert_eq!(std::fs::metadata(dir.path().join("meta.journal")).expect("journal").len(), 0);
    let copy = killed(dir.path());
    // Killed between the commit and the truncation: the old journal must not be played over what is newer.
    std::fs::write(copy.path().join("meta.journal"), journal).expect("old journal");
    assert_eq!(numbers(copy.path()), [row("a", 2)]);
}

#[test]
fn without_its_journal_the_database_is_as_the_last_durable_transaction_left_it() {
    let (dir, metadata) = open();
    put(&metadata, Durability::Immediate, "a", 1);
    put(&metadata, Durability::Volatile, "a", 2);
    let copy = killed(dir.path());
    std::fs::remove_file(copy.path().join("meta.journal")).expect("lost with power");
    assert_eq!(numbers(copy.path()), [row("a", 1)]);
}

#[test]
fn many_volatile_transactions_become_durable_by_themselves() {
    let (dir, metadata) = open();
    for n in 0..1000 {
        put(&metadata, Durability::Volatile, "a", n);
    }
    let journal = std::fs::metadata(dir.path().join("meta.journal")).expect("journal").len();
    assert!(journal < 64 * 1024, "{journal}");
    assert_eq!(numbers(killed(dir.path()).path()), [row("a", 999)]);
}

#[test]
fn a_closed_database_needs_no_journal() {
    let (dir, metadata) = open();
    put(&metadata, Durability::Volatile, "a", 1);
    drop(metadata);
    std::fs::remove_file(dir.path().join("meta.journal")).expect("remove");
    assert_eq!(numbers(dir.path()), [row("a", 1)]);
}

#[test]
fn a_failed_volatile_transaction_leaves_nothing_in_the_journal() {
    let (dir, metadata) = open();
    metadata
        .write_as(Durability::Volatile, |tx| {
            tx.put(COUNTS, "a", &1)?;
            Err::<(), _>(Error::conflict("no"))
        })
        .expect_err("refused");
    put(&metadata, Durability::Volatile, "b", 1);
    assert_eq!(numbers(killed(dir.path()).path()), [row("b", 1)]);
}

/// A small file system of memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "test"]).arg(dir.path()).status();
        assert!(mounted.expect("mount").success(), "this test needs root");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn on_a_full_disk_records_are_read_and_removed() {
    const TEXTS: Table<String> = Table::new("texts", 1);
    let disk = SmallDisk::new("size=8m");
    let metadata = Metadata::open(&disk.0.path().join("meta.redb")).expect("open");
    metadata.write(|tx| tx.put(COUNTS, "kept", &7)).expect("write");
    for key in 0..50 {
        metadata.write(|tx| tx.put(TEXTS, &format!("old-{key}"), &"small".to_owned())).expect("write");
    }
    // All that is left goes to somebody else.
    let mut hog = std::fs::File::create(disk.0.path().join("hog")).expect("create");
    let full = std::io::copy(&mut std::io::repeat(1), &mut hog).expect_err("the disk has an end");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let text = "x".repeat(64 << 10);
    let mut written = 0;
    let err = loop {
        match metadata.write(|tx| tx.put(TEXTS, &written.to_string(), &text)) {
            Ok(()) => written += 1,
            Err(err) => break err,
        }
        assert!(written < 1000, "the disk has an end");
    };
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
    assert_eq!(metadata.read(|tx| tx.get(COUNTS, "kept")).expect("read"), Some(7));
    for key in 0..50 {
        metadata.write(|tx| tx.delete(TEXTS, &format!("old-{key}"))).expect("what is to free the disk works");
    }
    drop(hog);
    std::fs::remove_file(disk.0.path().join("hog")).expect("remove");
    metadata.write(|tx| tx.put(COUNTS, "kept", &8)).expect("write");
    assert!(disk.0.path().join("meta.reserve").exists(), "the room is held for the next time");
}

#[test]
fn what_frees_room_is_done_on_a_full_disk_at_once() {
    const TEXTS: Table<String> = Table::new("texts", 1);
    let disk = SmallDisk::new("size=8m");
    let metadata = Metadata::open(&disk.0.path().join("meta.redb")).expect("open");
    for key in 0..50 {
        metadata.write(|tx| tx.put(TEXTS, &format!("old-{key}"), &"small".to_owned())).expect("write");
    }
    let mut hog = std::fs::File::create(disk.0.path().join("hog")).expect("create");
    std::io::copy(&mut std::io::repeat(1), &mut hog).expect_err("the disk has an end");
    for key in 0..50 {
        metadata.write_freeing(Durability::Immediate, |tx| tx.delete(TEXTS, &format!("old-{key}"))).expect("removed");
    }
}

#[test]
fn a_database_that_could_not_be_opened_again_opens_at_a_later_use() {
    let (dir, metadata) = open();
    metadata.write(|tx| tx.put(COUNTS, "a", &1)).expect("write");
    // As after an error of the disk.
    *metadata.database.write().expect("lock") = None;
    let (path, aside) = (dir.path().join("meta.redb"), dir.path().join("aside"));
    std::fs::rename(&path, &aside).expect("move away");
    std::fs::create_dir(&path).expect("something that cannot be opened");
    let err = metadata.write(|tx| tx.put(COUNTS, "a", &2)).expect_err("not open");
    assert!(err.message().contains("meta.redb"), "{err}");
    metadata.read(|tx| tx.get(COUNTS, "a")).expect_err("not open");
    std::fs::remove_dir(&path).expect("remove");
    std::fs::rename(&aside, &path).expect("move back");
    assert_eq!(metadata.read(|tx| tx.get(COUNTS, "a")).expect("read"), Some(1));
    metadata.write(|tx| tx.put(COUNTS, "a", &2)).expect("write");
}

#[test]
fn a_database_that_was_once_large_is_made_small_again() {
    let (dir, metadata) = open();
    let path = dir.path().join("meta.redb");
    let size = || std::fs::metadata(&path).expect("stat").len();
    let text = "x".repeat(2000);
    const NOTES: Table<String> = Table::new("notes", 1);
    metadata.write(|tx| (0..6000).try_for_each(|n| tx.put(NOTES, &n.to_string(), &text))).expect("write");
    assert!(!metadata.compact_if_wasteful().expect("look"), "it is full");
    let large = size();
    metadata.write(|tx| (10..6000).try_for_each(|n| tx.delete(NOTES, &n.to_string()).map(drop))).expect("delete");
    assert!(metadata.compact_if_wasteful().expect("compact"));
    assert!(size() < large / 4, "{} of {large}", size());
    assert_eq!(metadata.read(|tx| tx.list(NOTES)).expect("list").len(), 10);
    assert!(!metadata.compact_if_wasteful().expect("look"), "it is small");
}

/// A disk that leaves out writes makes pages that are right each and contradict each other.
#[test]
fn a_database_that_cannot_be_read_is_told_in_one_line() {
    let (dir, metadata) = open();
    let path = dir.path().join("meta.redb");
    put(&metadata, Durability::Immediate, "a", 1);
    drop(metadata);
    let whole = std::fs::read(&path).expect("read");
    for (from, to) in [(0, 64), (64, 320), (0, whole.len()), (4096, 8192)] {
        let mut bytes = whole.clone();
        bytes[from..to].fill(0x5a);
        std::fs::write(&path, bytes).expect("damage");
        if let Err(err) = Metadata::open(&path) {
            assert!(err.message().contains("meta.redb") && !err.message().contains('\n'), "{err}");
        }
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("cut short");
    let err = Metadata::open(&path).err().expect("cut short");
    assert!(err.message().contains("open metadata database"), "{err}");
}
