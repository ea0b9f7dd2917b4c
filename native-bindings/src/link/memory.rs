//! Memory of JavaScript that was handed over.

/// A piece of it. Whoever hands it over keeps it, and leaves it alone, until it is answered for.
#[derive(Debug)]
pub struct Span {
    at: *mut u8,
    len: usize,
}

// SAFETY: an address and a length; whoever uses them has the promise of whoever has handed them over.
unsafe impl Send for Span {}

impl Span {
    /// # Safety
    /// The memory stays, and nobody else writes to it (nor reads it, where it is to be filled), until the
    /// event that answers for it, or `Closed`.
    pub unsafe fn new(at: *mut u8, len: usize) -> Self {
        Self { at, len }
    }

    /// # Safety
    /// As promised to `new`.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        std::slice::from_raw_parts_mut(self.at, self.len)
    }

    fn as_slice(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: as promised to `new`.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

/// Several pieces as one sequence of bytes, of which the beginning is used up.
pub struct Pieces {
    spans: std::vec::IntoIter<Span>,
    first: Option<Span>,
    /// Bytes of `first` that are used up.
    used: usize,
    left: usize,
}

impl Pieces {
    pub fn new(spans: Vec<Span>) -> Self {
        let left = spans.iter().map(|span| span.len).sum();
        Self { spans: spans.into_iter(), first: None, used: 0, left }
    }

    /// Bytes that are not used up.
    pub fn left(&self) -> usize {
        self.left
    }

    fn current(&mut self) -> &[u8] {
        while self.first.as_ref().is_none_or(|span| span.len == self.used) {
            self.used = 0;
            self.first = self.spans.next();
            if self.first.is_none() {
                return &[];
            }
        }
        self.first.as_ref().map_or(&[], |span| &span.as_slice()[self.used..])
    }

    /// The next `len` bytes, where they lie in one piece: `advance` uses them up.
    pub fn together(&mut self, len: usize) -> Option<&[u8]> {
        self.current().get(..len)
    }

    /// `len` bytes of what is `together` are used up.
    pub fn advance(&mut self, len: usize) {
        self.used += len;
        self.left -= len;
    }

    /// Copies and uses up as many as `out` has room for.
    pub fn copy_to(&mut self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() && self.left > 0 {
            let current = self.current();
            let len = current.len().min(out.len() - filled);
            out[filled..filled + len].copy_from_slice(&current[..len]);
            self.advance(len);
            filled += len;
        }
    }
}
