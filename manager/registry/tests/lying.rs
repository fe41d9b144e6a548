//! Against a server that lies, breaks off, stalls and leads astray.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcontainerd_registry::testing::{Reply, Request, Server, quick};
use rcontainerd_registry::{Chunk, Credentials, Registry, RegistryConfig, Repository};
use rcontainerd_types::{Descriptor, Digest, ErrorKind, Reference, Result, media_type};

const BYTES: &[u8] = &[7; 100_000];

fn repository(server: &Server, credentials: &Credentials) -> Repository {
    let reference: Reference = format!("{}/app:1", server.authority()).parse().expect("reference");
    Registry::new(quick()).repository(&reference, credentials).expect("repository")
}

fn blob() -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::sha256(BYTES), BYTES.len() as u64)
}

fn basic() -> Credentials {
    Credentials::Basic { username: "user".into(), password: "secret".into() }
}

/// A server that answers the ping, and blobs as told; the number of the blob request is given along.
fn blob_server(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| match request.path.contains("/blobs/") {
        true => answer(request, count.fetch_add(1, Ordering::SeqCst)),
        false => Reply::new(200, "{}"),
    })
}

async fn read(repository: &Repository) -> Result<(Vec<u8>, usize)> {
    let mut stream = repository.blob(&blob(), 0);
    let (mut bytes, mut retries) = (Vec::new(), 0);
    while let Some(chunk) = stream.next().await? {
        match chunk {
            Chunk::Data(data) => bytes.extend_from_slice(&data),
            Chunk::Retrying(_) => retries += 1,
        }
    }
    Ok((bytes, retries))
}

fn range_start(request: &Request) -> usize {
    let range = request.header("range").unwrap_or("bytes=0-");
    range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("range")
}

fn rest(from: usize) -> Reply {
    Reply::new(206, &BYTES[from..]).header("Content-Range", format!("bytes {from}-{}/{}", BYTES.len() - 1, BYTES.len()))
}

#[tokio::test]
async fn a_broken_line_goes_on_where_it_stopped() {
    let server = blob_server(|request, n| match n {
        0 => Reply { claimed_length: Some(BYTES.len()), ..Reply::new(200, &BYTES[..40_000]) },
        _ => rest(range_start(request)),
    });
    let (bytes, retries) = read(&repository(&server, &Credentials::Anonymous)).await.expect("complete");
    assert_eq!(bytes, BYTES);
    assert_eq!(retries, 1);
    let ranges: Vec<_> = server.seen().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=40000-"]);
}

#[tokio::test]
async fn a_server_without_ranges_costs_bytes_not_correctness() {
    let server = blob_server(|_, n| match n {
        0 => Reply { claimed_length: Some(BYTES.len()), ..Reply::new(200, &BYTES[..40_000]) },
        _ => Reply::new(200, BYTES),
    });
    assert_eq!(read(&repository(&server, &Credentials::Anonymous)).await.expect("complete").0, BYTES);
}

#[tokio::test]
async fn a_wrong_range_is_refused() {
    let server = blob_server(|_, n| match n {
        0 => Reply { claimed_length: Some(BYTES.len()), ..Reply::new(200, &BYTES[..40_000]) },
        _ => rest(10),
    });
    let err = read(&repository(&server, &Credentials::Anonymous)).await.expect_err("wrong range");
    assert_eq!(err.kind(), ErrorKind::DataLoss);
}

#[tokio::test]
async fn sizes_other_than_the_manifests_are_refused() {
    for length in [BYTES.len() - 1, BYTES.len() + 1] {
        let server = blob_server(move |_, _| Reply::new(200, vec![7; length]));
        let err = read(&repository(&server, &Credentials::Anonymous)).await.expect_err("wrong size");
        assert_eq!(err.kind(), ErrorKind::DataLoss);
    }
}

#[tokio::test]
async fn a_silent_line_is_broken_off_and_given_up_in_the_end() {
    let server = blob_server(|request, _| {
        let from = range_start(request);
        let mut reply = if from == 0 { Reply::new(200, &BYTES[..10]) } else { rest(from) };
        reply.body.truncate(10);
        Reply { claimed_length: Some(BYTES.len() - from), stall: Some(Duration::from_secs(5)), ..reply }
    });
    let started = Instant::now();
    let mut stream = repository(&server, &Credentials::Anonymous).blob(&blob(), 0);
    let mut retries = 0;
    while retries < 3 {
        if let Some(Chunk::Retrying(_)) = stream.next().await.expect("retries are not failures while bytes come") {
            retries += 1;
        }
    }
    assert!(started.elapsed() < Duration::from_secs(4), "the stall timeout works: {:?}", started.elapsed());
    assert_eq!(stream.offset(), 30, "ten bytes from each attempt");

    let silent =
        blob_server(|_, _| Reply { claimed_length: Some(BYTES.len()), stall: Some(Duration::from_secs(5)), ..Reply::new(200, "") });
    let err = read(&repository(&silent, &Credentials::Anonymous)).await.expect_err("never a byte");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.message().contains("no byte for"), "{err}");
}

