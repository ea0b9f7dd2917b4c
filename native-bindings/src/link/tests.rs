//! Two ends over a socket, with a meddler between them where it takes one.

use super::*;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};

const PATIENCE: Duration = Duration::from_secs(20);

/// Made by src/replication/identity.ts, for these tests alone.
const KEY: &str = include_str!("testdata/key.pem");
const CERTIFICATE: &str = include_str!("testdata/certificate.pem");
/// Of another key.
const OTHER: &str = include_str!("testdata/other-certificate.pem");

struct End {
    link: Link,
    events: Mutex<Receiver<Event>>,
}

impl End {
    fn new(socket: &UnixStream, certificate: &str, server: bool) -> Self {
        Self::patient(socket, certificate, server, PATIENCE)
    }

    fn patient(socket: &UnixStream, certificate: &str, server: bool, longest: Duration) -> Self {
        let (tell, events) = channel();
        let identity = Identity { certificate: certificate.into(), key: KEY.into(), server };
        let listener = Arc::new(move |event| tell.send(event).unwrap_or(()));
        let link = Link::start(socket.as_raw_fd(), identity, longest, listener).unwrap();
        Self { link, events: Mutex::new(events) }
    }

    fn next(&self) -> Event {
        self.events.lock().recv_timeout(PATIENCE).expect("an event")
    }

    fn secured(&self) -> String {
        match self.next() {
            Event::Secured(fingerprint) => fingerprint,
            event => panic!("{event:?}"),
        }
    }

    fn failed(&self) -> LinkError {
        match self.next() {
            Event::Failed(error) => error,
            event => panic!("{event:?}"),
        }
    }

    /// All pieces, and waits until they are with the kernel.
    fn write(&self, pieces: &[&[u8]], end: bool) {
        if !self.begin_write(pieces, end) {
            assert!(matches!(self.next(), Event::Written));
        }
    }

    fn begin_write(&self, pieces: &[&[u8]], end: bool) -> bool {
        // SAFETY: the tests keep what they write until it is written.
        let span = |piece: &&[u8]| unsafe { Span::new(piece.as_ptr().cast_mut(), piece.len()) };
        self.link.write(pieces.iter().map(span).collect(), end).unwrap()
    }

    fn begin_read(&self, memory: &mut [u8]) {
        // SAFETY: the tests wait for the answer.
        self.link.read(unsafe { Span::new(memory.as_mut_ptr(), memory.len()) });
    }

    /// What comes next, `most` bytes at most; None: nothing comes any more.
    fn read(&self, most: usize) -> Option<Vec<u8>> {
        let mut memory = vec![0; most];
        self.begin_read(&mut memory);
        match self.next() {
            Event::Read(bytes) => memory.truncate(bytes),
            Event::Ended => return None,
            event => panic!("{event:?}"),
        }
        Some(memory)
    }

    fn read_all(&self, most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = self.read(most) {
            all.extend(piece);
        }
        all
    }

    fn close(self) {
        self.link.close();
        loop {
            match self.events.lock().recv_timeout(PATIENCE) {
                Ok(Event::Closed) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("ended without a word"),
                Err(RecvTimeoutError::Timeout) => panic!("still there"),
            }
        }
    }
}

/// The client and the server.
fn two() -> (End, End) {
    let (client, server) = UnixStream::pair().unwrap();
    let ends = (End::new(&client, CERTIFICATE, false), End::new(&server, CERTIFICATE, true));
    assert_eq!(ends.0.secured(), ends.1.secured());
    ends
}

/// The same, with what goes from the client to the server passing through `change`, piece by piece, once
/// the handshake is over; when it gives None, that is the end.
fn meddled(mut change: impl FnMut(Vec<u8>) -> Option<Vec<u8>> + Send + 'static) -> (End, End) {
    let (client, mut from) = UnixStream::pair().unwrap();
    let (mut to, server) = UnixStream::pair().unwrap();
    let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
    let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_armed = armed.clone();
    std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
    std::thread::spawn(move || {
        let mut piece = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from.read(&mut piece) {
            let piece = piece[..len].to_vec();
            let armed = is_armed.load(std::sync::atomic::Ordering::SeqCst);
            let Some(piece) = (if armed { change(piece) } else { Some(piece) }) else { break };
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    });
    let ends = (End::new(&client, CERTIFICATE, false), End::new(&server, CERTIFICATE, true));
    ends.0.secured();
    ends.1.secured();
    armed.store(true, std::sync::atomic::Ordering::SeqCst);
    ends
}

/// Bytes of which each place is recognised.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ seed).collect()
}

