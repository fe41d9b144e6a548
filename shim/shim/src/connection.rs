//! One ttrpc connection of a manager: frames in, frames out.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use prost::Message;
use shim_ttrpc::{Decoder, FrameType, Request, Response, Status, encode};

use crate::poller::Token;

/// Where an answer is to go. The connection may be gone by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub connection: u64,
    pub stream: u32,
}

#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    pub token: Token,
    decoder: Decoder,
    out: Vec<u8>,
}

/// Output that a client leaves unread beyond this is the client's end.
const MAX_UNSENT: usize = 16 << 20;

impl Connection {
    pub fn new(socket: OwnedFd, token: Token) -> Self {
        Self { socket: socket.into(), token, decoder: Decoder::default(), out: Vec::new() }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what is there. `None`: the client is gone or speaks no ttrpc.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<Vec<(u32, Request)>> {
        let mut open = true;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(n) => self.decoder.push(&buffer[..n]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        let mut requests = Vec::new();
        while let Some(frame) = self.decoder.next_frame().ok()? {
            if frame.kind != FrameType::Request {
                return None;
            }
            requests.push((frame.stream, Request::decode(frame.payload.as_slice()).ok()?));
        }
        // What was asked before the client closed is still done.
        (open || !requests.is_empty()).then_some(requests)
    }

    /// Queues and sends an answer; `false` when the connection is of no more use.
    pub fn send(&mut self, stream: u32, result: Result<Vec<u8>, Status>) -> bool {
        match encode(stream, FrameType::Response, &Response::from_result(result)) {
            Ok(frame) => self.out.extend_from_slice(&frame),
            Err(err) => {
                let status = Status::new(shim_ttrpc::Code::ResourceExhausted, err.to_string());
                match encode(stream, FrameType::Response, &Response::from_result(Err(status))) {
                    Ok(frame) => self.out.extend_from_slice(&frame),
                    Err(_) => return false,
                }
            }
        }
        self.flush() && self.out.len() <= MAX_UNSENT
    }

    pub fn flush(&mut self) -> bool {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return true,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.out = Vec::new();
        true
    }

    pub fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }
}
