//! From this program's stdin to a connection.

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::terminal::detach::Watcher;

const CHUNK: usize = 32 * 1024;

/// Copies until the end of stdin or of the connection; true if the user typed the detach keys.
pub async fn copy(to: &mut (impl AsyncWrite + Unpin), mut watcher: Option<Watcher>) -> bool {
    let mut chunks = reader();
    while let Some(chunk) = chunks.recv().await {
        let (data, detached) = match &mut watcher {
            Some(watcher) => watcher.feed(&chunk),
            None => (chunk, false),
        };
        if !data.is_empty() && (to.write_all(&data).await.is_err() || to.flush().await.is_err()) {
            return false;
        }
        if detached {
            return true;
        }
    }
    false
}

/// A thread of its own: stdin may be a file or a terminal that others share, so it must not be made non-blocking.
/// It is left behind in its read when the program ends.
pub fn reader() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0u8; CHUNK];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(count) if sender.blocking_send(buffer[..count].to_vec()).is_err() => return,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    receiver
}
