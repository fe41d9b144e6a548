//! Checks content, snapshots and metadata against each other.
