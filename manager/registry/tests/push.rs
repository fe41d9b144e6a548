//! Pushing to Debian's docker-registry, with every way to prove who we are.

use rcontainerd_registry::testing::{Auth, RealRegistry};
use rcontainerd_registry::{Credentials, Registry, RegistryConfig};
use rcontainerd_types::{Descriptor, Digest, ErrorKind, Reference, media_type};

fn user() -> Credentials {
    Credentials::Basic { username: RealRegistry::USER.into(), password: RealRegistry::PASSWORD.into() }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::sha256(bytes), bytes.len() as u64)
}

async fn send(pusher: &rcontainerd_registry::Pusher, bytes: &[u8]) {
    let blob = descriptor(bytes);
    assert!(!pusher.has(&blob.digest).await.expect("ask"));
    let mut upload = pusher.upload(&blob).await.expect("begin");
    for piece in bytes.chunks(1_000_000) {
        upload.write(piece).await.expect("write");
    }
    upload.finish().await.expect("finish");
    assert!(pusher.has(&blob.digest).await.expect("ask"));
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled_and_mounted() {
    for auth in [Auth::Open, Auth::Basic, Auth::Token(300)] {
        let real = RealRegistry::start(auth, false);
        let registry = Registry::new(RegistryConfig::default());
        let reference: Reference = format!("{}/one:1", real.authority()).parse().expect("reference");
        let credentials = if auth == Auth::Open { Credentials::Anonymous } else { user() };
        let pusher = registry.pusher(&reference, &credentials).await.expect("reach");
        // More than two chunks, and not a multiple of one.
        let layer: Vec<u8> = (0..9_000_001u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        send(&pusher, &layer).await;
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        send(&pusher, config).await;
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(config), config.len() as u64),
            "layers": [descriptor(&layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        pusher.manifest("1", media_type::OCI_MANIFEST, manifest.clone()).await.expect("manifest");
        let fetched = registry.repository(&reference, &credentials).expect("repository").manifest_by_tag("1").await.expect("pull");
        assert_eq!(fetched.bytes, manifest);
        let other: Reference = format!("{}/two:1", real.authority()).parse().expect("reference");
        let pusher = registry.pusher(&other, &credentials).await.expect("reach");
        match pusher.mount(&descriptor(&layer), "one").await.expect("mount") {
            None => assert!(pusher.has(&Digest::sha256(&layer)).await.expect("ask")),
            // The token is for this repository alone: the registry asks for the bytes instead.
            Some(_) => assert!(matches!(auth, Auth::Token(_))),
        }
    }
}

#[tokio::test]
async fn lies_and_wrong_passwords_are_refused() {
    let real = RealRegistry::start(Auth::Basic, false);
    let registry = Registry::new(RegistryConfig::default());
    let reference: Reference = format!("{}/x:1", real.authority()).parse().expect("reference");
    registry.login(&reference, &user()).await.expect("login");
    let wrong = Credentials::Basic { username: "user".into(), password: "wrong".into() };
    assert_eq!(registry.login(&reference, &wrong).await.expect_err("refused").kind(), ErrorKind::Unauthenticated);
    let pusher = registry.pusher(&reference, &user()).await.expect("reach");
    let mut upload = pusher.upload(&descriptor(b"honest")).await.expect("begin");
    upload.write(b"lying!").await.expect("write");
    assert!(upload.finish().await.is_err(), "the registry checks the digest");
    let mut upload = pusher.upload(&descriptor(b"honest")).await.expect("begin");
    upload.write(b"hon").await.expect("write");
    assert_eq!(upload.finish().await.err().map(|err| err.kind()), Some(ErrorKind::DataLoss));
}
