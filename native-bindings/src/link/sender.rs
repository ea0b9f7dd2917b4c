//! The direction that sends: plain text to records, and records to the socket, many at a time.

use super::error::LinkError;
use super::handshake::{Rekey, Secured};
use super::memory::Pieces;
use super::reader::Reader;
use super::record::{Direction, Kind, OVERHEAD, PLAIN_MAX, REKEY_RECORDS};
use super::socket::Socket;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Records that are encrypted before they are written: they fit the cache of a CPU.
const RECORDS: usize = 16;
/// Room for what is sent beside data.
const CONTROL_BYTES: usize = 64;
/// KeyUpdate, of 1 byte: the peer need not do the same (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// A warning, close_notify (section 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

pub struct Sender {
    direction: Direction,
    rekey: Arc<Mutex<Box<dyn Rekey>>>,
    out: Box<[u8]>,
    /// What of `out` is encrypted and not sent.
    ready: Range<usize>,
    ended: bool,
    rekey_after: u64,
}

/// Both directions of what a handshake has come to.
pub fn pair(secured: Secured, socket: &Arc<Socket>) -> (Reader, Sender) {
    let Secured { sending, receiving, rekey, plain, cipher, .. } = secured;
    let rekey = Arc::new(Mutex::new(rekey));
    let reader = Reader::new(receiving, rekey.clone(), socket.clone(), (&plain, &cipher));
    (reader, Sender::new(sending, rekey))
}

impl Sender {
    fn new(direction: Direction, rekey: Arc<Mutex<Box<dyn Rekey>>>) -> Self {
        let out = vec![0; RECORDS * (PLAIN_MAX + OVERHEAD) + CONTROL_BYTES].into_boxed_slice();
        Self { direction, rekey, out, ready: 0..0, ended: false, rekey_after: REKEY_RECORDS }
    }

    /// Changes keys after so many records.
    #[cfg(test)]
    pub fn rekey_after(&mut self, records: u64) {
        self.rekey_after = records;
    }

    /// Encrypts as much as there is room for.
    pub fn fill(&mut self, pieces: &mut Pieces) -> Result<(), LinkError> {
        while pieces.left() > 0
            && self.out.len() - self.ready.end >= PLAIN_MAX + OVERHEAD + CONTROL_BYTES
        {
            if self.direction.number() >= self.rekey_after {
                self.update_keys()?;
            }
            let out = &mut self.out[self.ready.end..];
            let len = pieces.left().min(PLAIN_MAX);
            self.ready.end += match pieces.together(len) {
                Some(plain) => {
                    let sealed = self.direction.seal(Kind::Data, plain, out)?;
                    pieces.advance(len);
                    sealed
                }
                None => self.direction.seal_filled(len, out, |plain| pieces.copy_to(plain))?,
            };
        }
        Ok(())
    }

    /// Nothing comes after this. Idempotent.
    pub fn end(&mut self) -> Result<(), LinkError> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.control(Kind::Alert, &CLOSE_NOTIFY)
    }

    /// What follows is sent under a new key.
    fn update_keys(&mut self) -> Result<(), LinkError> {
        self.control(Kind::Handshake, &KEY_UPDATE)?;
        self.direction = Direction::new(self.rekey.lock().sending()?)?;
        Ok(())
    }

    fn control(&mut self, kind: Kind, plain: &[u8]) -> Result<(), LinkError> {
        let out = &mut self.out[self.ready.end..];
        self.ready.end += self.direction.seal(kind, plain, out)?;
        Ok(())
    }

    /// Sends what there is room for; true: that was all.
    pub fn send_now(&mut self, socket: &Socket) -> Result<bool, LinkError> {
        self.ready.start += socket.write_now(&self.out[self.ready.clone()])?;
        Ok(self.all_sent(socket))
    }

    fn send(&mut self, socket: &Socket) -> Result<(), LinkError> {
        while !self.ready.is_empty() {
            self.ready.start += socket.write(&self.out[self.ready.clone()])?;
        }
        self.all_sent(socket);
        Ok(())
    }

    fn all_sent(&mut self, socket: &Socket) -> bool {
        if !self.ready.is_empty() {
            return false;
        }
        self.ready = 0..0;
        if self.ended {
            socket.end();
        }
        true
    }

    /// Sends all of a job, and what an earlier one has left; waits for the socket.
    pub fn work(
        &mut self,
        job: Option<(Pieces, bool)>,
        update_keys: bool,
        socket: &Socket,
    ) -> Result<(), LinkError> {
        self.send(socket)?;
        if update_keys && !self.ended {
            self.update_keys()?;
            self.send(socket)?;
        }
        let Some((mut pieces, end)) = job else { return Ok(()) };
        while pieces.left() > 0 {
            self.fill(&mut pieces)?;
            self.send(socket)?;
        }
        if end {
            self.end()?;
            self.send(socket)?;
        }
        Ok(())
    }
}
