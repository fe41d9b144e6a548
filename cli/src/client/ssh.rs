//! The engine of another host, through its ssh: the remote client joins our streams to its own engine's socket.

use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::ApiError;
use super::transport::Duplex;

/// Run by the remote host's shell: our client if it is there, else docker's.
const REMOTE: &str =
    "if command -v rdocker >/dev/null 2>&1; then exec rdocker$H system dial-stdio; else exec docker$H system dial-stdio; fi";

pub fn connect(user: Option<&str>, host: &str, port: Option<u16>, path: Option<&str>) -> Result<Box<dyn Duplex>, ApiError> {
    let mut command = Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    let host_flag = path.map(|path| format!(" --host unix://{}", quote(path))).unwrap_or_default();
    command.args(["--", host, &REMOTE.replace("$H", &host_flag)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|err| ApiError::Connect(format!("cannot run ssh to reach {host}: {err}: is the ssh client installed?")))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ApiError::Connect(format!("ssh to {host} has no streams")));
    };
    Ok(Box::new(Tunnel { stdin: Some(stdin), stdout, _child: child }))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// ssh's standard streams as one connection; ssh ends with it.
struct Tunnel {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    _child: Child,
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, data),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // Closing the pipe is the half-close that the other end sees.
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