#[test]
fn much_goes_both_ways_at_once() {
    let (client, server) = two();
    let (up, down) = (pattern(20 << 20, 1), pattern(17 << 20, 2));
    std::thread::scope(|scope| {
        for (end, out, back) in [(&client, &up, &down), (&server, &down, &up)] {
            scope.spawn(move || {
                assert!(!end.begin_write(&[&out[..100], &out[100..70_000], &out[70_000..]], true));
                let (mut got, mut written, mut ended) = (Vec::new(), false, false);
                let mut memory = vec![0; 300_000];
                end.begin_read(&mut memory);
                while !written || !ended {
                    match end.next() {
                        Event::Written => written = true,
                        Event::Ended => ended = true,
                        Event::Read(bytes) => {
                            got.extend_from_slice(&memory[..bytes]);
                            end.begin_read(&mut memory);
                        }
                        event => panic!("{event:?}"),
                    }
                }
                assert!(got == *back, "{} bytes of {}", got.len(), back.len());
            });
        }
    });
    client.close();
    server.close();
}

#[test]
fn tiny_pieces_are_put_together_and_read_in_any_size() {
    let (client, server) = two();
    let all = pattern(50_000, 3);
    let pieces: Vec<&[u8]> = all.chunks(7).collect();
    client.write(&pieces, false);
    for piece in &pieces[..100] {
        client.write(&[piece], false);
    }
    client.write(&[&[], b"end", &[]], true);
    let mut sizes = [1, 16_384, 3, 16_401, 500].into_iter().cycle();
    let mut got = Vec::new();
    while let Some(piece) = server.read(sizes.next().unwrap()) {
        got.extend(piece);
    }
    assert!(got == [&all[..], &all[..700], b"end"].concat());
}

#[test]
fn a_slow_reader_holds_the_writer() {
    let (client, server) = two();
    let much = pattern(64 << 20, 4);
    assert!(!client.begin_write(&[&much], true));
    assert!(server.read(1000).is_some());
    std::thread::sleep(Duration::from_millis(300));
    let early = client.events.lock().try_recv();
    assert!(early.is_err(), "64 MiB are nowhere: {early:?}");
    assert_eq!(server.read_all(1 << 20).len(), much.len() - 1000);
    assert!(matches!(client.next(), Event::Written));
}

#[test]
fn an_end_without_a_word_is_an_end() {
    let (client, server) = meddled(|_| None);
    client.write(&[b"lost"], false);
    assert_eq!(server.read(100), None);
}

#[test]
fn a_record_that_was_cut_off_is_not_given() {
    let (client, server) = meddled({
        let mut left = 30_000;
        move |mut piece| {
            piece.truncate(left);
            left -= piece.len();
            (!piece.is_empty()).then_some(piece)
        }
    });
    let sent = pattern(100_000, 5);
    client.begin_write(&[&sent], false);
    let got = server.read_all(100_000);
    assert!(got == sent[..16_384], "whole records only, not {} bytes", got.len());
    client.close();
}

#[test]
fn a_flipped_bit_ends_it_and_what_came_before_is_given() {
    for at in [0, 3, 4, 7, 20_000, 32_000] {
        let (client, server) = meddled({
            let mut done = 0;
            move |mut piece| {
                if (done..done + piece.len()).contains(&at) {
                    piece[at - done] ^= 0x10;
                }
                done += piece.len();
                Some(piece)
            }
        });
        let sent = pattern(40_000, 6);
        client.begin_write(&[&sent], false);
        let mut got = Vec::new();
        let error = loop {
            let mut memory = vec![0; 40_000];
            server.begin_read(&mut memory);
            match server.next() {
                Event::Read(bytes) => got.extend_from_slice(&memory[..bytes]),
                Event::Failed(error) => break error,
                // The length was made longer than what came.
                Event::Ended => break LinkError::tls("cut off"),
                event => panic!("{at}: {event:?}"),
            }
        };
        assert_eq!(error.code, "TLS", "{at}: {error}");
        assert!(got == sent[..at / 16_406 * 16_384], "{at}: {} bytes", got.len());
        client.close();
        server.close();
    }
}

