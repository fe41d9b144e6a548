use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::store::Store;

fn open() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(root.path()).expect("open");
    (root, store)
}

fn expected(bytes: &[u8]) -> Expected {
    Expected { digest: Digest::sha256(bytes), size: bytes.len() as u64 }
}

fn labels(value: &str) -> Labels {
    Labels::from([("label".to_owned(), value.to_owned())])
}

fn ingest_dirs(root: &Path) -> usize {
    std::fs::read_dir(root.join("content/ingest")).expect("list").count()
}

#[test]
fn what_is_committed_can_be_read_and_nothing_else_is_seen() {
    let (root, store) = open();
    let content = store.content("test");
    let want = expected(b"hello");
    let mut ingest = content.ingest("key", Some(&want)).expect("ingest");
    ingest.append(b"hel").expect("append");
    assert_eq!(content.info(&want.digest).expect_err("not yet").kind(), ErrorKind::NotFound);
    assert_eq!(content.ingest("key", None).err().expect("one writer").kind(), ErrorKind::Unavailable);
    assert_eq!(content.ingest_status("key").expect("status").offset, 3);
    ingest.append(b"lo").expect("append");
    let info = ingest.commit(None, None, labels("a")).expect("commit");
    assert_eq!((info.size, &info.labels), (5, &labels("a")));
    assert_eq!(content.read(&want.digest, 5).expect("read"), b"hello");
    assert_eq!(content.read(&want.digest, 4).expect_err("limit").kind(), ErrorKind::ResourceExhausted);
    assert_eq!(content.ingest("key", Some(&want)).err().expect("there").kind(), ErrorKind::AlreadyExists);
    let found = std::fs::metadata(root.path().join("content/blobs/sha256").join(want.digest.hex())).expect("stat");
    assert_eq!(found.mode() & 0o7777, 0o444);
    assert_eq!((ingest_dirs(root.path()), content.list().expect("list").len()), (0, 1));
}

#[test]
fn a_blob_that_cannot_be_recorded_leaves_no_file() {
    let (root, store) = open();
    let mut ingest = store.content("test").ingest("key", Some(&expected(b"hello"))).expect("ingest");
    ingest.append(b"hello").expect("append");
    // As if a newer version had written the table meanwhile: a reason for the last step to fail, as a full disk is.
    const NEWER: Table<u64> = Table::new("content", 9).min_reader(9);
    store.metadata().write(|tx| tx.put(NEWER, "x", &1)).expect("write");
    ingest.commit(None, None, Labels::new()).expect_err("not recorded");
    assert_eq!(std::fs::read_dir(root.path().join("content/blobs/sha256")).expect("list").count(), 0);
    assert_eq!(ingest_dirs(root.path()), 0);
}

#[test]
fn an_ingest_goes_on_where_it_ended_also_in_another_process() {
    let (root, store) = open();
    let want = expected(b"hello world");
    let mut ingest = store.content("test").ingest("key", Some(&want)).expect("ingest");
    ingest.append(b"hello ").expect("append");
    drop(ingest);
    drop(store);
    let store = Store::open(root.path()).expect("open again");
    let mut ingest = store.content("test").ingest("key", Some(&want)).expect("resume");
    assert_eq!(ingest.offset(), 6);
    ingest.append(b"world").expect("append");
    ingest.commit(None, None, Labels::new()).expect("commit");
    // Bytes that arrived for another blob are worth nothing.
    let content = store.content("test");
    content.ingest("other", Some(&expected(b"one"))).expect("ingest").append(b"on").expect("append");
    assert_eq!(content.ingest("other", Some(&expected(b"two"))).expect("ingest").offset(), 0);
}

