//! rustls, after the handshake: both directions of a connection, under one lock that is held for one record.
//!
//! What rustls itself has to say (new keys, alerts) waits in `control`: it goes out in front of what is
//! encrypted next, and before anything under new keys.

use super::error::LinkError;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

/// Most plain text of a record (RFC 8446, section 5.1).
pub const PLAIN_MAX: usize = 1 << 14;
/// Longest record that a peer may send: a header, its type, padding and tag beside the text.
pub const RECORD_MAX: usize = PLAIN_MAX + 5 + 256;
/// Room that a record of ours takes beside its text, with a message of new keys in front of it.
pub const OVERHEAD: usize = 256;
/// What rustls says by itself at a time.
const CONTROL_MAX: usize = 4096;

/// What has become of received bytes.
pub struct Received {
    /// Bytes that are used up.
    pub used: usize,
    /// There may be more; false: a record is not whole yet.
    pub more: bool,
}

/// A connection of rustls, of either side.
trait Connection: Send {
    fn receive(
        &mut self,
        incoming: &mut [u8],
        aside: &mut Aside,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<Received, LinkError>;
    fn write(&mut self, plain: Option<&[u8]>, out: &mut [u8], aside: &mut Aside) -> Written;
    #[cfg(test)]
    fn refresh_keys(&mut self) -> Result<(), LinkError>;
}

type Written = Result<usize, LinkError>;

/// What either direction may meet that is the other's.
#[derive(Default)]
struct Aside {
    control: Vec<u8>,
    peer_ended: bool,
}

impl Aside {
    fn encode<E: std::fmt::Display>(
        &mut self,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), LinkError> {
        let at = self.control.len();
        self.control.resize(at + CONTROL_MAX, 0);
        let encoded = encode(&mut self.control[at..]).map_err(LinkError::tls);
        self.control.truncate(at + encoded.as_ref().map_or(0, |len| *len));
        encoded.map(drop)
    }
}

macro_rules! connection {
    ($connection:ty) => {
        impl Connection for $connection {
            fn receive(
                &mut self,
                incoming: &mut [u8],
                aside: &mut Aside,
                give: &mut dyn FnMut(&[u8]),
            ) -> Result<Received, LinkError> {
                let UnbufferedStatus { discard, state } = self.process_tls_records(incoming);
                let mut received = Received { used: discard, more: true };
                match state {
                    Ok(ConnectionState::ReadTraffic(mut data)) => {
                        while let Some(record) = data.next_record() {
                            let record = record?;
                            give(record.payload);
                            received.used += record.discard;
                        }
                    }
                    Ok(ConnectionState::EncodeTlsData(mut data)) => {
                        aside.encode(|out| data.encode(out))?
                    }
                    Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                    Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                        aside.peer_ended = true;
                        received.more = false;
                    }
                    Ok(ConnectionState::WriteTraffic(_)) => received.more = false,
                    Ok(_) => return Err(LinkError::tls("a connection that is none any more")),
                    Err(error) => {
                        let rest = &mut incoming[discard..];
                        // The peer is told why.
                        let alert = self.process_tls_records(rest).state;
                        if let Ok(ConnectionState::EncodeTlsData(mut data)) = alert {
                            aside.encode(|out| data.encode(out))?;
                        }
                        return Err(error.into());
                    }
                }
                Ok(received)
            }

            fn write(
                &mut self,
                plain: Option<&[u8]>,
                out: &mut [u8],
                aside: &mut Aside,
            ) -> Written {
                loop {
                    match self.process_tls_records(&mut []).state? {
                        ConnectionState::WriteTraffic(mut traffic) => {
                            let written = match plain {
                                Some(plain) => traffic.encrypt(plain, out),
                                None => traffic.queue_close_notify(out),
                            };
                            return written.map_err(LinkError::tls);
                        }
                        ConnectionState::EncodeTlsData(mut data) => {
                            aside.encode(|out| data.encode(out))?
                        }
                        ConnectionState::TransmitTlsData(data) => data.done(),
                        ConnectionState::PeerClosed => aside.peer_ended = true,
                        _ => return Err(LinkError::new("CLOSED", "the connection was closed")),
                    }
                }
            }

            #[cfg(test)]
            fn refresh_keys(&mut self) -> Result<(), LinkError> {
                match self.process_tls_records(&mut []).state? {
                    ConnectionState::WriteTraffic(traffic) => Ok(traffic.refresh_traffic_keys()?),
                    _ => Err(LinkError::tls("no time for new keys")),
                }
            }
        }
    };
}

connection!(UnbufferedClientConnection);
connection!(UnbufferedServerConnection);

/// A connection whose handshake is done.
pub struct Tls {
    connection: Box<dyn Connection>,
    aside: Aside,
}

impl Tls {
    pub fn of_client(connection: UnbufferedClientConnection) -> Self {
        Self { connection: Box::new(connection), aside: Aside::default() }
    }

    pub fn of_server(connection: UnbufferedServerConnection) -> Self {
        Self { connection: Box::new(connection), aside: Aside::default() }
    }

    /// Opens the first record of `incoming`, if it is whole: its plain text is given.
    pub fn receive(
        &mut self,
        incoming: &mut [u8],
        mut give: impl FnMut(&[u8]),
    ) -> Result<Received, LinkError> {
        self.connection.receive(incoming, &mut self.aside, &mut give)
    }

    /// The peer has said that it sends no more.
    pub fn peer_ended(&self) -> bool {
        self.aside.peer_ended
    }

    /// Something is to be sent that nobody has asked for.
    pub fn has_control(&self) -> bool {
        !self.aside.control.is_empty()
    }

    /// Encrypts at most `PLAIN_MAX` bytes to the beginning of `out`, behind what rustls has to say; `None`: that
    /// nothing comes after it. `out` has room for `OVERHEAD` and `control_bytes` besides.
    pub fn write(&mut self, plain: Option<&[u8]>, out: &mut [u8]) -> Result<usize, LinkError> {
        let before = self.take_control(out);
        let mut at = before + self.connection.write(plain, &mut out[before..], &mut self.aside)?;
        if self.has_control() {
            // What came up only now belongs in front: it is of the same keys or of older ones.
            let len = self.aside.control.len();
            out.copy_within(before..at, before + len);
            out[before..before + len].copy_from_slice(&self.aside.control);
            self.aside.control.clear();
            at += len;
        }
        Ok(at)
    }

    pub fn control_bytes(&self) -> usize {
        self.aside.control.len() + CONTROL_MAX
    }

    /// What rustls has to say, as far as `out` has room for all of it.
    pub fn take_control(&mut self, out: &mut [u8]) -> usize {
        let len = self.aside.control.len();
        if len > out.len() {
            return 0;
        }
        out[..len].copy_from_slice(&self.aside.control);
        self.aside.control.clear();
        len
    }

    /// What follows is sent under new keys.
    #[cfg(test)]
    pub fn refresh_keys(&mut self) -> Result<(), LinkError> {
        self.connection.refresh_keys()
    }
}
