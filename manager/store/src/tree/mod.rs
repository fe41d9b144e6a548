//! Directory trees as tar streams, both ways, and what a layer changes: what `cp`, `export` and `commit` stand on.
//!
//! ```text
//! directory ─walk→ TarWriter ─→ tar              write, walk
//! tar ─→ extract (within a root, by descriptor)   extract, scope
//! upper + lowers ─changes→ [Change] ─→ layer tar  changes, layer
//! ```
//! Names come from containers and are hostile: every step is relative to an open directory, no link is followed but within the root
//! ([`Scope`], openat2(2) `RESOLVE_IN_ROOT`), and nothing of the tree is ever executed or interpreted.

mod changes;
mod compress;
mod extract;
mod layer;
mod lookup;
mod scope;
#[cfg(test)]
mod tests;
mod walk;
mod write;

pub use changes::{Change, ChangeKind, changed_bytes, changes};
pub use compress::{Compressed, Compressor};
pub use extract::{ExtractOptions, extract};
pub use layer::{write_difference, write_layer};
pub use scope::Scope;
pub use walk::write_tree;
pub use write::{TarWriter, Times};

/// Levels below the root of a tree that is read: as many as a layer may have.
const DEPTH_MAX: usize = 512;
