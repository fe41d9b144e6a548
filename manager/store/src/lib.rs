//! What the manager keeps on disk: content (blobs), metadata (records), snapshots (root filesystems), and the archives that carry
//! images in and out. Synchronous throughout; callers that live in an async world use it from blocking threads.
//!
//! ```text
//! ROOT/lock                        one manager per root (flock; names its holder)
//! ROOT/meta.redb                   every record, one transactional database      → metadata, records
//! ROOT/content/blobs/<alg>/<hex>   0444, complete and verified, shared by all namespaces → content
//! ROOT/content/ingest/<hash>/      data + ref: what is still arriving, resumable
//! ROOT/snapshots/<snapshotter>/<n> fs/ (and work/): one directory per snapshot   → snapshot
//! ```
//!
//! The order that makes a crash harmless, everywhere in this crate: write, fsync, rename, fsync the directory, then the transaction
//! that makes it visible; removal goes the other way round. What a crash leaves is therefore never visible, only unreferenced, and is
//! swept at the next open.

pub mod archive;
pub mod content;
pub mod descriptor;
mod found;
mod fs;
pub mod fsck;
pub mod gc;
pub mod image;
mod lock;
pub mod metadata;
pub mod mount;
mod packed;
pub mod records;
mod release;
mod settle;
pub mod snapshot;
pub mod space;
mod store;
pub mod tree;
pub mod unpack;

pub use content::{BlobInfo, BlobReader, Content, Expected, Ingest, IngestStatus};
pub use descriptor::Descriptor;
pub use metadata::{Durability, Labels, Metadata, ReadTx, Table, WriteTx};
pub use mount::Mount;
pub use release::Released;
pub use snapshot::{Kind, Persistence, Removal, SnapshotInfo, Snapshotter, Usage};
pub use store::{Options, SnapshotterChoice, Store};
