//! What a dummy function answers.

use super::abi::Pod;
use super::request::pod_bytes;

/// A reply's kind; its bytes, if any, are in the worker's `Output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The kernel expects none (FORGET, INTERRUPT).
    None,
    /// Success, with whatever the output holds (possibly nothing).
    Done,
}

/// Bytes of a reply behind its header; reused from one request to the next.
///
/// The bytes stand in memory of its own, or, between `lend` and `take_back`, in memory that the transport
/// wants them in.
pub struct Output {
    own: Vec<u8>,
    lent: Option<(*mut u8, usize)>,
    len: usize,
}

// SAFETY: lent memory is used by the thread that has the output; the lender guarantees it stays.
unsafe impl Send for Output {}

impl Output {
    pub fn with_capacity(n: usize) -> Self {
        Self { own: vec![0; n], lent: None, len: 0 }
    }

    /// Replies go to this memory until `take_back`.
    ///
    /// # Safety
    /// The memory is valid for writes of `len` bytes and used by nobody else until `take_back`.
    pub unsafe fn lend(&mut self, at: *mut u8, len: usize) {
        self.lent = Some((at, len));
        self.len = 0;
    }

    /// Ends `lend`; the length of the reply that stands there.
    pub fn take_back(&mut self) -> usize {
        self.lent = None;
        std::mem::take(&mut self.len)
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    fn memory(&mut self) -> &mut [u8] {
        match self.lent {
            // SAFETY: see `lend`.
            Some((at, len)) => unsafe { std::slice::from_raw_parts_mut(at, len) },
            None => &mut self.own,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self.lent {
            // SAFETY: see `lend`; len never exceeds what was lent.
            Some((at, _)) => unsafe { std::slice::from_raw_parts(at, self.len) },
            None => &self.own[..self.len],
        }
    }

    /// Room for `n` more bytes. Lent memory is as long as the longest reply the kernel asked for.
    fn room(&mut self, n: usize) -> &mut [u8] {
        let (from, to) = (self.len, self.len + n);
        if self.lent.is_none() && self.own.len() < to {
            self.own.resize(to.next_power_of_two(), 0);
        }
        &mut self.memory()[from..to]
    }

    pub fn push<T: Pod>(&mut self, value: &T) {
        self.extend(pod_bytes(value));
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// At most `n` more bytes, made by `fill`, which says how many they are, or fails.
    pub fn fill<E>(
        &mut self,
        n: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let made = fill(self.room(n))?;
        self.len += made.min(n);
        Ok(made)
    }
}
