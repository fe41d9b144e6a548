//! One content write: a stream of messages that stat, write and commit an ingest.

use jiff::Timestamp;
use proto_containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use rcontainerd_core::primitives::store::records::Resource;
use rcontainerd_core::primitives::store::{Content, Expected, Ingest, Store};
use rcontainerd_types::{Digest, Error, Result};

use crate::convert::{digest, labels, signed, timestamp};

/// The state between two messages.
pub(crate) struct Writing {
    store: Store,
    namespace: String,
    lease: Option<String>,
    /// The ingest and its name, from the first message on.
    open: Option<(String, Ingest)>,
    total: Option<u64>,
    expected: Option<Digest>,
    /// When the last bytes came; more exact than the file's own time.
    updated: Option<Timestamp>,
}

impl Writing {
    pub(crate) fn new(store: Store, namespace: String, lease: Option<String>) -> Self {
        Self { store, namespace, lease, open: None, total: None, expected: None, updated: None }
    }

    /// Acts on one message; the state comes back, whatever the outcome.
    pub(crate) fn take(mut self, message: WriteContentRequest) -> (Self, Result<WriteContentResponse>) {
        let answer = self.act(message);
        (self, answer)
    }

    fn act(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse> {
        let action =
            WriteAction::try_from(message.action).map_err(|_| Error::invalid(format!("unknown write action {}", message.action)))?;
        if let Ok(total) = u64::try_from(message.total)
            && total > 0
        {
            self.total = Some(total);
        }
        if !message.expected.is_empty() {
            self.expected = Some(digest(&message.expected)?);
        }
        self.open(&message.r#ref)?;
        if action != WriteAction::Stat {
            self.append(&message)?;
        }
        match action {
            WriteAction::Commit => self.commit(message),
            WriteAction::Stat | WriteAction::Write => self.tell(action),
        }
    }

    fn content(&self) -> Content {
        self.store.content(&self.namespace)
    }

    fn open(&mut self, name: &str) -> Result<()> {
        match &self.open {
            Some((open, _)) if name.is_empty() || open == name => return Ok(()),
            Some((open, _)) => return Err(Error::invalid(format!("this write is to {open:?}, not to {name:?}"))),
            None if name.is_empty() => return Err(Error::invalid("the first message of a write must name its ref")),
            None => {}
        }
        let content = self.content();
        if let Some(expected) = &self.expected
            && (content.contains(expected)? || (self.total.is_some() && self.adopt(&content, expected)?))
        {
            return Err(Error::already_exists(format!("content {expected} already exists")));
        }
        let expected = match (&self.expected, self.total) {
            (Some(digest), Some(size)) => Some(Expected { digest: digest.clone(), size }),
            _ => None,
        };
        self.open = Some((name.to_owned(), content.ingest(name, expected.as_ref())?));
        Ok(())
    }

    /// Another namespace may have the blob.
    fn adopt(&self, content: &Content, expected: &Digest) -> Result<bool> {
        self.hold(expected)?;
        content.adopt(expected, Default::default())
    }

    fn append(&mut self, message: &WriteContentRequest) -> Result<()> {
        let Some((name, ingest)) = &mut self.open else { return Err(Error::internal("a write without ingest")) };
        let offset = u64::try_from(message.offset).map_err(|_| Error::invalid(format!("offset {} is negative", message.offset)))?;
        if message.data.is_empty() {
            return Ok(());
        }
        if offset == 0 && ingest.offset() > 0 {
            ingest.restart()?;
        }
        if offset != ingest.offset() {
            return Err(Error::invalid(format!("write to {name:?} at {offset}: it goes on at {}", ingest.offset())));
        }
        self.updated = Some(Timestamp::now());
        ingest.append(&message.data)
    }

    fn tell(&self, action: WriteAction) -> Result<WriteContentResponse> {
        let Some((name, ingest)) = &self.open else { return Err(Error::internal("a write without ingest")) };
        let status = self.content().ingest_status(name)?;
        Ok(WriteContentResponse {
            action: action.into(),
            started_at: timestamp(status.started),
            updated_at: timestamp(self.updated.unwrap_or(status.updated)),
            offset: signed(ingest.offset()),
            total: signed(self.total.unwrap_or(0)),
            digest: ingest.digest().to_string(),
        })
    }

    /// What is not what was promised stays as it is: the client may go on with it, or abort.
    fn commit(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse> {
        let told = self.tell(WriteAction::Commit)?;
        self.verify()?;
        let Some((_, ingest)) = self.open.take() else { return Err(Error::internal("a write without ingest")) };
        let digest = ingest.digest();
        self.hold(&digest)?;
        if self.content().contains(&digest)? {
            drop(ingest.ephemeral());
            return Err(Error::already_exists(format!("content {digest} already exists")));
        }
        let info = ingest.commit(self.total, self.expected.as_ref(), labels(message.labels))?;
        Ok(WriteContentResponse { digest: info.digest.to_string(), total: signed(info.size), ..told })
    }

    fn verify(&self) -> Result<()> {
        let Some((name, ingest)) = &self.open else { return Err(Error::internal("a write without ingest")) };
        if let Some(total) = self.total.filter(|&total| total != ingest.offset()) {
            return Err(Error::conflict(format!("write to {name:?}: it has {} bytes, {total} were promised", ingest.offset())));
        }
        match &self.expected {
            Some(expected) if *expected != ingest.digest() => {
                Err(Error::conflict(format!("write to {name:?}: its digest is {}, {expected} was promised", ingest.digest())))
            }
            _ => Ok(()),
        }
    }

    /// Lets the request's lease hold the blob that is about to be there: no collection may come in between.
    fn hold(&self, digest: &Digest) -> Result<()> {
        match &self.lease {
            Some(lease) => self.store.leases(&self.namespace).add(lease, &Resource::Content(digest.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcontainerd_types::ErrorKind;

    use super::*;

    fn message(action: WriteAction, offset: i64, data: &[u8]) -> WriteContentRequest {
        WriteContentRequest { action: action.into(), r#ref: "ref".into(), offset, data: data.to_vec(), ..WriteContentRequest::default() }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(dir.path()).expect("store");
        (dir, store)
    }

    #[test]
    fn a_write_goes_on_after_the_client_was_away_and_its_lease_holds_the_blob() {
        let (_dir, store) = store();
        store.leases("x").create("l", Default::default(), None).expect("lease");
        let (first, answer) = Writing::new(store.clone(), "x".into(), None).take(message(WriteAction::Write, 0, b"hel"));
        assert_eq!(answer.expect("write").offset, 3);
        drop(first);

        let second = Writing::new(store.clone(), "x".into(), Some("l".into()));
        let (second, answer) = second.take(message(WriteAction::Stat, 0, b""));
        assert_eq!(answer.expect("stat").offset, 3);
        let (second, answer) = second.take(message(WriteAction::Write, 7, b"lo"));
        assert_eq!(answer.expect_err("a hole").kind(), ErrorKind::InvalidArgument);
        let digest = Digest::sha256(b"hello");
        let commit = WriteContentRequest { expected: digest.to_string(), total: 5, ..message(WriteAction::Commit, 3, b"lo") };
        assert_eq!(second.take(commit.clone()).1.expect("commit").digest, digest.to_string());
        assert_eq!(store.content("x").read(&digest, 100).expect("read"), b"hello");
        assert_eq!(store.leases("x").get("l").expect("lease").content, [digest]);
        let again = Writing::new(store, "x".into(), None).take(commit).1;
        assert_eq!(again.expect_err("it is here").kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_is_not_what_was_promised_is_refused_and_may_go_on() {
        let (_dir, store) = store();
        let commit = WriteContentRequest { expected: Digest::sha256(b"x").to_string(), ..message(WriteAction::Commit, 0, b"y") };
        let err = Writing::new(store.clone(), "x".into(), None).take(commit).1.expect_err("refused");
        assert_eq!(err.kind(), ErrorKind::Conflict);
        let short = WriteContentRequest { total: 9, ..message(WriteAction::Commit, 1, b"") };
        let err = Writing::new(store.clone(), "x".into(), None).take(short).1.expect_err("refused");
        assert_eq!(err.kind(), ErrorKind::Conflict);
        assert!(store.content("x").list().expect("list").is_empty());
        let told = Writing::new(store.clone(), "x".into(), None).take(message(WriteAction::Stat, 0, b"")).1.expect("stat");
        assert_eq!((told.offset, told.digest), (1, Digest::sha256(b"y").to_string()));
        Writing::new(store.clone(), "x".into(), None).take(message(WriteAction::Commit, 1, b"")).1.expect("what it really is");
        let again = Writing::new(store.clone(), "x".into(), None).take(message(WriteAction::Commit, 0, b"y")).1;
        assert_eq!(again.expect_err("it is here").kind(), ErrorKind::AlreadyExists);
        assert!(store.content("x").ingests().expect("ingests").is_empty());
    }

    #[test]
    fn a_write_can_be_thrown_away_while_it_is_open() {
        let (_dir, store) = store();
        let (open, answer) = Writing::new(store.clone(), "x".into(), None).take(message(WriteAction::Write, 0, b"y"));
        answer.expect("write");
        store.content("x").discard("ref").expect("discard");
        assert_eq!(store.content("x").discard("ref").expect_err("gone").kind(), ErrorKind::NotFound);
        assert!(open.take(message(WriteAction::Commit, 1, b"")).1.is_err());
        Writing::new(store, "x".into(), None).take(message(WriteAction::Commit, 0, b"z")).1.expect("anew");
    }
}
