//! How records keep bytes that clients gave: deflated, in base64. As a JSON list of numbers a container's spec took 34 KB, and whoever
//! walked the containers parsed all of it; so it takes 4 KB, and a reader that does not want it steps over one string.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rcontainerd_types::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::records::AnyValue;

/// An [`AnyValue`] as it is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Packed {
    type_url: String,
    /// As version 1 wrote it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    value: Vec<u8>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    packed: String,
}

impl From<AnyValue> for Packed {
    fn from(any: AnyValue) -> Self {
        let AnyValue { type_url, value } = any;
        if value.is_empty() {
            return Self { type_url, ..Self::default() };
        }
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        match encoder.write_all(&value).and_then(|()| encoder.finish()) {
            Ok(deflated) => Self { type_url, packed: STANDARD_NO_PAD.encode(deflated), ..Self::default() },
            // Memory takes whatever is written to it; if not, the old form is read as well.
            Err(_) => Self { type_url, value, ..Self::default() },
        }
    }
}

impl TryFrom<Packed> for AnyValue {
    type Error = Error;

    fn try_from(kept: Packed) -> Result<Self> {
        let Packed { type_url, mut value, packed } = kept;
        if !packed.is_empty() {
            let damaged = |why: String| Error::new(ErrorKind::DataLoss, format!("a packed {type_url}: {why}"));
            let deflated = STANDARD_NO_PAD.decode(packed).map_err(|err| damaged(err.to_string()))?;
            flate2::read::DeflateDecoder::new(deflated.as_slice()).read_to_end(&mut value).map_err(|err| damaged(err.to_string()))?;
        }
        Ok(Self { type_url, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_take_less_room_than_they_have() {
        let spec = r#"{"names":["read","write","close"],"action":"SCMP_ACT_ALLOW"},"#.repeat(200).into_bytes();
        for value in [spec.clone(), b"\x00\xff\n\"".to_vec(), Vec::new()] {
            let any = AnyValue { type_url: "a/b".into(), value };
            let written = serde_json::to_vec(&any).expect("encode");
            assert_eq!(serde_json::from_slice::<AnyValue>(&written).expect("decode"), any);
        }
        let written = serde_json::to_vec(&AnyValue { type_url: String::new(), value: spec.clone() }).expect("encode");
        assert!(written.len() < spec.len() / 2, "{} of {}", written.len(), spec.len());
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        let any: AnyValue = serde_json::from_str(r#"{"type_url":"a/b","value":[123,0,255]}"#).expect("decode");
        assert_eq!(any, AnyValue { type_url: "a/b".into(), value: vec![123, 0, 255] });
        let err = serde_json::from_str::<AnyValue>(r#"{"type_url":"a/b","packed":"!"}"#).expect_err("damaged");
        assert!(err.to_string().contains("a packed a/b"), "{err}");
    }
}
