//! Docker's multiplexed stream: stdout and stderr over one connection, in frames of
//! `[stream, 0, 0, 0, length: u32 big endian]` and the payload.

use bytes::{BufMut, Bytes, BytesMut};

/// Content type of framed output since API 1.42.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Content type of a terminal's bare output, and of both before API 1.42.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";

/// Which of a process's outputs a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout = 1,
    Stderr = 2,
    /// An error of the daemon's own, shown by clients.
    SystemError = 3,
}

/// How output travels to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Terminals: as it is.
    Raw,
    Multiplexed,
}

impl Framing {
    pub(crate) fn of(terminal: bool) -> Self {
        if terminal { Self::Raw } else { Self::Multiplexed }
    }

    /// `payload` as it goes out.
    pub(crate) fn encode(self, source: Source, payload: Bytes) -> Bytes {
        match self {
            Self::Raw => payload,
            Self::Multiplexed => {
                let mut framed = BytesMut::with_capacity(8 + payload.len());
                framed.put_slice(&[source as u8, 0, 0, 0]);
                framed.put_u32(u32::try_from(payload.len()).expect("a piece of output is far below 4 GiB"));
                framed.put_slice(&payload);
                framed.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_source_and_length() {
        let framed = Framing::Multiplexed.encode(Source::Stderr, Bytes::from_static(b"oops\n"));
        assert_eq!(&framed[..], b"\x02\0\0\0\0\0\0\x05oops\n");
        assert_eq!(&Framing::Raw.encode(Source::Stdout, Bytes::from_static(b"x"))[..], b"x");
    }
}
