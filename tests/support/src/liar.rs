//! A registry that does not keep its word: for the tests of what a pull does then.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::json;

use crate::{TestHost, image};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const ADDRESS: &str = "127.0.0.1:5999";

/// What is wrong with its image `lie:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The layer is as long as promised, with other bytes.
    OtherBytes,
    /// The layer's bytes end in the middle, every time.
    Truncated,
    /// The layer is another one than the configuration says.
    OtherDiffId,
    /// A manifest without an end.
    EndlessManifest,
    /// A list whose only entry is a list of the same kind, and so on.
    NestedLists,
    /// More layers than any image has.
    ManyLayers,
    /// A page for people in the manifest's place.
    NotJson,
    /// It hangs up after every request.
    HangsUp,
    /// A layer that is small on the wire and huge when it is unpacked.
    Bomb,
}

impl Lie {
    pub const ALL: [Self; 9] = [
        Self::OtherBytes,
        Self::Truncated,
        Self::OtherDiffId,
        Self::EndlessManifest,
        Self::NestedLists,
        Self::ManyLayers,
        Self::NotJson,
        Self::HangsUp,
        Self::Bomb,
    ];
}

/// Ends with the value.
pub struct Liar {
    listener: Arc<TcpListener>,
    server: Option<JoinHandle<()>>,
}

impl Liar {
    /// Listens in the host's network until it is dropped.
    ///
    /// # Panics
    /// When the host's network cannot be entered.
    pub fn start(host: &TestHost, lie: Lie) -> Self {
        let listener = Arc::new(host.in_network(|| TcpListener::bind(ADDRESS).expect("listen")));
        let waits = Arc::clone(&listener);
        let image = Arc::new(Image::new(lie));
        let server = std::thread::spawn(move || {
            while let Ok((stream, _)) = waits.accept() {
                let image = Arc::clone(&image);
                // A client that hangs up is its own affair.
                std::thread::spawn(move || drop(image.serve(&stream)));
            }
        });
        Self { listener, server: Some(server) }
    }

    /// The image's name.
    pub fn image() -> String {
        format!("{ADDRESS}/lie:1")
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        // Ends the server's wait, and gives the address back at once: what another test is just forking has the listener, too.
        rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both).expect("shut down");
        if let Some(server) = self.server.take() {
            server.join().expect("the server ends");
        }
    }
}

/// What is served by path.
struct Image {
    lie: Lie,
    answers: BTreeMap<String, (&'static str, Vec<u8>)>,
}

impl Image {
    fn new(lie: Lie) -> Self {
        let layer = if lie == Lie::Bomb { bomb() } else { image::gzip(&image::static_layer()) };
        let diff_id = if lie == Lie::OtherDiffId { image::hex_sha256(b"another") } else { image::hex_sha256(&image::static_layer()) };
        let diff_ids: Vec<String> = vec![format!("sha256:{diff_id}"); if lie == Lie::ManyLayers { 100_000 } else { 1 }];
        let config = json!({"architecture": image::go_arch(), "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes();
        let described = |media: &str, bytes: &[u8]| json!({"mediaType": media, "size": bytes.len(), "digest": format!("sha256:{}", image::hex_sha256(bytes))});
        let layers = vec![described("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer); diff_ids.len()];
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": described("application/vnd.docker.container.image.v1+json", &config)})
        .to_string()
        .into_bytes();
        let mut answers = BTreeMap::new();
        let mut put = |kind: &str, bytes: &[u8], media: &'static str, sent: Vec<u8>| {
            answers.insert(format!("/v2/lie/{kind}/sha256:{}", image::hex_sha256(bytes)), (media, sent));
        };
        let mut other = layer.clone();
        *other.last_mut().expect("has bytes") ^= 1;
        put("blobs", &layer, "application/octet-stream", if lie == Lie::OtherBytes { other } else { layer.clone() });
        put("blobs", &config, "application/octet-stream", config.clone());
        put("manifests", &manifest, MANIFEST, manifest.clone());
        let top = match lie {
            Lie::NestedLists => {
                let mut inner = (MANIFEST, manifest);
                for _ in 0..64 {
                    let mut entry = described(inner.0, &inner.1);
                    entry["platform"] = json!({"os": "linux", "architecture": image::go_arch()});
                    let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [entry]}).to_string().into_bytes();
                    put("manifests", &list, LIST, list.clone());
                    inner = (LIST, list);
                }
                inner
            }
            Lie::NotJson => (MANIFEST, b"<html><body>Welcome to the hotel's network</body></html>".to_vec()),
            _ => (MANIFEST, manifest),
        };
        answers.insert("/v2/lie/manifests/1".into(), top);
        answers.insert("/v2/".into(), ("application/json", b"{}".to_vec()));
        Self { lie, answers }
    }

    /// One request a connection.
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        // The headers, up to the empty line.
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut out = stream;
        if self.lie == Lie::HangsUp && path != "/v2/" {
            return Ok(());
        }
        let Some((media, body)) = self.answers.get(path) else {
            return write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        if self.lie == Lie::EndlessManifest && path.ends_with("/manifests/1") && method == "GET" {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nConnection: close\r\n\r\n{{\"schemaVersion\": 2, \"x\": \"")?;
            loop {
                out.write_all(&[b'x'; 1 << 16])?;
            }
        }
        write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        let cut = self.lie == Lie::Truncated && path.contains("/blobs/") && body.len() > 10_000;
        if method == "HEAD" { Ok(()) } else { out.write_all(if cut { &body[..body.len() / 2] } else { body }) }
    }
}

/// A tar with one file of 64 GiB of zeros by its header, and so much of it as fits into a few kilobytes of gzip in gzip's own measure.
fn bomb() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").expect("a short path");
    header.set_size(64 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(header.as_bytes()).expect("write to memory");
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..32 {
        encoder.write_all(&zeros).expect("write to memory");
    }
    encoder.finish().expect("write to memory")
}
