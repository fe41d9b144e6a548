//! The journal of volatile transactions: what the end of this process must not lose, but a power loss may.
//!
//! A volatile transaction is committed to the database in memory only, and appended here by one write(2) without a sync: the page cache
//! keeps it when the process is killed. The next durable commit takes everything before it to the disk, and the journal begins anew.
//!
//! ```text
//! meta.journal   header: magic, boot id, base     one line, ended by \n
//!                record: length u32, crc32 u32, JSON [Change, …]
//! ```
//! `base` is the database's generation, which every durable commit raises that follows a volatile one: a journal whose base is not the
//! database's generation tells of changes that are in the database already. One of another boot is worth nothing: what it tells of may
//! lack the files that belong to it, which were not synced either.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::fs::{boot_id, failed};

const MAGIC: &str = "rcontainerd-journal-1";
const HEAD: usize = 8;
/// Then the next transaction is made durable: what is kept in memory and replayed at open stays small.
const MAX_BYTES: u64 = 512 * 1024;
const MAX_RECORDS: u32 = 128;

/// One row as a transaction left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub table: String,
    pub key: String,
    /// `None`: removed.
    pub value: Option<String>,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    boot: String,
    /// Bytes of complete records with their header; 0: no journal.
    length: u64,
    records: u32,
}

impl Journal {
    /// Opens the file and gives the transactions in it that the database of that generation has not seen, oldest first. They stay in the
    /// file until [`Self::clear`].
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(path: &Path, generation: u64) -> Result<(Self, Vec<Vec<Change>>)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read", path))?;
        let boot = boot_id()?;
        let transactions = match bytes.strip_prefix(header(&boot, generation).as_bytes()) {
            Some(records) => complete(records),
            None => Vec::new(),
        };
        let journal = Self { path: path.to_owned(), file, boot, length: bytes.len() as u64, records: 0 };
        Ok((journal, transactions))
    }

    /// Whether a volatile transaction is pending.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the next transaction is to be durable.
    pub fn is_full(&self) -> bool {
        self.length >= MAX_BYTES || self.records >= MAX_RECORDS
    }

    /// Appends a transaction; a part that was written when it fails is taken back.
    ///
    /// # Errors
    /// I/O errors, such as a full disk.
    pub fn append(&mut self, generation: u64, changes: &[Change]) -> Result<()> {
        let payload = serde_json::to_vec(changes).map_err(|err| Error::internal(format!("encode a journal record: {err}")))?;
        let mut bytes = if self.is_empty() { header(&self.boot, generation).into_bytes() } else { Vec::new() };
        let length = u32::try_from(payload.len()).map_err(|_| Error::internal("a transaction of more than 4 GiB"))?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(checksum(&payload).to_le_bytes());
        bytes.extend(payload);
        if let Err(err) = self.write_at_end(&bytes) {
            self.cut(self.length)?;
            return Err(failed("write", &self.path)(err));
        }
        self.length += bytes.len() as u64;
        self.records += 1;
        Ok(())
    }

    fn write_at_end(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        use std::io::Seek;
        self.file.seek(std::io::SeekFrom::Start(self.length))?;
        self.file.write_all(bytes)
    }

    /// What was pending is durable now, or must not be.
    ///
    /// # Errors
    /// I/O errors.
    pub fn clear(&mut self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.cut(0)?;
        (self.length, self.records) = (0, 0);
        Ok(())
    }

    /// Takes the last record back, whose commit failed.
    ///
    /// # Errors
    /// I/O errors.
    pub fn retract(&mut self, length: u64) -> Result<()> {
        self.cut(length)?;
        self.length = length;
        self.records = self.records.saturating_sub(1);
        Ok(())
    }

    /// Bytes so far, for [`Self::retract`].
    pub fn length(&self) -> u64 {
        self.length
    }

    fn cut(&self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(failed("truncate", &self.path))
    }
}

fn header(boot: &str, generation: u64) -> String {
    format!("{MAGIC} {boot} {generation}\n")
}

fn checksum(payload: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(payload);
    crc.sum()
}

/// The records up to the first that was cut short.
fn complete(mut bytes: &[u8]) -> Vec<Vec<Change>> {
    let mut transactions = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let [a, b, c, d, e, f, g, h] = *head;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let Some((payload, next)) = rest.split_at_checked(length) else { break };
        let Some(changes) = (checksum(payload) == u32::from_le_bytes([e, f, g, h])).then(|| serde_json::from_slice(payload).ok()).flatten()
        else {
            break;
        };
        transactions.push(changes);
        bytes = next;
    }
    transactions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str) -> Change {
        Change { table: "t".into(), key: key.into(), value: Some("1".into()) }
    }

    fn keys(transactions: &[Vec<Change>]) -> Vec<&str> {
        transactions.iter().flatten().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn complete_records_of_this_boot_and_generation_are_given_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("j");
        let (mut journal, _) = Journal::open(&path, 7).expect("open");
        journal.append(7, &[change("a")]).expect("append");
        journal.append(7, &[change("b"), change("c")]).expect("append");
        assert_eq!(keys(&Journal::open(&path, 7).expect("open").1), ["a", "b", "c"]);
        // A durable commit came between: all is in the database.
        assert!(Journal::open(&path, 8).expect("open").1.is_empty());
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("cut short");
        assert_eq!(keys(&Journal::open(&path, 7).expect("open").1), ["a"]);
        let other_boot = String::from_utf8_lossy(&whole).replacen(&boot_id().expect("boot id"), "0f0f", 1);
        std::fs::write(&path, other_boot.as_bytes()).expect("other boot");
        assert!(Journal::open(&path, 7).expect("open").1.is_empty());
    }

    #[test]
    fn a_damaged_record_ends_the_journal() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("j");
        let (mut journal, _) = Journal::open(&path, 0).expect("open");
        let mut ends = Vec::new();
        for key in ["a", "b", "c"] {
            journal.append(0, &[change(key)]).expect("append");
            ends.push(usize::try_from(journal.length()).expect("small"));
        }
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[ends[1] - 3] ^= 1;
        std::fs::write(&path, &bytes).expect("damage");
        assert_eq!(keys(&Journal::open(&path, 0).expect("open").1), ["a"]);
    }

    #[test]
    fn a_full_or_cleared_journal_says_so() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (mut journal, _) = Journal::open(&dir.path().join("j"), 0).expect("open");
        assert!(journal.is_empty());
        while !journal.is_full() {
            journal.append(0, &[change("a")]).expect("append");
        }
        journal.clear().expect("clear");
        assert!(journal.is_empty() && !journal.is_full());
        assert_eq!(std::fs::metadata(dir.path().join("j")).expect("there").len(), 0);
    }
}
