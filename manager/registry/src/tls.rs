//! TLS for one host: the system's roots, its private CA, its client certificate; rustls on ring, nothing implicit.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcontainerd_types::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// What a host's directory says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsFiles {
    pub authorities: Vec<PathBuf>,
    /// To show when asked.
    pub client: Option<ClientCertificate>,
    /// The user chose to trust whoever answers.
    pub unverified: bool,
}

/// PEM files; both may be the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Docker's layout: `*.crt` are authorities, `X.cert` and `X.key` a client certificate.
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(err) => return Err(Error::io(format!("read {}", dir.display()), err)),
        };
        let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(|err| Error::io(format!("read {}", dir.display()), err))?;
        paths.sort();
        let mut files = Self::default();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => files.authorities.push(path),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        return Err(Error::invalid(format!("client certificate {} lacks its key {}", path.display(), key.display())));
                    }
                    files.client.get_or_insert(ClientCertificate { certificate: path, key });
                }
                Some("key") if !path.with_extension("cert").exists() => {
                    return Err(Error::invalid(format!(
                        "key {} lacks its certificate {}",
                        path.display(),
                        path.with_extension("cert").display()
                    )));
                }
                _ => {}
            }
        }
        Ok(files)
    }
}

/// The configuration for one kind of host; HTTP/1.1 only, since parallel blobs do better on connections of their own.
pub(crate) fn client_config(files: &TlsFiles) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|err| Error::internal(format!("set up TLS: {err}")))?;
    let builder = if files.unverified {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms(&provider))))
    } else {
        builder.with_root_certificates(roots(&files.authorities)?)
    };
    let mut config = match &files.client {
        Some(client) => builder
            .with_client_auth_cert(certificates(&client.certificate)?, private_key(&client.key)?)
            .map_err(|err| Error::invalid(format!("client certificate {}: {err}", client.certificate.display())))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// For plain http, which never looks at it.
pub(crate) fn unused_config() -> Result<ClientConfig> {
    client_config(&TlsFiles { unverified: true, ..TlsFiles::default() })
}

fn roots(authorities: &[PathBuf]) -> Result<RootCertStore> {
    static NATIVE: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let native = NATIVE.get_or_init(|| rustls_native_certs::load_native_certs().certs);
    let mut store = RootCertStore::empty();
    // The system's store may hold certificates that rustls cannot read; they are of no use, not an error.
    store.add_parsable_certificates(native.iter().cloned());
    for path in authorities {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|err| Error::invalid(format!("certificate authority {}: {err}", path.display())))?;
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |err: &dyn std::fmt::Display| Error::invalid(format!("certificate file {}: {err}", path.display()));
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(|err| bad(&err))?.collect::<Result<_, _>>().map_err(|err| bad(&err))?;
    if found.is_empty() { Err(bad(&"no certificate in it")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|err| Error::invalid(format!("private key {}: {err}", path.display())))
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

/// Accepts any certificate: for registries that the user declared insecure. The handshake's signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
