//! The direction that receives: large reads of the socket, and records opened into the memory of whoever
//! wants them.
//!
//! Invariant: what was opened is given before anything that comes after it, the end and errors included.

use super::error::LinkError;
use super::socket::Socket;
use super::tls::{Received, Tls, RECORD_MAX};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Bytes read at a time; what lies here is not acknowledged to JavaScript, but to TCP.
const CIPHER_BYTES: usize = (256 << 10) + RECORD_MAX;

pub struct Reader {
    tls: Arc<Mutex<Tls>>,
    socket: Arc<Socket>,
    cipher: Box<[u8]>,
    /// What of `cipher` is as it came.
    closed: Range<usize>,
    /// What is opened, and not given: from `given` on.
    plain: Vec<u8>,
    given: usize,
    /// Nothing comes any more, or nothing that could be trusted.
    over: Option<Result<(), LinkError>>,
}

impl Reader {
    /// `early`: what came with the handshake; plain text, and what follows it as it came.
    pub fn new(
        tls: Arc<Mutex<Tls>>,
        socket: Arc<Socket>,
        (plain, cipher): (Vec<u8>, &[u8]),
    ) -> Self {
        let mut all = vec![0; CIPHER_BYTES].into_boxed_slice();
        all[..cipher.len()].copy_from_slice(cipher);
        let closed = 0..cipher.len();
        Self { tls, socket, cipher: all, closed, plain, given: 0, over: None }
    }

    /// Fills `out` with what has come, and waits for it when there is nothing; 0: the peer sends no more.
    /// `answer`: the peer is to be told something.
    pub fn fill(&mut self, out: &mut [u8], answer: &dyn Fn()) -> Result<usize, LinkError> {
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
            match self.open(&mut out[filled..], answer) {
                Ok(Some(bytes)) => filled += bytes,
                Ok(None) if self.over.is_some() => {}
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
        let left = &self.plain[self.given..];
        let len = left.len().min(out.len());
        out[..len].copy_from_slice(&left[..len]);
        self.given += len;
        len
    }

    /// Opens one record, into `out` as far as it fits; None: there is no whole one.
    fn open(&mut self, out: &mut [u8], answer: &dyn Fn()) -> Result<Option<usize>, LinkError> {
        self.plain.clear();
        self.given = 0;
        let (rest, mut filled) = (&mut self.plain, 0);
        let mut tls = self.tls.lock();
        let opened = tls.receive(&mut self.cipher[self.closed.clone()], |plain| {
            let fits = plain.len().min(out.len() - filled);
            out[filled..filled + fits].copy_from_slice(&plain[..fits]);
            filled += fits;
            rest.extend_from_slice(&plain[fits..]);
        });
        let (ended, to_answer) = (tls.peer_ended(), tls.has_control());
        drop(tls);
        if to_answer {
            answer();
        }
        let Received { used, more } = opened?;
        self.closed.start += used;
        if ended && !more {
            self.over = Some(Ok(()));
        }
        Ok(more.then_some(filled))
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
