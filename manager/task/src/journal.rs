//! A shim's own log: the FIFO `log` in the bundle (containerd's convention), read into ours.

use std::path::Path;

use rcontainerd_types::{Error, Result};
use rustix::fs::{FileType, Mode};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

/// Ends the reading when dropped.
#[derive(Debug)]
pub struct ShimJournal(tokio::task::JoinHandle<()>);

impl Drop for ShimJournal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the FIFO if it is not there, and reads it.
pub fn follow(bundle: &Path, id: &str) -> Result<ShimJournal> {
    let path = bundle.join("log");
    let failed = |err: std::io::Error| Error::io(format!("open {}", path.display()), err);
    match rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(err) => return Err(failed(err.into())),
    }
    // Read-write: shims come and go without an end of file.
    let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(&path).map_err(failed)?;
    let id = id.to_owned();
    Ok(ShimJournal(tokio::spawn(async move {
        let mut lines = BufReader::with_capacity(1024, receiver).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::warn!(container = %id, "shim: {line}");
        }
    })))
}
