//! Layers onto and out of sets of mounts, as a client that unpacks by itself asks for them. No mount is made for it: the mounts are our
//! own snapshotters', and say which directories they stack.

use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use rcontainerd_store::records::Resource;
use rcontainerd_store::snapshot::{LayerDirs, Whiteouts};
use rcontainerd_store::tree::{self, Compressed, Compressor};
use rcontainerd_store::unpack::{self, Limits};
use rcontainerd_store::{Ingest, Labels, Mount, Store};
use rcontainerd_types::media_type;
use rcontainerd_types::{Descriptor, Digest, Error, Result, id};

use crate::images::Sink;

/// The digest of a compressed layer's tar: containerd's clients ask for it there.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// The directories that a set of mounts stacks, topmost first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stack {
    dirs: Vec<PathBuf>,
    /// Whether the topmost takes writes.
    writable: bool,
    /// Whether deletions are told by overlayfs's whiteouts.
    overlay: bool,
}

impl Stack {
    /// # Errors
    /// `Unsupported` for mounts that no snapshotter of ours makes.
    fn of(mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::unsupported(format!("{} mounts: layers go to and come from one mount of a snapshotter", mounts.len())));
        };
        match mount.fstype.as_str() {
            "overlay" => Self::of_overlay(mount),
            "bind" => Ok(Self {
                dirs: vec![mount.source.clone().into()],
                writable: !mount.options.iter().any(|option| option == "ro"),
                overlay: false,
            }),
            other => Err(Error::unsupported(format!(
                "mount of type {other:?}: layers go to and come from overlay and bind mounts, as this server's snapshotters make them"
            ))),
        }
    }

    fn of_overlay(mount: &Mount) -> Result<Self> {
        let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let upper = option("upperdir");
        let lowers = option("lowerdir").ok_or_else(|| Error::invalid("an overlay mount without lowerdir"))?;
        let dirs = upper.into_iter().chain(lowers.split(':')).map(PathBuf::from).collect();
        Ok(Self { dirs, writable: upper.is_some(), overlay: true })
    }
}

