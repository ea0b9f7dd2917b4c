//! The direction that receives: large reads of the socket, and records opened straight into the memory of
//! whoever wants them.
//!
//! Invariant: what was opened is given before anything that comes after it, the end and errors included.

use super::error::LinkError;
use super::handshake::Rekey;
use super::record::{inner_len, whole, Direction, Kind, PLAIN_AT, RECORD_MAX};
use super::socket::Socket;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Bytes read at a time; what lies here is not acknowledged to JavaScript, but to TCP.
const CIPHER_BYTES: usize = (256 << 10) + RECORD_MAX;
/// Descriptions of alerts (RFC 8446, section 6).
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
/// Messages after the handshake (section 4.6).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

pub struct Reader {
    direction: Direction,
    rekey: Arc<Mutex<Box<dyn Rekey>>>,
    socket: Arc<Socket>,
    cipher: Box<[u8]>,
    /// What of `cipher` is opened, where it was, and not given.
    plain: Range<usize>,
    /// What of `cipher` is as it came.
    closed: Range<usize>,
    /// Nothing comes any more, or nothing that could be trusted.
    over: Option<Result<(), LinkError>>,
}

impl Reader {
    /// `early`: what came with the handshake; plain text, and what follows it as it came.
    pub fn new(
        direction: Direction,
        rekey: Arc<Mutex<Box<dyn Rekey>>>,
        socket: Arc<Socket>,
        (early, cipher): (&[u8], &[u8]),
    ) -> Self {
        let mut all = vec![0; CIPHER_BYTES].into_boxed_slice();
        let (plain, end) = (early.len(), early.len() + cipher.len());
        all[..plain].copy_from_slice(early);
        all[plain..end].copy_from_slice(cipher);
        let (plain, closed) = (0..plain, plain..end);
        Self { direction, rekey, socket, cipher: all, plain, closed, over: None }
    }

    /// Fills `out` with what has come, and waits for it when there is nothing; 0: the peer sends no more.
    /// `want_new_keys`: the peer wants that of what it is sent.
    pub fn fill(&mut self, out: &mut [u8], want_new_keys: &dyn Fn()) -> Result<usize, LinkError> {
        let mut filled = 0;
        loop {
            filled += self.give(&mut out[filled..]);
            if filled == out.len() {
                return Ok(filled);
            }
            match &self.over {
                Some(_) if filled > 0 => return Ok(filled),
                Some(over) => return over.clone().map(|()| 0),
                None => {}
            }
            match self.open(&mut out[filled..], want_new_keys) {
                Ok(Some(bytes)) => filled += bytes,
                Ok(None) => match self.read_more(filled == 0) {
                    Ok(true) => {}
                    Ok(false) => return Ok(filled),
                    Err(error) => self.over = Some(Err(error)),
                },
                Err(error) => self.over = Some(Err(error)),
            }
        }
    }

    fn give(&mut self, out: &mut [u8]) -> usize {
        let len = self.plain.len().min(out.len());
        let from = self.plain.start;
        out[..len].copy_from_slice(&self.cipher[from..from + len]);
        self.plain.start += len;
        len
    }

    /// Opens one record, into `out` if it surely fits; None: there is no whole one.
    fn open(
        &mut self,
        out: &mut [u8],
        want_new_keys: &dyn Fn(),
    ) -> Result<Option<usize>, LinkError> {
        let Some(len) = whole(&self.cipher[self.closed.clone()])? else { return Ok(None) };
        let at = self.closed.start;
        self.closed.start += len;
        let record = &mut self.cipher[at..at + len];
        let inner = inner_len(len);
        let (kind, bytes) = if inner <= out.len() {
            let (kind, bytes) = self.direction.open_to(record, &mut out[..inner])?;
            if kind == Kind::Data {
                return Ok(Some(bytes));
            }
            (kind, out[..bytes].to_vec())
        } else {
            let (kind, plain) = self.direction.open_here(record)?;
            if kind == Kind::Data {
                self.plain = at + PLAIN_AT..at + PLAIN_AT + plain.len();
                return Ok(Some(0));
            }
            (kind, plain.to_vec())
        };
        match kind {
            Kind::Alert => self.alert(&bytes)?,
            _ => self.handshake(&bytes, want_new_keys)?,
        }
        Ok(Some(0))
    }

    fn alert(&mut self, message: &[u8]) -> Result<(), LinkError> {
        match message {
            [_, CLOSE_NOTIFY] => self.over = Some(Ok(())),
            [_, USER_CANCELED] => {}
            [_, alert] => {
                let alert = rustls::AlertDescription::from(*alert);
                return Err(LinkError::tls(format!("the peer sent an alert: {alert:?}")));
            }
            _ => return Err(LinkError::tls("the peer sent an alert that is none")),
        }
        Ok(())
    }

    /// Messages after the handshake: new keys are taken, tickets are not.
    fn handshake(&mut self, messages: &[u8], want_new_keys: &dyn Fn()) -> Result<(), LinkError> {
        let mut left = messages;
        while let [kind, a, b, c, rest @ ..] = left {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((message, others)) = rest.split_at_checked(len) else { break };
            match (*kind, message) {
                (NEW_SESSION_TICKET, _) => {}
                // Under the new key are whole records only.
                (KEY_UPDATE, [wanted @ 0..=1]) if others.is_empty() => {
                    self.direction = Direction::new(self.rekey.lock().receiving()?)?;
                    if *wanted == 1 {
                        want_new_keys();
                    }
                }
                _ => {
                    return Err(LinkError::tls(format!("the peer sent message {kind} out of turn")))
                }
            }
            left = others;
        }
        if left.is_empty() && !messages.is_empty() {
            return Ok(());
        }
        Err(LinkError::tls("the peer sent a part of a message"))
    }

    /// False: nothing is there, and nobody waits.
    fn read_more(&mut self, wait: bool) -> Result<bool, LinkError> {
        // All that was opened is given by now.
        self.cipher.copy_within(self.closed.clone(), 0);
        self.closed = 0..self.closed.len();
        let room = &mut self.cipher[self.closed.end..];
        let got = if wait { Some(self.socket.read(room)?) } else { self.socket.read_now(room)? };
        match got {
            None => return Ok(false),
            // Without a close_notify, too: a message that was cut off is none, and says so by its length.
            Some(0) => self.over = Some(Ok(())),
            Some(bytes) => self.closed.end += bytes,
        }
        Ok(true)
    }
}
