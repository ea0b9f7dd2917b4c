//! Intents kept aside while they are being recovered.
//!
//! Recovery reads the intents out of the ring and captures their objects anew; meanwhile the ring's
//! chunks are reused. If the process dies then, the intents must still be there: they are kept in a file
//! beside the ring until the images are captured. Written once, taken into place by rename.

use super::recover::Intent;
use super::writer::StoredHandle;
use crate::record::RECORD_BYTES_MAX;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"HFRI\x01\0\0\0";

/// Where the intents of the ring at `ring` are kept.
pub(super) fn path_beside(ring: &Path) -> PathBuf {
    ring.with_extension("intents")
}

/// Keeps the intents. Errors: ENOSPC when tmpfs is full.
pub(super) fn save(path: &Path, intents: &[Intent]) -> io::Result<()> {
    let new = path.with_extension("intents.new");
    let mut bytes = MAGIC.to_vec();
    for intent in intents {
        for h in &intent.handles {
            bytes.extend_from_slice(&h.kind.to_le_bytes());
            bytes.extend_from_slice(&h.len.to_le_bytes());
            bytes.extend_from_slice(&h.bytes);
        }
        bytes.extend_from_slice(&(intent.record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&intent.record);
    }
    let written = fs::File::create(&new).and_then(|mut f| f.write_all(&bytes));
    written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// What was kept by a process that died while it recovered; empty when there is nothing.
pub(super) fn load(path: &Path) -> io::Result<Vec<Intent>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "kept intents are damaged");
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(bad)?;
    let mut intents = Vec::new();
    while !rest.is_empty() {
        let handles = [handle(&mut rest)?, handle(&mut rest)?];
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        if len > RECORD_BYTES_MAX || len > rest.len() {
            return Err(bad());
        }
        let (record, tail) = rest.split_at(len);
        intents.push(Intent { record: record.to_vec(), handles });
        rest = tail;
    }
    Ok(intents)
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rest.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn handle(rest: &mut &[u8]) -> io::Result<StoredHandle> {
    let kind = i32::from_le_bytes(take(rest)?);
    let len = u32::from_le_bytes(take(rest)?);
    Ok(StoredHandle { kind, len, bytes: take(rest)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_survive_their_file() {
        let dir = std::env::temp_dir().join(format!("holdfast-intents-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let path = path_beside(&dir.join("v.ring"));
        assert!(load(&path).expect("nothing kept").is_empty());
        let handles = [StoredHandle { kind: 7, len: 3, bytes: [9; 32] }, StoredHandle::default()];
        let intents = [vec![1; 120], Vec::new()].map(|record| Intent { record, handles });
        save(&path, &intents).expect("saved");
        let back = load(&path).expect("loaded");
        assert_eq!(back.len(), 2);
        assert_eq!(back[0].record, intents[0].record);
        assert_eq!(back[0].handles[0].bytes, [9; 32]);
        fs::write(&path, &MAGIC[..5]).expect("damaged");
        assert!(load(&path).is_err());
        fs::remove_dir_all(&dir).expect("removed");
    }
}