/// Presents the certificate of another, and has no key for it.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesClientCert for Thief {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Thief {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn thief() -> Arc<Thief> {
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(OTHER.as_bytes()).unwrap()];
    Arc::new(Thief(Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap()))))
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let provider = Arc::new(default_provider());
    let (mut stranger, socket) = UnixStream::pair().unwrap();
    let server = End::new(&socket, CERTIFICATE, true);
    let config = ClientConfig::builder_with_provider(provider.clone());
    let config = config.with_protocol_versions(&[&TLS13]).unwrap().dangerous();
    let config = config.with_custom_certificate_verifier(handshake::Possession::new());
    let config = Arc::new(config.with_client_cert_resolver(thief()));
    let name = ServerName::try_from("holdfast").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let _ = connection.complete_io(&mut stranger);
    let error = server.failed();
    assert!(error.message.contains("BadSignature"), "{error}");

    let (mut stranger, socket) = UnixStream::pair().unwrap();
    let client = End::new(&socket, CERTIFICATE, false);
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
    let config = Arc::new(config.with_cert_resolver(thief()));
    let mut connection = ServerConnection::new(config).unwrap();
    let _ = connection.complete_io(&mut stranger);
    let error = client.failed();
    assert!(error.message.contains("BadSignature"), "{error}");
}

#[test]
fn nobody_comes_in_without_a_certificate() {
    let (mut stranger, socket) = UnixStream::pair().unwrap();
    let server = End::new(&socket, CERTIFICATE, true);
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_protocol_versions(&[&TLS13]).unwrap().dangerous();
    let config = config.with_custom_certificate_verifier(handshake::Possession::new());
    let name = ServerName::try_from("holdfast").unwrap();
    let mut connection =
        ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap();
    let _ = connection.complete_io(&mut stranger);
    assert_eq!(server.failed().message, "peer sent no certificates");
}

#[test]
fn plain_text_silence_and_drops_are_no_handshake() {
    let (mut stranger, socket) = UnixStream::pair().unwrap();
    let server = End::new(&socket, CERTIFICATE, true);
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(server.failed().code, "TLS");
    drop(server);

    let (stranger, socket) = UnixStream::pair().unwrap();
    let server = End::new(&socket, CERTIFICATE, true);
    drop(stranger);
    assert_eq!(server.failed().message, "the connection was closed");

    let (mut stranger, socket) = UnixStream::pair().unwrap();
    let begun = Instant::now();
    let server = End::patient(&socket, CERTIFICATE, true, Duration::from_millis(300));
    // A record of 512 bytes, byte by byte: each of them is heard in time.
    for byte in [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat_n(1, 50)) {
        let _ = stranger.write_all(&[byte]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.failed().code, "TIMEOUT");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn keys_are_changed_on_the_way() {
    let (client, server) = two();
    let much = pattern(3 << 20, 7);
    for (from, to) in [(&client, &server), (&server, &client)] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for part in much.chunks(500_000) {
                    from.write(&[part], false);
                    from.link.shared.sender.lock().as_mut().unwrap().refresh_keys();
                }
            });
            let mut got = Vec::new();
            while got.len() < much.len() {
                got.extend(to.read(much.len()).unwrap());
            }
            assert!(got == much);
        });
    }
    client.write(&[b"over"], true);
    assert_eq!(server.read_all(100), b"over");
}

#[test]
fn closing_ends_whatever_waits() {
    let (client, server) = two();
    let much = pattern(64 << 20, 8);
    assert!(!client.begin_write(&[&much], false));
    let mut memory = vec![0; 100];
    client.begin_read(&mut memory);
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    client.close();
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(server);

    let (_silent, socket) = UnixStream::pair().unwrap();
    End::new(&socket, CERTIFICATE, true).close();
}
