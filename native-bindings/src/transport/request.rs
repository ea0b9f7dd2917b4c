//! One request of the kernel, wherever its bytes came from.

use super::abi::{BatchForgetIn, ForgetOne, InHeader, Pod};
use crate::interceptor::errno::{Errno, Res};

/// A request: header, fixed argument, and the rest (names, xattr value, data to write).
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub header: InHeader,
    pub fixed: &'a [u8],
    pub rest: &'a [u8],
    /// The data of a WRITE stands where the capture slot's payload belongs: no copy is needed.
    pub in_place: bool,
}

/// Reads a structure from the start of `bytes`.
pub fn read_pod<T: Pod>(bytes: &[u8]) -> Res<T> {
    if bytes.len() < std::mem::size_of::<T>() {
        return Err(Errno(libc::EIO));
    }
    // SAFETY: T is plain data and the length was checked; the read is unaligned.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// The bytes of a structure.
pub fn pod_bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: T is plain data without padding.
    unsafe { std::slice::from_raw_parts((value as *const T).cast(), std::mem::size_of::<T>()) }
}

impl<'a> Request<'a> {
    pub fn arg<T: Pod>(&self) -> Res<T> {
        read_pod(self.fixed)
    }

    /// The `n`th name of the rest (names end with a zero byte), and what follows it.
    fn split(bytes: &'a [u8]) -> Res<(&'a [u8], &'a [u8])> {
        let end = bytes.iter().position(|b| *b == 0).ok_or(Errno(libc::EIO))?;
        Ok((&bytes[..end], &bytes[end + 1..]))
    }

    pub fn name(&self) -> Res<&'a [u8]> {
        Ok(Self::split(self.rest)?.0)
    }

    pub fn two_names(&self) -> Res<(&'a [u8], &'a [u8])> {
        let (a, rest) = Self::split(self.rest)?;
        Ok((a, Self::split(rest)?.0))
    }

    /// What a BATCH_FORGET names.
    pub fn forgets(&self) -> Res<impl Iterator<Item = ForgetOne> + 'a> {
        let arg: BatchForgetIn = self.arg()?;
        let all = self.rest.chunks_exact(std::mem::size_of::<ForgetOne>());
        Ok(all.take(arg.count as usize).flat_map(read_pod))
    }

    /// A name and the bytes behind it.
    pub fn name_and_rest(&self) -> Res<(&'a [u8], &'a [u8])> {
        Self::split(self.rest)
    }
}