/// Applies the layer to the snapshot behind the mounts; the answer describes the plain layer, its digest is the DiffID.
///
/// # Errors
/// `NotFound` for the blob; `Conflict` for a read-only snapshot; `Unsupported` for mounts or a media type that we do not know; what the
/// unpacker says.
pub fn apply(store: &Store, namespace: &str, layer: &Descriptor, mounts: &[Mount], sync: bool) -> Result<Descriptor> {
    let dirs = writable_dirs(Stack::of(mounts)?)?;
    let blob = store.content(namespace).reader(&layer.digest)?;
    let applied = unpack::apply(blob, &layer.media_type, &dirs, &Limits::default())
        .map_err(|err| err.context(format!("apply layer {}", layer.digest)))?;
    if sync {
        let failed = |err: rustix::io::Errno| Error::io(format!("sync {}", dirs.upper.display()), err.into());
        let dir = rustix::fs::open(&dirs.upper, rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        rustix::fs::syncfs(dir.map_err(failed)?).map_err(failed)?;
    }
    Ok(Descriptor::new(media_type::OCI_LAYER, applied.diff_id, applied.size))
}

/// What a layer is to be made of.
pub struct Difference {
    /// What was; none for nothing.
    pub left: Vec<Mount>,
    /// What is.
    pub right: Vec<Mount>,
    /// Of the layer; empty for gzip.
    pub media_type: String,
    /// The name of its ingest; empty for any.
    pub reference: String,
    pub labels: Labels,
    /// No time in the layer is later.
    pub latest: Option<Timestamp>,
    /// What holds the blob.
    pub lease: Option<String>,
}

/// Stores as a blob what the right mounts have otherwise than the left ones.
///
/// # Errors
/// `Unsupported` for mounts or a media type that we do not know; `NotFound` for the lease; what reading and the store say.
pub fn write(store: &Store, namespace: &str, wanted: Difference) -> Result<Descriptor> {
    let (how, media_type) = form(&wanted.media_type)?;
    let left = if wanted.left.is_empty() { Vec::new() } else { Stack::of(&wanted.left)?.dirs };
    let right = Stack::of(&wanted.right)?.dirs;
    let content = store.content(namespace);
    let name = if wanted.reference.is_empty() { format!("diff-{}", id::generate()?) } else { wanted.reference };
    let mut ingest = content.ingest(&name, None)?;
    if ingest.offset() > 0 {
        // From an earlier try: the trees may be others now.
        ingest.restart()?;
    }
    let (ingest, diff_id) = fill(ingest.ephemeral(), how, |out| tree::write_difference(&left, &right, wanted.latest, out).map(drop))?;
    let (digest, size) = (ingest.digest(), ingest.offset());
    if let Some(lease) = &wanted.lease {
        // Before it is there: no collection may come in between.
        store.leases(namespace).add(lease, &Resource::Content(digest.clone()))?;
    }
    let mut labels = wanted.labels;
    if how != Compressed::Plain {
        labels.insert(UNCOMPRESSED.into(), diff_id.to_string());
    }
    if content.contains(&digest)? {
        let known = content.info(&digest)?.labels;
        content.set_labels(&digest, known.into_iter().chain(labels).collect())?;
    } else {
        ingest.commit(None, None, labels)?;
    }
    Ok(Descriptor::new(media_type, digest, size))
}

fn form(asked: &str) -> Result<(Compressed, &str)> {
    Ok(match asked {
        "" => (Compressed::Gzip, media_type::OCI_LAYER_GZIP),
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => (Compressed::Plain, asked),
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => (Compressed::Gzip, asked),
        media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => (Compressed::Zstd, asked),
        other => {
            let known = "layers are written as tar, tar+gzip or tar+zstd of OCI's or Docker's media types";
            return Err(Error::unsupported(format!("media type {other:?}: {known}")));
        }
    })
}

/// Writes a tar through the compressor; gives the tar's own digest.
fn fill(ingest: Ingest, how: Compressed, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<(Ingest, Digest)> {
    let mut sink = Sink { ingest, failure: None };
    let failed = |err: io::Error| Error::io("compress the layer", err);
    let written = Compressor::new(how, &mut sink).map_err(failed).and_then(|compressor| {
        let mut tar = Hashed { out: compressor, hasher: rcontainerd_types::digest::Algorithm::Sha256.hasher() };
        write(&mut tar)?;
        tar.out.finish().map_err(failed)?;
        Ok(tar.hasher.finish())
    });
    // A full disk is the cause, the writer's complaint its consequence.
    match sink.failure {
        Some(failure) => Err(failure),
        None => written.map(|diff_id| (sink.ingest, diff_id)),
    }
}

struct Hashed<W> {
    out: W,
    hasher: rcontainerd_types::digest::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn writable_dirs(mut stack: Stack) -> Result<LayerDirs> {
    if !stack.writable {
        return Err(Error::conflict("the mounts are read-only: prepare a snapshot to apply a layer to, a view takes none"));
    }
    let upper = stack.dirs.remove(0);
    if !upper.is_absolute() {
        return Err(Error::invalid(format!("mount of {}: the path must be absolute", upper.display())));
    }
    // A bind mount shows the merged view: what a layer deletes is deleted there.
    let whiteouts = if stack.overlay { Whiteouts::Overlay } else { Whiteouts::Remove };
    Ok(LayerDirs { upper, lowers: stack.dirs, whiteouts })
}

#[cfg(test)]
mod tests {
    use rcontainerd_store::{Options, SnapshotterChoice};
    use rcontainerd_types::ErrorKind;

    use super::*;

    fn mount(fstype: &str, source: &str, options: &[&str]) -> Mount {
        Mount { fstype: fstype.into(), source: source.into(), options: options.iter().map(|&option| option.to_owned()).collect() }
    }

    #[test]
    fn mounts_are_read_as_stacks() {
        let overlay = mount("overlay", "overlay", &["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"]);
        let stack = Stack::of(std::slice::from_ref(&overlay)).expect("overlay");
        assert_eq!(stack.dirs, ["/s/3/fs", "/s/2/fs", "/s/1/fs"].map(PathBuf::from));
        assert!(stack.writable && stack.overlay);
        let bind = Stack::of(&[mount("bind", "/s/1/fs", &["rbind", "ro"])]).expect("bind");
        assert!(!bind.writable && !bind.overlay);
        assert_eq!(Stack::of(&[mount("ext4", "/dev/sda", &[])]).expect_err("foreign").kind(), ErrorKind::Unsupported);
        assert_eq!(Stack::of(&[overlay.clone(), overlay]).expect_err("two").kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn nothing_is_applied_to_a_view() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(dir.path()).expect("store");
        let layer = Descriptor::new(media_type::OCI_LAYER, rcontainerd_types::Digest::sha256(b""), 0);
        let view = mount("bind", "/tmp", &["rbind", "ro"]);
        assert_eq!(apply(&store, "x", &layer, &[view], false).expect_err("a view").kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_layer_goes_where_the_mounts_say_and_its_diff_id_comes_back() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(dir.path()).expect("store");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a", &b"hi"[..]).expect("entry");
        let bytes = tar.into_inner().expect("tar");
        let blob = store.content("x").put(&bytes, Default::default()).expect("blob");
        let mounts = store.snapshots("x").prepare("k", None, Default::default()).expect("snapshot");
        let layer = Descriptor::new(media_type::OCI_LAYER, blob.digest.clone(), blob.size);
        let applied = apply(&store, "x", &layer, &mounts, true).expect("applied");
        assert_eq!((applied.digest, applied.size), (blob.digest, blob.size));
        let upper = store.snapshots("x").layer_dirs("k").expect("dirs").upper;
        assert_eq!(std::fs::read(upper.join("a")).expect("file"), b"hi");
    }

    /// Base, a layer on it and a third: what lies between any two of them is written so that it makes the one out of the other.
    #[test]
    fn a_layer_is_written_between_any_two_states() {
        for choice in [SnapshotterChoice::Overlay, SnapshotterChoice::Native] {
            let dir = tempfile::tempdir().expect("directory");
            let store = Store::open_with(dir.path(), &Options { snapshotter: choice }).expect("store");
            let snapshots = store.snapshots("x");
            let step = |name: &str, parent: Option<&str>, change: &dyn Fn(&std::path::Path)| {
                snapshots.prepare(&format!("{name}-key"), parent, Labels::new()).expect("prepare");
                change(&snapshots.layer_dirs(&format!("{name}-key")).expect("dirs").upper);
                snapshots.commit(name, &format!("{name}-key"), Labels::new()).expect("commit");
            };
            let put = |dir: &std::path::Path, name: &str, text: &str| std::fs::write(dir.join(name), text).expect("file");
            step("one", None, &|dir| put(dir, "kept", "1"));
            step("two", Some("one"), &|dir| put(dir, "two", "22"));
            step("three", Some("two"), &|dir| {
                put(dir, "two", "333");
                put(dir, "three", "3");
            });
            let view = |of: Option<&str>| snapshots.view(&id::generate().expect("id"), of, Labels::new()).expect("view");
            let layer = |left: Vec<Mount>, right: &str, form: &str| {
                let latest = Some(Timestamp::from_second(1_000).expect("a time"));
                let (right, labels) = (view(Some(right)), Labels::from([("mine".into(), "yes".into())]));
                let wanted = Difference { left, right, media_type: form.into(), reference: String::new(), labels, latest, lease: None };
                let written = write(&store, "x", wanted).expect("written");
                let blob = store.content("x").reader(&written.digest).expect("blob");
                let mut tar = tar::Archive::new(unpack::Decompressed::open(blob).expect("stream"));
                let member = |entry: io::Result<tar::Entry<'_, _>>| {
                    let entry = entry.expect("entry");
                    assert!(entry.header().mtime().expect("a time") <= 1_000);
                    format!("{} {}", entry.path().expect("path").display(), entry.size())
                };
                let members: Vec<String> = tar.entries().expect("entries").map(member).collect();
                (members, written)
            };
            let what = format!("{choice:?}");
            assert_eq!(layer(view(Some("one")), "two", "").0, ["two 2"], "{what}: the layer itself");
            assert_eq!(layer(view(Some("one")), "three", "").0, ["three 1", "two 3"], "{what}: two layers as one");
            assert_eq!(layer(view(Some("two")), "one", "").0, [".wh.two 0"], "{what}: backwards");
            assert_eq!(layer(Vec::new(), "two", media_type::OCI_LAYER_ZSTD).0, ["kept 1", "two 2"], "{what}: from nothing");
            assert_eq!(layer(view(None), "one", media_type::DOCKER_LAYER).0, ["kept 1"], "{what}: from an empty view");
            let (_, plain) = layer(view(Some("one")), "two", media_type::OCI_LAYER);
            let (_, packed) = layer(view(Some("one")), "two", "");
            assert_eq!(packed.media_type, media_type::OCI_LAYER_GZIP);
            let labels = store.content("x").info(&packed.digest).expect("info").labels;
            assert_eq!(labels[UNCOMPRESSED], plain.digest.to_string());
            assert_eq!(labels["mine"], "yes");
            assert!(store.content("x").ingests().expect("ingests").is_empty());
        }
    }

    #[test]
    fn a_layer_of_an_unknown_form_is_refused_before_anything_is_read() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(dir.path()).expect("store");
        let wanted = Difference {
            left: Vec::new(),
            right: vec![mount("bind", "/none", &["ro"])],
            media_type: "application/x-7z".into(),
            reference: String::new(),
            labels: Labels::new(),
            latest: None,
            lease: None,
        };
        assert_eq!(write(&store, "x", wanted).expect_err("refused").kind(), ErrorKind::Unsupported);
    }
}
