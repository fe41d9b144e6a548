//! ttrpc: containerd's small RPC over a stream socket, without any I/O of its own.
//!
//! ```text
//! frame    = length u32 BE | stream u32 BE | type u8 | flags u8 | payload (length bytes, at most 4 MiB)
//! request  = Request  { service, method, payload, timeout_nano, metadata }   type 1
//! response = Response { status, payload }                                    type 2
//! ```
//! Clients use odd stream numbers, each once and rising. Source: containerd/ttrpc `PROTOCOL.md`. Streaming (type 3) is not used by
//! the task and event services and is refused.

mod frame;
mod message;
mod status;

pub use frame::{Decoder, Frame, FrameError, FrameType, HEADER_LEN, MAX_PAYLOAD, encode};
pub use message::{KeyValue, Request, Response, RpcStatus};
pub use status::{Code, Status};
