//! TLS for `tcp://` engines: private or public roots, client certificates, or encryption without verification.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ApiError;
use super::endpoint::{Endpoint, TlsFiles};
use super::transport::Duplex;

pub async fn wrap(endpoint: &Endpoint, host: &str, files: &TlsFiles, stream: TcpStream) -> Result<Box<dyn Duplex>, ApiError> {
    let config = config(files).map_err(|why| ApiError::Connect(format!("error during connect: {}: {why}", endpoint.url)))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ApiError::Connect(format!("{host:?} is not a name that a certificate can have")))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|err| ApiError::Connect(format!("error during connect: {}: tls: {err}", endpoint.url)))?;
    Ok(Box::new(stream))
}

fn config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().map_err(|err| err.to_string())?;
    let builder = if files.verify {
        builder.with_root_certificates(roots(files.ca.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|err| format!("{}: {err}", cert.display()))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), None) => Err(format!("a key must stand beside the client certificate {}", cert.display())),
        (None, Some(key)) => Err(format!("a certificate must stand beside the client key {}", key.display())),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let certificates = match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    for certificate in certificates {
        store.add(certificate).map_err(|err| format!("a trusted certificate is malformed: {err}"))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |err: rustls_pki_types::pem::Error| format!("{}: {err}", path.display());
    CertificateDer::pem_file_iter(path).map_err(problem)?.collect::<Result<_, _>>().map_err(problem)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|err| format!("{}: {err}", path.display()))
}

/// What `--tls` without `--tlsverify` asks for: encryption, whoever is at the other end.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
