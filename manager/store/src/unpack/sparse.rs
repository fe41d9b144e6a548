//! Sparse files in tar (GNU tar manual, "Storing Sparse Files"): the old GNU header and the PAX forms 0.0, 0.1 and 1.0.

use rcontainerd_types::{Error, Result};
use tar::GnuSparseHeader;

use super::pax::decimal;

/// More would be a bomb: each costs 16 bytes of ours.
const SEGMENTS_MAX: usize = 1 << 20;
/// Digits of a decimal u64.
const DIGITS_MAX: usize = 20;

/// A stretch of data in a sparse file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub length: u64,
}

fn malformed(why: &str) -> Error {
    Error::invalid(format!("malformed tar: sparse file: {why}"))
}

fn push(segments: &mut Vec<Segment>, offset: u64, length: u64) -> Result<()> {
    if segments.len() == SEGMENTS_MAX {
        return Err(malformed("too many segments"));
    }
    segments.push(Segment { offset, length });
    Ok(())
}

/// Segments ascend without overlap, lie within the file, and use exactly the data that follows.
pub fn validate(segments: &[Segment], size: u64, data: u64) -> Result<()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(malformed("segments overlap or are out of order"));
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(|| malformed("a segment overflows"))?;
        sum += segment.length;
    }
    if end > size {
        return Err(malformed("a segment lies beyond the end"));
    }
    // The data of the PAX forms is not padded within; the map must account for all of it.
    if sum != data {
        return Err(malformed("the map does not fit the data"));
    }
    Ok(())
}

/// The used slots of an old GNU header.
pub fn add_gnu(segments: &mut Vec<Segment>, slots: &[GnuSparseHeader]) -> Result<()> {
    for slot in slots.iter().take_while(|slot| !slot.is_empty()) {
        let number = |value: std::io::Result<u64>| value.map_err(|_| malformed("a number is malformed"));
        push(segments, number(slot.offset())?, number(slot.length())?)?;
    }
    Ok(())
}

/// The `GNU.sparse.*` records.
#[derive(Clone, Debug, Default)]
pub struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    /// The name that the file has; the header's own is a made-up one.
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    /// 0.0: offsets whose lengths follow as records of their own.
    offset: Option<u64>,
    segments: Vec<Segment>,
    mapped: bool,
}

/// Where a PAX sparse file has its map.
pub enum Form {
    InHeader { size: u64, segments: Vec<Segment> },
    InData { size: u64 },
}

impl PaxSparse {
    /// Takes a record; `false` when it is not one of these.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return Ok(false) };
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"numblocks" => self.mapped = true,
            b"offset" => self.offset = Some(decimal(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(|| malformed("a length without offset"))?;
                push(&mut self.segments, offset, decimal(value)?)?;
            }
            b"map" => self.set_map(value)?,
            _ => {}
        }
        Ok(true)
    }

    fn set_map(&mut self, value: &[u8]) -> Result<()> {
        self.mapped = true;
        self.segments.clear();
        let mut numbers = value.split(|byte| *byte == b',').filter(|text| !text.is_empty());
        while let Some(offset) = numbers.next() {
            let length = numbers.next().ok_or_else(|| malformed("an offset without length"))?;
            push(&mut self.segments, decimal(offset)?, decimal(length)?)?;
        }
        Ok(())
    }

    pub fn form(&self) -> Result<Option<Form>> {
        let size = || self.size.ok_or_else(|| malformed("the size is missing"));
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Ok(Some(Form::InData { size: size()? })),
            (None, None) if self.mapped || !self.segments.is_empty() => {
                Ok(Some(Form::InHeader { size: size()?, segments: self.segments.clone() }))
            }
            (Some(0), Some(0 | 1)) => Ok(Some(Form::InHeader { size: size()?, segments: self.segments.clone() })),
            (None, None) => Ok(None),
            _ => Err(malformed("an unknown version")),
        }
    }
}

/// The map of form 1.0: decimal numbers, each ended by a newline; the first is the count of pairs.
#[derive(Default)]
pub struct MapParser {
    digits: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    pub segments: Vec<Segment>,
}

impl MapParser {
    pub fn done(&self) -> bool {
        self.count.is_some_and(|count| self.segments.len() as u64 == count)
    }

    pub fn feed(&mut self, block: &[u8]) -> Result<()> {
        for byte in block {
            if self.done() {
                break;
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > DIGITS_MAX {
                    return Err(malformed("a number is too long"));
                }
                continue;
            }
            let number = decimal(&self.digits)?;
            self.digits.clear();
            self.number(number)?;
        }
        Ok(())
    }

    fn number(&mut self, number: u64) -> Result<()> {
        if self.count.is_none() {
            if number > SEGMENTS_MAX as u64 {
                return Err(malformed("too many segments"));
            }
            self.count = Some(number);
        } else if let Some(offset) = self.offset.take() {
            push(&mut self.segments, offset, number)?;
        } else {
            self.offset = Some(number);
        }
        Ok(())
    }
}
