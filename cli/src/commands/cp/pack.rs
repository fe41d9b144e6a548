//! Files of this host as a tar archive, made by a thread while it is being sent.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::plan::Plan;

/// What the packing thread has to tell.
#[derive(Clone, Default)]
pub struct Progress {
    bytes: Arc<AtomicI64>,
    problem: Arc<Mutex<Option<String>>>,
}

impl Progress {
    pub fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why packing ended early.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Channel {
    sender: mpsc::Sender<Vec<u8>>,
    bytes: Arc<AtomicI64>,
}

impl Write for Channel {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes.fetch_add(i64::try_from(data.len()).unwrap_or(0), Ordering::Relaxed);
        self.sender.blocking_send(data.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts packing a file or directory, renamed by the plan.
pub fn pack(source: String, plan: Plan) -> (mpsc::Receiver<Vec<u8>>, Progress) {
    let (sender, receiver) = mpsc::channel(8);
    let progress = Progress::default();
    let told = progress.clone();
    std::thread::spawn(move || {
        let channel = Channel { sender, bytes: Arc::clone(&told.bytes) };
        let result = archive(Path::new(&source), &plan, io::BufWriter::with_capacity(256 * 1024, channel));
        if let Err(err) = result
            && err.kind() != io::ErrorKind::BrokenPipe
        {
            *told.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{source}: {err}"));
        }
    });
    (receiver, progress)
}

fn archive(source: &Path, plan: &Plan, out: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    builder.mode(tar::HeaderMode::Complete);
    let name = plan.rename(&plan.source_name);
    let contents = plan.source_name == ".";
    let meta = if contents { std::fs::metadata(source)? } else { std::fs::symlink_metadata(source)? };
    match (&name, meta.is_dir()) {
        (_, true) => builder.append_dir_all(name.as_deref().unwrap_or("."), source)?,
        (Some(name), false) => builder.append_path_with_name(source, name)?,
        (None, false) => return Err(io::Error::other("it has no name to be copied to")),
    }
    builder.into_inner()?.flush()
}