#[tokio::test]
async fn passing_failures_are_tried_again_lasting_ones_not() {
    let server = blob_server(|_, n| if n < 2 { Reply::new(503, "busy") } else { Reply::new(200, BYTES) });
    assert_eq!(read(&repository(&server, &Credentials::Anonymous)).await.expect("third attempt").1, 2);

    let server = blob_server(|_, _| Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#));
    assert!(read(&repository(&server, &Credentials::Anonymous)).await.is_err());
    assert_eq!(server.seen().iter().filter(|request| request.path.contains("/blobs/")).count(), 1);
}

#[tokio::test]
async fn a_registry_that_limits_its_rate_is_given_the_time_it_asks_for() {
    let busy = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
    let server = blob_server(move |_, n| if n == 0 { Reply::new(429, busy).header("Retry-After", 1) } else { Reply::new(200, BYTES) });
    let started = Instant::now();
    assert_eq!(read(&repository(&server, &Credentials::Anonymous)).await.expect("second attempt").1, 1);
    assert!(started.elapsed() >= Duration::from_secs(1), "asked again after {:?}", started.elapsed());

    let server = blob_server(move |_, _| Reply::new(429, busy).header("Retry-After", 3600));
    let err = read(&repository(&server, &Credentials::Anonymous)).await.expect_err("not in our time");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
    assert!(err.message().contains("slow down") && err.message().contains("try again in 3600 s"), "{err}");
    assert_eq!(server.seen().iter().filter(|request| request.path.contains("/blobs/")).count(), 1, "no use to ask again");
}

#[tokio::test]
async fn a_redirect_never_sees_the_credentials() {
    let storage = Arc::new(Server::start(|_| Reply::new(200, BYTES)));
    let target = storage.authority();
    let registry = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match request.path.contains("/blobs/") {
            true => Reply::new(307, "").header("Location", format!("http://{target}/bucket?signature=s")),
            false => Reply::new(200, "{}"),
        }
    });
    assert_eq!(read(&repository(&registry, &basic())).await.expect("blob").0, BYTES);
    assert!(registry.seen().iter().any(|request| request.header("authorization").is_some()));
    assert!(!storage.seen().is_empty());
    for request in storage.seen() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

#[tokio::test]
async fn a_redirects_challenge_is_not_answered() {
    let thief = Server::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"give\""));
    let target = thief.authority();
    let registry = blob_server(move |_, _| Reply::new(302, "").header("Location", format!("http://{target}/x")));
    let err = read(&repository(&registry, &basic())).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Unauthenticated);
    assert!(thief.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let registry = blob_server(|request, _| Reply::new(302, "").header("Location", &request.path));
    let err = read(&repository(&registry, &Credentials::Anonymous)).await.expect_err("a circle");
    assert!(err.message().contains("redirects"), "{err}");
}

fn manifest_server(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| if request.path.contains("/manifests/") { reply() } else { Reply::new(200, "{}") })
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let server = manifest_server(|| Reply::new(200, "{}").header("Docker-Content-Digest", Digest::sha256(b"other")));
    let repository = repository(&server, &Credentials::Anonymous);
    assert_eq!(repository.manifest_by_tag("1").await.expect_err("header lies").kind(), ErrorKind::DataLoss);
    let err = repository.manifest_by_digest(&Digest::sha256(b"wanted"), None).await.expect_err("body lies");
    assert_eq!(err.kind(), ErrorKind::DataLoss);
}

#[tokio::test]
async fn endless_and_senseless_manifests_are_refused() {
    let big = manifest_server(|| Reply::new(200, vec![b' '; rcontainerd_registry::manifest::MANIFEST_MAX + 1]));
    let err = repository(&big, &Credentials::Anonymous).manifest_by_tag("1").await.expect_err("too big");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument);
    let html = manifest_server(|| Reply::new(200, "<html>welcome to our captive portal</html>"));
    let err = repository(&html, &Credentials::Anonymous).manifest_by_tag("1").await.expect_err("HTML");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn mirrors_are_asked_first_without_credentials_and_fall_back() {
    let mirror = Server::start(|request| match request.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        _ => Reply::new(404, ""),
    });
    let config = RegistryConfig { mirrors: vec![format!("http://{}", mirror.authority())], ..quick() };
    let reference: Reference = "busybox:1".parse().expect("reference");
    let repository = Registry::new(config).repository(&reference, &basic()).expect("repository");
    // The registry itself cannot be reached from here: the mirror's answer is not the last word, the registry's failure is.
    assert!(repository.manifest_by_tag("1").await.is_err());
    let seen = mirror.seen();
    assert!(seen.iter().any(|request| request.path == "/v2/library/busybox/manifests/1"), "{seen:?}");
    assert!(seen.iter().all(|request| request.header("authorization").is_none()));
}
