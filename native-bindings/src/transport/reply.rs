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
pub struct Output {
    bytes: Vec<u8>,
}

impl Output {
    pub fn with_capacity(n: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(n),
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn push<T: Pod>(&mut self, value: &T) {
        self.bytes.extend_from_slice(pod_bytes(value));
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn truncate(&mut self, n: usize) {
        self.bytes.truncate(n);
    }

    /// `n` more bytes filled by `fill`, which says how many it made, or fails.
    pub fn fill<E>(
        &mut self,
        n: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let at = self.bytes.len();
        self.bytes.reserve(n);
        // SAFETY: the capacity is there; only bytes that `fill` made become part of the vector.
        let spare = unsafe {
            let p = self.bytes.as_mut_ptr().add(at);
            std::slice::from_raw_parts_mut(p, n)
        };
        let made = fill(spare)?;
        debug_assert!(made <= n);
        // SAFETY: `made` bytes behind `at` were written.
        unsafe { self.bytes.set_len(at + made) };
        Ok(made)
    }
}
