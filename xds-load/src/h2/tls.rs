//! TLS towards the control plane, with or without a client certificate.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The files and names that a connection needs.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Roots that the server's certificate is checked against. Without them it is not checked.
    pub roots: Option<PathBuf>,
    /// The client's chain and key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A client's certificate chain and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("cannot use {file} as {what}: {error}")]
    File {
        /// Which.
        file: PathBuf,
        /// As what.
        what: &'static str,
        /// Why not.
        error: String,
    },
    /// A client certificate that cannot be used.
    #[error("cannot use the client's certificate with its key: {0}")]
    Identity(rustls::Error),
    /// The name cannot stand in a certificate.
    #[error("{0:?} is no name of a server; give --server-name as a DNS name or an address")]
    ServerName(String),
}

/// A TLS client, cheap to clone. Sessions are not resumed: each simulated proxy pays for its handshake as a proxy that starts does.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(files: &TlsFiles, server_name: &str) -> Result<Self, TlsError> {
        let read = |(chain, key): &(PathBuf, PathBuf)| {
            Ok((certificates(chain, "the client's certificate chain")?, private_key(key)?))
        };
        Self::new(files.roots.as_deref(), files.identity.as_ref().map(read).transpose()?, server_name)
    }

    /// With a client certificate that is at hand.
    pub fn new(
        roots: Option<&Path>,
        identity: Option<Identity>,
        server_name: &str,
    ) -> Result<Self, TlsError> {
        let server = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(server_name.to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|error| unreachable!("the provider has all default versions: {error}"));
        let config = match roots {
            Some(file) => config.with_root_certificates(read_roots(file)?),
            None => config.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
        };
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(TlsError::Identity)?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server })
    }

    /// Shakes hands.
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.server.clone(), stream).await
    }
}

fn unusable(file: &Path, what: &'static str, error: impl std::fmt::Display) -> TlsError {
    TlsError::File { file: file.to_owned(), what, error: error.to_string() }
}

fn certificates(file: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(unusable(file, what, "it has no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(file, what, error)),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unusable(file, "the client's private key", error))
}

fn read_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    const WHAT: &str = "the roots of the server's certificate";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, WHAT)? {
        roots.add(certificate).map_err(|error| unusable(file, WHAT, error))?;
    }
    Ok(roots)
}

/// Takes any certificate: for tests of control planes whose root is not at hand.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
