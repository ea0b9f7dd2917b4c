//! The direction that sends: plain text to records, and records to the socket, many at a time.

use super::error::LinkError;
use super::handshake::Secured;
use super::memory::Pieces;
use super::reader::Reader;
use super::socket::Socket;
use super::tls::{Tls, OVERHEAD, PLAIN_MAX};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Records that are encrypted before they are written: they fit the cache of a CPU.
const RECORDS: usize = 16;
/// Room for what is sent beside data.
const CONTROL_BYTES: usize = 16 << 10;

pub struct Sender {
    tls: Arc<Mutex<Tls>>,
    out: Box<[u8]>,
    /// What of `out` is encrypted and not sent.
    ready: Range<usize>,
    /// Where pieces are put together that make one record.
    together: Box<[u8]>,
    ended: bool,
}

/// Both directions of what a handshake has come to.
pub fn pair(secured: Secured, socket: &Arc<Socket>) -> (Reader, Sender) {
    let Secured { tls, plain, cipher, .. } = secured;
    let tls = Arc::new(Mutex::new(tls));
    (Reader::new(tls.clone(), socket.clone(), (plain, &cipher)), Sender::new(tls))
}

impl Sender {
    fn new(tls: Arc<Mutex<Tls>>) -> Self {
        let out = vec![0; RECORDS * (PLAIN_MAX + OVERHEAD) + CONTROL_BYTES].into_boxed_slice();
        let together = vec![0; PLAIN_MAX].into_boxed_slice();
        Self { tls, out, ready: 0..0, together, ended: false }
    }

    /// Changes keys.
    #[cfg(test)]
    pub fn refresh_keys(&mut self) {
        self.tls.lock().refresh_keys().unwrap();
    }

    /// Encrypts as much as there is room for.
    pub fn fill(&mut self, pieces: &mut Pieces) -> Result<(), LinkError> {
        while pieces.left() > 0 {
            let mut tls = self.tls.lock();
            let out = &mut self.out[self.ready.end..];
            if out.len() < PLAIN_MAX + OVERHEAD + tls.control_bytes() {
                break;
            }
            let len = pieces.left().min(PLAIN_MAX);
            self.ready.end += match pieces.together(len) {
                Some(plain) => {
                    let written = tls.write(Some(plain), out)?;
                    pieces.advance(len);
                    written
                }
                None => {
                    let together = &mut self.together[..len];
                    pieces.copy_to(together);
                    tls.write(Some(together), out)?
                }
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
        self.ready.end += self.tls.lock().write(None, &mut self.out[self.ready.end..])?;
        Ok(())
    }

    /// What rustls has to say by itself.
    fn control(&mut self) {
        self.ready.end += self.tls.lock().take_control(&mut self.out[self.ready.end..]);
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
    pub fn work(&mut self, job: Option<(Pieces, bool)>, socket: &Socket) -> Result<(), LinkError> {
        self.control();
        self.send(socket)?;
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
