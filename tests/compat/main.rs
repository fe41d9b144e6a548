//! The containerd API as others use it: an unmodified `ctr`, a gRPC client, foreign shims and runtimes below, foreign
//! managers above.

mod client;
mod containerd;
mod ctr;
mod engines;
mod foreign;
mod support;
