//! Writes records into memory that somebody else owns (a slot of the capture ring, a frame).

use super::{Header, Oid, Time, OP_AT, RECORD_HEADER};

/// Writes one record front to back: header, fields, payload. Nothing is allocated.
///
/// The buffer must be long enough for the record (`record_len`); writing past it panics, which the
/// callers exclude by reserving `RECORD_BYTES_MAX`.
pub struct Encoder<'a> {
    buf: &'a mut [u8],
    at: usize,
    fields_end: Option<usize>,
}

impl<'a> Encoder<'a> {
    /// Starts a record; the checksum is wrong until `seal`.
    ///
    /// Writing the same record again with more of it known (an intent that becomes a fact) changes
    /// no byte that was right before, so a crash in between leaves a readable intent.
    pub fn new(buf: &'a mut [u8], header: &Header) -> Self {
        put_header(buf, header);
        Self { buf, at: RECORD_HEADER, fields_end: None }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.put(&[v])
    }

    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.put(&v.to_le_bytes())
    }

    pub fn oid(&mut self, oid: Oid) -> &mut Self {
        self.u64(oid.ino).u64(oid.gen)
    }

    pub fn time(&mut self, t: Time) -> &mut Self {
        self.put(&t.sec.to_le_bytes()).u32(t.nsec)
    }

    /// A file name: u16 length and bytes. Names longer than 65535 bytes do not exist.
    pub fn name(&mut self, name: &[u8]) -> &mut Self {
        self.u16(name.len() as u16).put(name)
    }

    /// Bytes without a length, for fields that have a fixed one.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.put(bytes)
    }

    /// Ends the fields; what follows is payload.
    pub fn payload(&mut self) -> &mut Self {
        self.fields_end = Some(self.at);
        self
    }

    /// Says that `len` bytes of payload are already in place behind what was written.
    pub fn payload_in_place(&mut self, len: usize) -> &mut Self {
        self.payload();
        self.at += len;
        self
    }

    /// Completes lengths and padding; returns the record's length.
    pub fn finish(&mut self) -> usize {
        let fields_end = self.fields_end.unwrap_or(self.at);
        let fields = (fields_end - RECORD_HEADER) as u16;
        let payload = (self.at - fields_end) as u32;
        let len = (self.at + 7) & !7;
        self.buf[self.at..len].fill(0);
        self.buf[0..4].copy_from_slice(&(len as u32).to_le_bytes());
        self.buf[26..28].copy_from_slice(&fields.to_le_bytes());
        self.buf[28..32].copy_from_slice(&payload.to_le_bytes());
        len
    }
}

fn put_header(buf: &mut [u8], h: &Header) {
    buf[8..16].copy_from_slice(&h.seq.to_le_bytes());
    buf[16..24].copy_from_slice(&h.clock.to_le_bytes());
    buf[OP_AT] = h.op as u8;
    buf[25] = h.flags;
    buf[32..36].copy_from_slice(&h.uid.to_le_bytes());
    buf[36..40].copy_from_slice(&h.gid.to_le_bytes());
    buf[40..44].copy_from_slice(&h.pid.to_le_bytes());
    buf[44..48].fill(0);
    buf[48..64].copy_from_slice(&h.comm);
    buf[64..72].copy_from_slice(&h.oid.ino.to_le_bytes());
    buf[72..80].copy_from_slice(&h.oid.gen.to_le_bytes());
    buf[80..88].copy_from_slice(&h.time.sec.to_le_bytes());
    buf[88..92].copy_from_slice(&h.time.nsec.to_le_bytes());
    buf[92..96].copy_from_slice(&h.mode.to_le_bytes());
}

/// Fills in seq, clock and checksum of a finished record: its last step.
pub fn seal(record: &mut [u8], seq: u64, clock: u64) {
    record[8..16].copy_from_slice(&seq.to_le_bytes());
    record[16..24].copy_from_slice(&clock.to_le_bytes());
    let crc = crc32c::crc32c(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The crc32c of a whole sealed record, made from the checksum in it: a frame of one large record needs no
/// second pass over it.
pub fn crc_of_sealed(record: &[u8]) -> u32 {
    let rest = u32::from_le_bytes([record[4], record[5], record[6], record[7]]);
    crc32c::crc32c_combine(crc32c::crc32c(&record[..8]), rest, record.len() - 8)
}
