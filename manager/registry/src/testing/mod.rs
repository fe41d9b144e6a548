//! For tests: a real registry (Debian's docker-registry), images to fill it with, a token service, and a server that lies.
//!
//! All of it lives on loopback and in a temporary directory, and ends with its value.

mod config;
mod http;
mod image;
mod real;
mod tls;
mod token;

pub use config::quick;
pub use http::{Reply, Request, Server};
pub use image::{Compression, ImageBuilder, Layout, tar_of};
pub use real::{Auth, RealRegistry};
pub use tls::Pki;

use std::path::Path;
use std::process::Command;

/// Runs a program to its end; its output belongs to the failure's message.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap_or_else(|err| panic!("write {}: {err}", path.display()));
}
