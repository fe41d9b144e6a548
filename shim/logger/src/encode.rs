//! Docker's JSON-file records.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::record::Stream;

pub fn encode_record(out: &mut Vec<u8>, stream: Stream, line: &[u8], attributes: &str, time: SystemTime) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, line);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    if !attributes.is_empty() {
        out.extend_from_slice(b"\",\"attrs\":");
        out.extend_from_slice(attributes.as_bytes());
        out.extend_from_slice(b",\"time\":\"");
    } else {
        out.extend_from_slice(b"\",\"time\":\"");
    }
    out.extend_from_slice(&rfc3339_nano(time));
    out.extend_from_slice(b"\"}\n");
}

/// JSON string escapes as Docker's encoder writes them; bytes that are no UTF-8 become U+FFFD.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escape_str(out, chunk.valid());
        for _ in 0..chunk.invalid().len() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_str(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let line_separator = byte == 0xe2 && matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
        if !(line_separator || byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')) {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                from = at + 3;
            }
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `2006-01-02T15:04:05.999999999Z`: UTC, trailing zeros of the fraction left out, as Go's `RFC3339Nano`.
pub fn rfc3339_nano(time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() > 0 {
        let fraction = format!(".{:09}", since.subsec_nanos());
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text.into_bytes()
}

/// Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin on a first of March.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn the_time_is_gos_rfc3339_nano() {
        for (time, text) in [
            (at(0, 0), "1970-01-01T00:00:00Z"),
            (at(951_782_400, 500_000_000), "2000-02-29T00:00:00.5Z"),
            (at(1_795_233_906, 123_456_789), "2026-11-21T04:05:06.123456789Z"),
            (at(4_102_444_799, 10), "2099-12-31T23:59:59.00000001Z"),
        ] {
            assert_eq!(String::from_utf8(rfc3339_nano(time)).expect("ascii"), text);
        }
    }
}
