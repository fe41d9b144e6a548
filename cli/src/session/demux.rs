//! From a connection to this program's stdout and stderr.
//!
//! Without a terminal both streams share the connection as frames: `[stream, 0, 0, 0, length: u32 big endian]`
//! and so many bytes; stream 1 is stdout, 2 is stderr, 3 an error of the engine's.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::failure::Failure;

const CHUNK: usize = 32 * 1024;
const HEADER: usize = 8;

/// Copies until the connection ends.
///
/// # Errors
/// A broken connection, a malformed frame, or a stdout that cannot be written.
pub async fn copy(from: &mut (impl AsyncRead + Unpin), multiplexed: bool, stdout: bool, stderr: bool) -> Result<(), Failure> {
    let mut out = tokio::io::stdout();
    let mut err = tokio::io::stderr();
    if !multiplexed {
        return plain(from, &mut out).await;
    }
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let Some(header) = read_header(from).await? else { return Ok(()) };
        let mut left = usize::try_from(u32::from_be_bytes([header[4], header[5], header[6], header[7]])).unwrap_or(usize::MAX);
        let mut system_error = Vec::new();
        while left > 0 {
            let want = left.min(CHUNK);
            let count = from.read(&mut buffer[..want]).await.map_err(broken)?;
            if count == 0 {
                return Ok(());
            }
            left -= count;
            match header[0] {
                0 | 1 if stdout => write(&mut out, &buffer[..count]).await?,
                2 if stderr => write(&mut err, &buffer[..count]).await?,
                0..=2 => {}
                3 => system_error.extend_from_slice(&buffer[..count]),
                other => return Err(Failure::message(format!("Unrecognized input header: {other}"))),
            }
        }
        if !system_error.is_empty() {
            return Err(Failure::message(format!("error from daemon in stream: {}", String::from_utf8_lossy(&system_error))));
        }
    }
}

async fn plain(from: &mut (impl AsyncRead + Unpin), out: &mut tokio::io::Stdout) -> Result<(), Failure> {
    let mut buffer = vec![0u8; CHUNK];
    loop {
        match from.read(&mut buffer).await.map_err(broken)? {
            0 => return Ok(()),
            count => write(out, &buffer[..count]).await?,
        }
    }
}

async fn read_header(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<[u8; HEADER]>, Failure> {
    let mut header = [0u8; HEADER];
    match from.read_exact(&mut header).await {
        Ok(_) => Ok(Some(header)),
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(err) => Err(broken(err)),
    }
}

async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), data: &[u8]) -> Result<(), Failure> {
    match async {
        to.write_all(data).await?;
        to.flush().await
    }
    .await
    {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::silent(141)),
        Err(err) => Err(Failure::message(format!("write to the output failed: {err}"))),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn broken(err: std::io::Error) -> Failure {
    Failure::message(format!("the connection to the daemon broke: {err}"))
}
