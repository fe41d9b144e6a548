//! Attacks of the field on a container runtime, carried out on the real `rrun`: crafted bundles, images and neighbours. Each is
//! also carried out on a naive runtime (`naive.sh`, which trusts every path), where it must succeed: an attack that cannot
//! succeed anywhere proves nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod arena;
mod descriptors;
mod entered;
mod images;
mod processes;
mod program;
mod races;
mod redirects;
mod syscalls;
