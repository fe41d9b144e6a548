//! The two envelope messages.

use crate::status::{Code, Status};

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// `google.rpc.Status` without its details.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<RpcStatus>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

impl Response {
    pub fn from_result(result: Result<Vec<u8>, Status>) -> Self {
        match result {
            Ok(payload) => Self { status: None, payload },
            Err(status) => Self { status: Some(status.into()), payload: Vec::new() },
        }
    }

    /// # Errors
    /// The status that the server sent, unless it is `Ok`.
    pub fn into_result(self) -> Result<Vec<u8>, Status> {
        match self.status.map(Status::from) {
            Some(status) if status.code != Code::Ok => Err(status),
            _ => Ok(self.payload),
        }
    }
}