#[test]
fn wrong_bytes_are_refused_and_removed() {
    let (root, store) = open();
    let content = store.content("test");
    let want = expected(b"right");
    for (bytes, hint) in [(&b"wrong"[..], "has digest"), (b"righ", "4 bytes arrived, 5 were promised"), (b"right and more", "more than")] {
        let mut ingest = content.ingest("key", Some(&want)).expect("ingest");
        let err = match ingest.append(bytes) {
            Ok(()) => ingest.commit(None, None, Labels::new()).expect_err("refused"),
            Err(err) => {
                drop(ingest);
                err
            }
        };
        assert_eq!(err.kind(), ErrorKind::DataLoss, "{err}");
        assert!(err.message().contains(hint), "{err}");
        assert_eq!(ingest_dirs(root.path()), 0);
    }
    assert!(content.list().expect("list").is_empty());
}

#[test]
fn sha512_is_verified_too() {
    let (_root, store) = open();
    let mut hasher = rcontainerd_types::digest::Algorithm::Sha512.hasher();
    hasher.update(b"abc");
    let digest = hasher.finish();
    let mut ingest = store.content("test").ingest("key", Some(&Expected { digest: digest.clone(), size: 3 })).expect("ingest");
    ingest.append(b"abc").expect("append");
    assert_eq!(ingest.commit(None, None, Labels::new()).expect("commit").digest, digest);
    // The digest may also be told only at the end (containerd's Commit).
    let mut ingest = store.content("other").ingest("key", None).expect("ingest");
    ingest.append(b"abc").expect("append");
    assert_eq!(ingest.commit(Some(3), Some(&digest), Labels::new()).expect("commit").digest, digest);
}

#[test]
fn a_blob_goes_with_the_last_namespace_that_sees_it() {
    let (root, store) = open();
    let (one, two) = (store.content("one"), store.content("two"));
    let digest = one.put(b"shared", labels("one")).expect("put").digest;
    let file = root.path().join("content/blobs/sha256").join(digest.hex());
    assert_eq!(two.info(&digest).expect_err("not seen").kind(), ErrorKind::NotFound);
    assert!(two.adopt(&digest, labels("two")).expect("adopt"));
    assert_eq!(one.info(&digest).expect("info").labels, labels("one"));
    one.delete(&digest).expect("delete");
    assert_eq!(two.read(&digest, 100).expect("still there"), b"shared");
    assert_eq!(one.delete(&digest).expect_err("gone").kind(), ErrorKind::NotFound);
    assert!(file.exists());
    two.delete(&digest).expect("delete");
    assert!(!file.exists());
}

/// The field's oldest complaint: a file that lost its bytes survives every re-pull.
#[test]
fn a_damaged_blob_is_noticed_and_mended_by_storing_it_again() {
    let (root, store) = open();
    let content = store.content("test");
    let digest = content.put(b"precious", Labels::new()).expect("put").digest;
    let file = root.path().join("content/blobs/sha256").join(digest.hex());
    std::fs::remove_file(&file).expect("remove");
    std::fs::write(&file, "").expect("truncate");
    assert_eq!(content.reader(&digest).expect_err("empty").kind(), ErrorKind::DataLoss);
    let mut ingest = content.ingest("again", Some(&expected(b"precious"))).expect("not taken for present");
    ingest.append(b"precious").expect("append");
    ingest.commit(None, None, Labels::new()).expect("commit");
    assert_eq!(content.read(&digest, 100).expect("read"), b"precious");
    std::fs::remove_file(&file).expect("remove");
    std::fs::write(&file, "precioux").expect("flip");
    assert_eq!(content.read(&digest, 100).expect_err("rot").kind(), ErrorKind::DataLoss);
}

