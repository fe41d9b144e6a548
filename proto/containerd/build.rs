//! Compiles every .proto under proto/; those under proto/services (gRPC) only with the feature `grpc`.

use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    let mut files = Vec::new();
    collect(Path::new("proto"), grpc, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    let mut config = prost_build::Config::new();
    // An `Any` needs its message's full name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

fn collect(dir: &Path, grpc: bool, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if grpc || !path.ends_with("services") {
                collect(&path, grpc, files)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
