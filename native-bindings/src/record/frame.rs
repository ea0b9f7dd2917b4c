//! Frames: runs of records with a chained header.

use super::decode::{u32_at, u64_at, DecodeError, Records};
use super::{FORMAT_VERSION, FRAME_BODY_BYTES_MAX, FRAME_HEADER};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = *b"HFJF";
const AT_FLAGS: usize = 5;
const AT_HEADER_LEN: usize = 6;
const HEADER_LEN: [u8; 2] = (FRAME_HEADER as u16).to_le_bytes();

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub uuid: [u8; 16],
    pub epoch: u32,
    pub records: u32,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Clock of the last record.
    pub clock: u64,
    pub prev_chain: [u8; 8],
}

/// The chain value of a frame header: SHA-256 over its first 72 bytes, the first 8 of it.
pub fn chain_of(header: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(&header[..72]);
    let mut chain = [0; 8];
    chain.copy_from_slice(&digest[..8]);
    chain
}

/// Writes the header in front of a body that is in place; returns the chain value.
///
/// `frame` is header space and body together.
pub fn seal_frame(frame: &mut [u8], h: &FrameHeader) -> [u8; 8] {
    let crc = crc32c::crc32c(&frame[FRAME_HEADER..]);
    seal_frame_with(frame, h, crc)
}

/// As `seal_frame`, when the crc32c of the body is known.
pub fn seal_frame_with(frame: &mut [u8], h: &FrameHeader, crc: u32) -> [u8; 8] {
    let (header, body) = frame.split_at_mut(FRAME_HEADER);
    header.fill(0);
    header[0..4].copy_from_slice(&MAGIC);
    header[4] = FORMAT_VERSION;
    header[AT_HEADER_LEN..8].copy_from_slice(&HEADER_LEN);
    header[8..24].copy_from_slice(&h.uuid);
    header[24..28].copy_from_slice(&h.epoch.to_le_bytes());
    header[28..32].copy_from_slice(&h.records.to_le_bytes());
    header[32..40].copy_from_slice(&h.first_seq.to_le_bytes());
    header[40..48].copy_from_slice(&h.last_seq.to_le_bytes());
    header[48..52].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[52..56].copy_from_slice(&crc.to_le_bytes());
    header[56..64].copy_from_slice(&h.clock.to_le_bytes());
    header[64..72].copy_from_slice(&h.prev_chain);
    let chain = chain_of(header);
    header[72..80].copy_from_slice(&chain);
    chain
}

/// A frame whose header was checked.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    pub header: FrameHeader,
    pub chain: [u8; 8],
    pub body: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// Reads a frame and checks magic, version, chain value, body length and body checksum.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() < FRAME_HEADER {
            return Err(DecodeError::Truncated { need: FRAME_HEADER, have: bytes.len() });
        }
        if bytes[0..4] != MAGIC {
            return Err(DecodeError::BadMagic);
        }
        if bytes[4] != FORMAT_VERSION {
            return Err(DecodeError::BadVersion(bytes[4]));
        }
        let chain = chain_of(bytes);
        if bytes[72..80] != chain {
            return Err(DecodeError::BadChain);
        }
        let len = u32_at(bytes, 48) as usize;
        if len > FRAME_BODY_BYTES_MAX {
            return Err(DecodeError::BadLength(len));
        }
        if bytes.len() != FRAME_HEADER + len {
            return Err(DecodeError::Truncated { need: FRAME_HEADER + len, have: bytes.len() });
        }
        let body = &bytes[FRAME_HEADER..];
        if crc32c::crc32c(body) != u32_at(bytes, 52) {
            return Err(DecodeError::BadFrame("checksum of the body"));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[8..24]);
        let mut prev_chain = [0; 8];
        prev_chain.copy_from_slice(&bytes[64..72]);
        let header = FrameHeader {
            uuid,
            epoch: u32_at(bytes, 24),
            records: u32_at(bytes, 28),
            first_seq: u64_at(bytes, 32),
            last_seq: u64_at(bytes, 40),
            clock: u64_at(bytes, 56),
            prev_chain,
        };
        Ok(Self { header, chain, body })
    }

    pub fn records(&self) -> Records<'a> {
        Records::new(self.body)
    }

    /// Whether the frame is all that its own bytes can prove: so are all its records, and no seq is out
    /// of its place.
    pub fn is_sound(bytes: &'a [u8]) -> bool {
        let Ok(frame) = Self::parse(bytes) else {
            return false;
        };
        let h = &frame.header;
        let (mut count, mut next) = (0u32, h.first_seq);
        for record in frame.records() {
            let Ok(record) = record else {
                return false;
            };
            let seq = record.seq();
            if seq < next || seq > h.last_seq || !record.is_sound() {
                return false;
            }
            let Some(after) = seq.checked_add(1) else {
                return false;
            };
            (count, next) = (count + 1, after);
        }
        count == h.records && bytes[AT_FLAGS] == 0 && bytes[AT_HEADER_LEN..][..2] == HEADER_LEN
    }
}
