//! Records of TLS 1.3 after the handshake (RFC 8446, section 5.2): each direction is a key, an IV and a
//! number that counts. rustls makes the keys; encrypting here, straight from and to the memory of
//! JavaScript, spares two copies and an allocation of each record, and a lock between the directions.
//!
//! Invariant: no number is used twice with a key. It only rises, and the key is changed long before it ends.

use super::error::LinkError;
use aws_lc_rs::aead::{
    Aad, Algorithm, LessSafeKey, Nonce, UnboundKey, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305,
};
use rustls::ConnectionTrafficSecrets as Secrets;

/// Most plain text of a record.
pub const PLAIN_MAX: usize = 1 << 14;
/// Longest record that a peer may send: its type, padding and tag take 256 bytes at most.
pub const RECORD_MAX: usize = HEADER + PLAIN_MAX + 256;
/// What a record of ours has beside its plain text.
pub const OVERHEAD: usize = HEADER + 1 + TAG;
/// Records under one key; AES-GCM is good for 2^24.5 of full length (RFC 8446, section 5.5).
pub const REKEY_RECORDS: u64 = 1 << 23;
const HEADER: usize = 5;
const TAG: usize = 16;
/// What encrypted records say they are, and the version they say they have.
const OUTER: u8 = 23;
const VERSION: [u8; 2] = [3, 3];

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Alert,
    Handshake,
    Data,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }

    fn of(byte: u8) -> Result<Self, LinkError> {
        match byte {
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::Data),
            _ => Err(LinkError::tls(format!("the peer sent a record of type {byte}"))),
        }
    }
}

/// The key of one direction.
pub struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    number: u64,
}

impl Direction {
    /// As rustls gives them: the number of the next record, and the secrets.
    pub fn new((number, secrets): (u64, Secrets)) -> Result<Self, LinkError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Secrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(LinkError::tls("a cipher that is not known here")),
        };
        let iv = iv.as_ref().try_into().map_err(|_| LinkError::tls("an IV of another length"))?;
        let key = UnboundKey::new(algorithm, key.as_ref());
        let key = key.map_err(|_| LinkError::tls("a key of another length"))?;
        Ok(Self { key: LessSafeKey::new(key), iv, number })
    }

    /// Records so far.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn nonce(&mut self) -> Result<Nonce, LinkError> {
        let mut nonce = self.iv;
        for (byte, counted) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= counted;
        }
        let next = self.number.checked_add(1);
        self.number = next.ok_or_else(|| LinkError::tls("too many records"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Writes one record with all of `plain`, `PLAIN_MAX` at most, to the beginning of `out`; its length.
    pub fn seal(&mut self, kind: Kind, plain: &[u8], out: &mut [u8]) -> Result<usize, LinkError> {
        let header = header(plain.len());
        let (head, rest) = out[..plain.len() + OVERHEAD].split_at_mut(HEADER);
        head.copy_from_slice(&header);
        let (cipher, end) = rest.split_at_mut(plain.len());
        let nonce = self.nonce()?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(header), plain, cipher, &[kind.byte()], end)
            .map_err(|_| LinkError::tls("a record could not be encrypted"))?;
        Ok(plain.len() + OVERHEAD)
    }

    /// The same with `len` bytes that `fill` writes to where they are encrypted.
    pub fn seal_filled(
        &mut self,
        len: usize,
        out: &mut [u8],
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<usize, LinkError> {
        let header = header(len);
        out[..HEADER].copy_from_slice(&header);
        let (plain, tag) = out[HEADER..len + OVERHEAD].split_at_mut(len + 1);
        fill(&mut plain[..len]);
        plain[len] = Kind::Data.byte();
        let nonce = self.nonce()?;
        let made = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), plain);
        let made = made.map_err(|_| LinkError::tls("a record could not be encrypted"))?;
        tag.copy_from_slice(made.as_ref());
        Ok(len + OVERHEAD)
    }

    /// Decrypts a record to `out`, which is `inner_len` bytes; what it holds, and how much.
    pub fn open_to(&mut self, record: &[u8], out: &mut [u8]) -> Result<(Kind, usize), LinkError> {
        let (head, rest) = record.split_at(HEADER);
        let (cipher, tag) = rest.split_at(rest.len() - TAG);
        let nonce = self.nonce()?;
        let aad = Aad::from(head);
        self.key.open_separate_gather(nonce, aad, cipher, tag, out).map_err(|_| forged())?;
        unpadded(out)
    }

    /// Decrypts a record where it is: its plain text is after the header then.
    pub fn open_here<'a>(&mut self, record: &'a mut [u8]) -> Result<(Kind, &'a [u8]), LinkError> {
        let (head, rest) = record.split_at_mut(HEADER);
        let nonce = self.nonce()?;
        let inner = self.key.open_in_place(nonce, Aad::from(head), rest).map_err(|_| forged())?;
        let (kind, len) = unpadded(inner)?;
        Ok((kind, &inner[..len]))
    }
}

fn forged() -> LinkError {
    LinkError::tls("a record was damaged on its way")
}

fn header(plain: usize) -> [u8; HEADER] {
    let len = (plain + 1 + TAG) as u16;
    let [high, low] = len.to_be_bytes();
    [OUTER, VERSION[0], VERSION[1], high, low]
}

/// The type stands behind the plain text, and zeros may follow it.
fn unpadded(inner: &[u8]) -> Result<(Kind, usize), LinkError> {
    let at = inner.iter().rposition(|&byte| byte != 0);
    let at = at.ok_or_else(|| LinkError::tls("the peer sent a record without a type"))?;
    if at > PLAIN_MAX {
        return Err(LinkError::tls("the peer sent too long a record"));
    }
    Ok((Kind::of(inner[at])?, at))
}

/// Length of the record at the beginning of `bytes`; None when it is not all there.
pub fn whole(bytes: &[u8]) -> Result<Option<usize>, LinkError> {
    let Some(&[outer, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if outer != OUTER {
        return Err(LinkError::tls(format!("the peer sent a record of type {outer} in the clear")));
    }
    if !(HEADER + TAG + 1..=RECORD_MAX).contains(&len) {
        return Err(LinkError::tls(format!("the peer sent a record of {len} bytes")));
    }
    Ok((bytes.len() >= len).then_some(len))
}

/// Plain text, type and padding of a record of `len` bytes.
pub fn inner_len(len: usize) -> usize {
    len - HEADER - TAG
}

/// Where the plain text of a record begins that was opened where it is.
pub const PLAIN_AT: usize = HEADER;