#[test]
fn a_full_disk_leaves_nothing_half_made_and_the_store_works_on() {
    let mount = tempfile::tempdir().expect("temporary directory");
    let run = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).status().expect("run").success());
    let path = mount.path().to_str().expect("utf-8");
    run(&["mount", "-t", "tmpfs", "-o", "size=16m", "store-test", path]);
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&mount.path().join("root")).expect("open");
        let content = store.content("test");
        let mut ingest = content.ingest("big", None).expect("ingest");
        let err = (0..64).find_map(|_| ingest.append(&[7; 1 << 20]).err()).expect("the disk is full");
        assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
        drop(ingest);
        assert_eq!(ingest_dirs(&mount.path().join("root")), 0);
        let digest = content.put(b"small", Labels::new()).expect("works again").digest;
        // The database itself meets the full disk.
        let filler = mount.path().join("filler");
        let mut file = std::fs::File::create(&filler).expect("create");
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        let many: Labels = (0..20_000).map(|n| (n.to_string(), "x".repeat(100))).collect();
        let err = content.set_labels(&digest, many).expect_err("full");
        assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
        drop(file);
        std::fs::remove_file(&filler).expect("remove");
        assert!(content.info(&digest).expect("readable").labels.is_empty());
        content.set_labels(&digest, labels("after")).expect("writable again");
    });
    run(&["umount", path]);
    outcome.expect("inside");
}

/// Child of the test below: stores blobs until it is killed, telling each that is acknowledged.
#[test]
fn child_that_stores_until_killed() {
    let Ok(root) = std::env::var("STORE_TEST_CHILD_ROOT") else { return };
    let store = Store::open(Path::new(&root)).expect("open");
    let content = store.content("test");
    let start = content.list().expect("list").len();
    for n in start.. {
        let bytes = n.to_string().repeat(5000);
        let info = content.put(bytes.as_bytes(), Labels::new()).expect("put");
        println!("STORED {} {n}", info.digest);
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let root = tempfile::tempdir().expect("temporary directory");
    let mut acknowledged = Vec::new();
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "content::tests::child_that_stores_until_killed", "--nocapture"])
            .env("STORE_TEST_CHILD_ROOT", root.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("stdout")));
        let mut seen = 0;
        while seen < 3 + round {
            let line = lines.next().expect("the child lives").expect("line");
            if let Some(stored) = line.split("STORED ").nth(1) {
                acknowledged.push(stored.split(' ').next().expect("digest").parse::<Digest>().expect("digest"));
                seen += 1;
            }
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        for line in lines.map_while(std::result::Result::ok) {
            if let Some(stored) = line.strip_prefix("STORED ").filter(|rest| rest.contains(' ')) {
                acknowledged.push(stored.split(' ').next().expect("digest").parse().expect("digest"));
            }
        }
    }
    let store = Store::open(root.path()).expect("open after the last kill");
    let content = store.content("test");
    for digest in &acknowledged {
        content.read(digest, 1 << 20).expect("acknowledged");
    }
    let files = store.content_files().files().expect("files");
    assert_eq!(files.len(), content.list().expect("list").len(), "no file without a record");
    assert!(acknowledged.len() >= 50, "{}", acknowledged.len());
}

#[test]
fn a_blob_is_read_while_it_arrives() {
    let (_root, store) = open();
    let content = store.content("test");
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut ingest = content.ingest("k", None).expect("ingest");
    ingest.append(&bytes[..1000]).expect("append");
    let mut follower = ingest.follow().expect("follow");
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        follower.read_to_end(&mut seen).map(|_| seen)
    });
    for piece in bytes[1000..].chunks(70_001) {
        ingest.append(piece).expect("append");
    }
    ingest.commit(None, None, Labels::new()).expect("commit");
    assert!(reader.join().expect("no panic").expect("whole") == bytes);
}

#[test]
fn whoever_follows_a_blob_that_is_given_up_or_wrong_is_told() {
    let (_root, store) = open();
    let content = store.content("test");
    for wrong in [false, true] {
        let mut ingest = content.ingest(&format!("k-{wrong}"), None).expect("ingest");
        let mut follower = ingest.follow().expect("follow");
        ingest.append(b"abc").expect("append");
        if wrong {
            ingest.commit(None, Some(&Digest::sha256(b"other")), Labels::new()).expect_err("refused");
        } else {
            drop(ingest);
        }
        let mut seen = Vec::new();
        follower.read_to_end(&mut seen).expect_err("not whole");
        assert_eq!(seen, b"abc");
    }
}
