//! Uploads over broken lines: what the registry has already is not sent again, what it has forgotten is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcontainerd_registry::testing::{Auth, RealRegistry, Reply, Request, Server, quick};
use rcontainerd_registry::{Credentials, Registry};
use rcontainerd_types::{Descriptor, Digest, ErrorKind, Reference, Result, media_type};

/// More than two chunks.
const SIZE: usize = 9_000_000;

fn bytes() -> Vec<u8> {
    (0..SIZE as u32).flat_map(|n| [n.to_le_bytes()[0] ^ n.to_le_bytes()[1]]).collect()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::sha256(bytes), bytes.len() as u64)
}

/// A registry that keeps one upload; `trouble` may answer in its place, given the number of the chunk's request and what it has, and
/// take bytes all the same.
struct Registrar {
    server: Server,
    has: Arc<Mutex<Vec<u8>>>,
}

impl Registrar {
    fn start(trouble: impl Fn(&Request, usize, &mut Vec<u8>) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let has = Arc::new(Mutex::new(Vec::new()));
        let (kept, count) = (Arc::clone(&has), AtomicUsize::new(0));
        let server = Server::start(move |request| {
            let mut kept = kept.lock().expect("lock");
            let answer = |status: u16, kept: &[u8]| {
                let range = format!("0-{}", kept.len().saturating_sub(1));
                Reply::new(status, "").header("Location", "/v2/app/blobs/uploads/1?state=x").header("Range", range)
            };
            match request.method.as_str() {
                "POST" => answer(202, &kept),
                "PATCH" => {
                    if let Some(reply) = trouble(request, count.fetch_add(1, Ordering::SeqCst), &mut kept) {
                        return reply;
                    }
                    let (first, _) = request.header("content-range").and_then(|range| range.split_once('-')).expect("range");
                    if first.parse() != Ok(kept.len()) {
                        return answer(416, &kept);
                    }
                    kept.extend_from_slice(&request.body);
                    answer(202, &kept)
                }
                "GET" if request.path.contains("uploads") => answer(204, &kept),
                "PUT" => Reply::new(201, ""),
                "HEAD" => Reply::new(404, ""),
                _ => Reply::new(200, "{}"),
            }
        });
        Self { server, has }
    }

    async fn push(&self) -> Result<()> {
        let reference: Reference = format!("{}/app:1", self.server.authority()).parse().expect("reference");
        let pusher = Registry::new(quick()).pusher(&reference, &Credentials::Anonymous).await?;
        let whole = bytes();
        let mut upload = pusher.upload(&descriptor(&whole)).await?;
        upload.write(&whole).await?;
        upload.finish().await
    }

    fn patches(&self) -> Vec<String> {
        let seen = self.server.seen();
        seen.iter().filter(|request| request.method == "PATCH").filter_map(|r| r.header("content-range").map(str::to_owned)).collect()
    }
}

#[tokio::test]
async fn a_chunk_of_which_a_part_arrived_goes_on_from_there() {
    let registrar = Registrar::start(|request, n, has| {
        (n == 1).then(|| {
            has.extend_from_slice(&request.body[..1_000_000]);
            Reply::new(502, "the line broke")
        })
    });
    registrar.push().await.expect("pushed");
    assert!(*registrar.has.lock().expect("lock") == bytes());
    let second = 4 << 20;
    assert_eq!(registrar.patches()[1..3], [format!("{second}-{}", 2 * second - 1), format!("{}-{}", second + 1_000_000, 2 * second - 1)]);
}

#[tokio::test]
async fn a_chunk_whose_answer_was_lost_is_not_sent_twice() {
    let registrar = Registrar::start(|request, n, has| {
        (n == 0).then(|| {
            has.extend_from_slice(&request.body);
            Reply::new(504, "")
        })
    });
    registrar.push().await.expect("pushed");
    assert!(*registrar.has.lock().expect("lock") == bytes());
    assert_eq!(registrar.patches().len(), 3);
}

#[tokio::test]
async fn a_registry_that_has_less_than_it_said_wants_another_upload() {
    let registrar = Registrar::start(|_, n, has| {
        (n == 1).then(|| {
            has.clear();
            Reply::new(416, "")
        })
    });
    let err = registrar.push().await.expect_err("it has forgotten");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.message().contains("0 bytes of the upload"), "{err}");
}

#[tokio::test]
async fn what_lasts_is_told_at_once_and_what_passes_not_for_ever() {
    let denied = Registrar::start(|_, _, _| Some(Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"read only"}]}"#)));
    assert!(denied.push().await.expect_err("denied").message().contains("read only"));
    assert_eq!(denied.patches().len(), 1);
    let busy = Registrar::start(|_, _, _| Some(Reply::new(503, "")));
    assert_eq!(busy.push().await.expect_err("busy").kind(), ErrorKind::Unavailable);
    assert_eq!(busy.patches().len(), 3);
}

#[tokio::test]
async fn an_upload_on_another_host_sees_no_credentials() {
    let storage = Arc::new(Server::start(|request| match request.method.as_str() {
        "PATCH" => Reply::new(202, "").header("Location", "/next"),
        _ => Reply::new(201, ""),
    }));
    let target = storage.authority();
    let registry = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match request.method.as_str() {
            "POST" => Reply::new(202, "").header("Location", format!("http://{target}/upload")),
            _ => Reply::new(200, "{}"),
        }
    });
    let reference: Reference = format!("{}/app:1", registry.authority()).parse().expect("reference");
    let user = Credentials::Basic { username: "user".into(), password: "secret".into() };
    let pusher = Registry::new(quick()).pusher(&reference, &user).await.expect("reach");
    let mut upload = pusher.upload(&descriptor(b"layer")).await.expect("begin");
    upload.write(b"layer").await.expect("write");
    upload.finish().await.expect("finish");
    assert_eq!(storage.seen().len(), 2);
    assert!(storage.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_token_is_widened_to_mount_from_another_repository() {
    let real = RealRegistry::start(Auth::Token(300), false);
    let registry = Registry::new(quick());
    let user = Credentials::Basic { username: RealRegistry::USER.into(), password: RealRegistry::PASSWORD.into() };
    let reference = |name: &str| format!("{}/{name}:1", real.authority()).parse::<Reference>().expect("reference");
    let one = registry.pusher(&reference("one"), &user).await.expect("reach");
    let mut upload = one.upload(&descriptor(b"shared")).await.expect("begin");
    upload.write(b"shared").await.expect("write");
    upload.finish().await.expect("finish");
    let two = registry.pusher(&reference("two"), &user).await.expect("reach");
    assert!(two.mount(&descriptor(b"shared"), "one").await.expect("mount").is_none(), "mounted");
    assert!(two.has(&Digest::sha256(b"shared")).await.expect("ask"));
    let asked = real.tokens().seen();
    assert!(asked.iter().any(|request| request.path.contains("one%3Apull") && request.path.contains("two%3Apull")), "{asked:?}");
}
