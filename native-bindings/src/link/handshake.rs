//! The handshake: rustls, TLS 1.3 alone. Each side presents a certificate of its own making and proves to
//! have its key; whose it is, is asked of its fingerprint afterwards. No tickets, no early data.

use super::error::LinkError;
use super::socket::Socket;
use super::tls::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::{verify_tls13_signature, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// Bytes of the peer that may wait to be understood; its certificate is a few hundred.
const INCOMING_BYTES: usize = 32 << 10;
/// Bytes of ours for one step.
const OUTGOING_BYTES: usize = 16 << 10;

/// Who this side is, and which side.
pub struct Identity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// It was connected to.
    pub server: bool,
}

/// What a handshake comes to.
pub struct Secured {
    /// SHA-256 of the peer's certificate, lower-case hexadecimal.
    pub fingerprint: String,
    pub tls: Tls,
    /// What the peer has said already.
    pub plain: Vec<u8>,
    /// The beginning of what it says next, as it came.
    pub cipher: Vec<u8>,
}

/// AES with short keys first: it is the fastest, and by far strong enough.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
});

/// Any certificate will do, if its key is there.
#[derive(Debug)]
pub struct Possession(WebPkiSupportedAlgorithms);

impl Possession {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(PROVIDER.signature_verification_algorithms))
    }
}

/// What both sides ask of the other's signature.
macro_rules! proof_of_possession {
    () => {
        /// TLS 1.2 is not spoken.
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Possession {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    proof_of_possession!();
}

impl ClientCertVerifier for Possession {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    proof_of_possession!();
}

/// Proves to the peer who this side is, and has it prove the same, until `deadline` at most.
pub fn secure(
    socket: &Socket,
    identity: &Identity,
    deadline: Instant,
) -> Result<Secured, LinkError> {
    let unreadable =
        |e| LinkError::new("IDENTITY", format!("the identity of this host is unreadable: {e}"));
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
    let chain = vec![certificate.map_err(unreadable)?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(unreadable)?;
    let provider = PROVIDER.clone();
    if identity.server {
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&TLS13])?;
        let config = config.with_client_cert_verifier(Possession::new());
        let mut config = config.with_single_cert(chain, key)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        converse(UnbufferedServerConnection::new(Arc::new(config))?, socket, deadline)
    } else {
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&TLS13])?;
        let config = config.dangerous().with_custom_certificate_verifier(Possession::new());
        let mut config = config.with_client_auth_cert(chain, key)?;
        config.resumption = Resumption::disabled();
        // Whom it is to be is not said by a name.
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
        converse(UnbufferedClientConnection::new(Arc::new(config), name)?, socket, deadline)
    }
}

/// What the two kinds of connections of rustls have in common.
trait Conversation {
    type Side: Send + 'static;
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side>;
    fn peer(&self) -> Option<&[CertificateDer<'static>]>;
    fn over(self) -> Tls;
}

macro_rules! conversation {
    ($connection:ty, $side:ty, $over:path) => {
        impl Conversation for $connection {
            type Side = $side;

            fn step<'c, 'i>(
                &'c mut self,
                incoming: &'i mut [u8],
            ) -> UnbufferedStatus<'c, 'i, $side> {
                self.process_tls_records(incoming)
            }

            fn peer(&self) -> Option<&[CertificateDer<'static>]> {
                self.peer_certificates()
            }

            fn over(self) -> Tls {
                $over(self)
            }
        }
    };
}

conversation!(UnbufferedClientConnection, ClientConnectionData, Tls::of_client);
conversation!(UnbufferedServerConnection, ServerConnectionData, Tls::of_server);

fn converse(
    mut connection: impl Conversation,
    socket: &Socket,
    deadline: Instant,
) -> Result<Secured, LinkError> {
    let mut incoming = vec![0; INCOMING_BYTES];
    let mut outgoing = vec![0; OUTGOING_BYTES];
    let (mut filled, mut ready) = (0, 0);
    let mut plain = Vec::new();
    loop {
        let UnbufferedStatus { discard, state } = connection.step(&mut incoming[..filled]);
        let mut more = false;
        match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                ready += data.encode(&mut outgoing[ready..]).map_err(LinkError::tls)?;
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                socket.write_until(&outgoing[..ready], deadline)?;
                ready = 0;
                data.done();
            }
            Ok(ConnectionState::BlockedHandshake) => more = true,
            Ok(ConnectionState::ReadTraffic(mut data)) => {
                while let Some(record) = data.next_record() {
                    plain.extend_from_slice(record?.payload);
                }
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                incoming.copy_within(discard..filled, 0);
                incoming.truncate(filled - discard);
                break;
            }
            Ok(_) => return Err(closed()),
            Err(error) => {
                incoming.copy_within(discard..filled, 0);
                farewell(&mut connection, &mut incoming[..filled - discard], socket);
                return Err(error.into());
            }
        }
        incoming.copy_within(discard..filled, 0);
        filled -= discard;
        if more {
            if filled == incoming.len() {
                return Err(LinkError::tls("the peer says too much in its handshake"));
            }
            match socket.read_until(&mut incoming[filled..], deadline)? {
                0 => return Err(closed()),
                got => filled += got,
            }
        }
    }
    let fingerprint = fingerprint(connection.peer())?;
    Ok(Secured { fingerprint, tls: connection.over(), plain, cipher: incoming })
}

fn closed() -> LinkError {
    LinkError::new("CLOSED", "the connection was closed")
}

/// Tells the peer what was wrong, if that can be done at once.
fn farewell(connection: &mut impl Conversation, incoming: &mut [u8], socket: &Socket) {
    let mut alert = [0; 512];
    if let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.step(incoming).state {
        if let Ok(len) = data.encode(&mut alert) {
            let _ = socket.write_now(&alert[..len]);
        }
    }
}

fn fingerprint(chain: Option<&[CertificateDer<'static>]>) -> Result<String, LinkError> {
    let certificate = chain.and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| LinkError::tls("the peer has no certificate"))?;
    Ok(Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect())
}
