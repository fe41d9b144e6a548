//! Big blobs over slow lines: several ranges at once, in order, whatever becomes of single ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcontainerd_registry::testing::{Reply, Request, Server, quick};
use rcontainerd_registry::{Chunk, Credentials, Limits, Registry, RegistryConfig};
use rcontainerd_types::{Descriptor, Digest, ErrorKind, Reference, Result, media_type};

const SIZE: usize = 1_000_000;
const PART: u64 = 100_000;

fn bytes() -> Vec<u8> {
    (0..SIZE as u32).flat_map(|n| [n.to_le_bytes()[0] ^ n.to_le_bytes()[2]]).collect()
}

/// Impatient: in ranges after the first bytes, whatever the rate.
fn impatient() -> RegistryConfig {
    let limits = Limits { patience: Duration::ZERO, ranges: 4, range_size: PART, ..quick().limits };
    RegistryConfig { limits, ..quick() }
}

async fn read(server: &Server) -> Result<Vec<u8>> {
    let reference: Reference = format!("{}/app:1", server.authority()).parse().expect("reference");
    let repository = Registry::new(impatient()).repository(&reference, &Credentials::Anonymous).expect("repository");
    let whole = bytes();
    let blob = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(&whole), whole.len() as u64);
    let mut stream = repository.blob(&blob, 0);
    let mut read = Vec::new();
    while let Some(chunk) = stream.next().await? {
        if let Chunk::Data(data) = chunk {
            read.extend_from_slice(&data);
            assert_eq!(stream.offset(), read.len() as u64);
        }
    }
    Ok(read)
}

/// First and last byte of a closed range.
fn range(request: &Request) -> Option<(usize, usize)> {
    let (first, last) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().expect("first"), last.parse().unwrap_or(SIZE - 1)))
}

fn honest(request: &Request) -> Reply {
    let whole = bytes();
    match range(request) {
        Some((first, last)) => Reply::new(206, &whole[first..=last]).header("Content-Range", format!("bytes {first}-{last}/{SIZE}")),
        None => Reply::new(200, whole),
    }
}

fn server(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| match request.path.contains("/blobs/") {
        true => answer(request, count.fetch_add(1, Ordering::SeqCst)),
        false => Reply::new(200, "{}"),
    })
}

#[tokio::test]
async fn a_slow_blob_comes_in_ranges_and_in_order() {
    let server = server(|request, _| honest(request));
    assert!(read(&server).await.expect("whole") == bytes());
    let ranges: Vec<_> = server.seen().iter().filter_map(range).collect();
    assert!(ranges.len() >= 8, "{ranges:?}");
    assert!(ranges.iter().all(|(first, last)| last - first < PART as usize), "{ranges:?}");
}

#[tokio::test]
async fn a_fast_blob_comes_by_one_line() {
    let server = server(|request, _| honest(request));
    let reference: Reference = format!("{}/app:1", server.authority()).parse().expect("reference");
    let limits = Limits { ranges: 4, range_size: PART, ..quick().limits };
    let registry = Registry::new(RegistryConfig { limits, ..quick() });
    let blob = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(&bytes()), SIZE as u64);
    let mut stream = registry.repository(&reference, &Credentials::Anonymous).expect("repository").blob(&blob, 0);
    while stream.next().await.expect("read").is_some() {}
    assert_eq!(server.seen().iter().filter(|request| request.path.contains("/blobs/")).count(), 1);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_it_all_by_one_line() {
    let server = server(|_, _| Reply::new(200, bytes()));
    assert!(read(&server).await.expect("whole") == bytes());
}

#[tokio::test]
async fn ranges_that_break_or_are_refused_for_a_while_are_fetched_again() {
    let server = server(|request, n| match n % 3 {
        1 if n < 12 => Reply::new(503, "busy"),
        2 if n < 12 => {
            let whole = honest(request);
            Reply { claimed_length: Some(whole.body.len()), body: whole.body[..whole.body.len() / 2].to_vec(), ..whole }
        }
        _ => honest(request),
    });
    assert!(read(&server).await.expect("whole") == bytes());
}

#[tokio::test]
async fn a_range_that_is_not_the_one_asked_for_is_refused() {
    let server = server(|request, _| match range(request) {
        Some((first, last)) if first > 300_000 => {
            let wrong = first - 7;
            Reply::new(206, &bytes()[wrong..=last - 7]).header("Content-Range", format!("bytes {wrong}-{}/{SIZE}", last - 7))
        }
        _ => honest(request),
    });
    assert_eq!(read(&server).await.expect_err("wrong range").kind(), ErrorKind::DataLoss);
}
