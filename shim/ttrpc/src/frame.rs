//! Frames: cutting them from a byte stream and putting them together.

pub const HEADER_LEN: usize = 10;
/// A larger payload is a protocol error (ttrpc's `messageLengthMax`).
pub const MAX_PAYLOAD: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    Request = 1,
    Response = 2,
    Data = 3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: FrameType,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// The stream of bytes cannot be understood from here on: close the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("ttrpc frame of {0} bytes is above the limit of {MAX_PAYLOAD}")]
    TooLarge(usize),
    #[error("ttrpc frame of unknown type {0}")]
    UnknownType(u8),
}

/// Collects bytes until a frame is whole.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no ttrpc; the decoder is of no use afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h, kind, flags] = *header;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLarge(length));
        }
        let kind = match kind {
            1 => FrameType::Request,
            2 => FrameType::Response,
            3 => FrameType::Data,
            other => return Err(FrameError::UnknownType(other)),
        };
        let Some(payload) = self.buffer.get(HEADER_LEN..HEADER_LEN + length) else { return Ok(None) };
        let frame = Frame { stream: u32::from_be_bytes([e, f, g, h]), kind, flags, payload: payload.to_vec() };
        self.buffer.drain(..HEADER_LEN + length);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(Some(frame))
    }
}

/// One whole frame with a protobuf message as its payload, as bytes.
///
/// # Errors
/// When the message is above [`MAX_PAYLOAD`].
pub fn encode(stream: u32, kind: FrameType, message: &impl prost::Message) -> Result<Vec<u8>, FrameError> {
    let length = message.encoded_len();
    let wire_length = u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD).ok_or(FrameError::TooLarge(length))?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + length);
    bytes.extend_from_slice(&wire_length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind as u8, 0]);
    message.encode_raw(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, Request, Response, Status};
    use prost::Message;

    fn request() -> Request {
        Request { service: "s".into(), method: "m".into(), payload: vec![7; 300], timeout_nano: 5, metadata: Vec::new() }
    }

    #[test]
    fn a_frame_survives_any_cut() {
        let bytes = encode(9, FrameType::Request, &request()).expect("small");
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            decoder.push(&bytes[..cut]);
            assert_eq!(decoder.next_frame().expect("valid"), None, "cut at {cut}");
            decoder.push(&bytes[cut..]);
            let frame = decoder.next_frame().expect("valid").expect("whole");
            assert_eq!((frame.stream, frame.kind), (9, FrameType::Request));
            assert_eq!(Request::decode(frame.payload.as_slice()).expect("request"), request());
        }
    }

    #[test]
    fn several_frames_in_one_read() {
        let mut decoder = Decoder::default();
        for stream in [1, 3, 5] {
            decoder.push(&encode(stream, FrameType::Request, &request()).expect("small"));
        }
        for stream in [1, 3, 5] {
            assert_eq!(decoder.next_frame().expect("valid").expect("whole").stream, stream);
        }
        assert_eq!(decoder.next_frame().expect("valid"), None);
    }

    #[test]
    fn garbage_is_an_error_before_it_is_buffered() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff; HEADER_LEN]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge(_))));
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 1, 0, 0, 0, 1, 77, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownType(77)));
        let too_large = Request { payload: vec![0; MAX_PAYLOAD + 1], ..Request::default() };
        assert!(encode(1, FrameType::Request, &too_large).is_err());
    }

    #[test]
    fn a_status_keeps_code_and_message() {
        let response = Response::from_result(Err(Status::not_found("no such")));
        assert_eq!(response.into_result(), Err(Status::new(Code::NotFound, "no such")));
        assert_eq!(Response::from_result(Ok(vec![1])).into_result(), Ok(vec![1]));
        assert_eq!(Code::from_i32(99), Code::Unknown);
    }
}
