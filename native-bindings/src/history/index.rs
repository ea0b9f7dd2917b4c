//! Finding the first before-image of a place after a seq.
//!
//! New entries are found in memory until a thread has put them into an LMDB environment, in the order of
//! the log. The environment is not flushed: what it lacks after a death of the process comes from the log
//! again, and after a death of the machine all of it does.
//!
//! Invariant: an entry leaves memory only when the environment has it; so whoever looks in memory first,
//! and then begins a read transaction, finds it.

use super::limits::{INDEX_MAP_BYTES, INDEX_READERS};
use super::log::{Entry, Log};
use super::place::{key, oid_of, split};
use crate::interceptor::errno::{Errno, Res};
use crate::record::Oid;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

const SHARDS: usize = 64;
/// Key of the place in the log up to which the environment has everything: segment, offset.
const CURSOR: &[u8] = b"cursor";

type Fresh = BTreeMap<Vec<u8>, Vec<Entry>>;
/// A key of the environment, and where the log has its entry.
pub type Stored = (Vec<u8>, [u8; 8]);

pub struct Index {
    shards: Vec<Mutex<Fresh>>,
    env: Env,
    keys: Database<Bytes, Bytes>,
    meta: Database<Bytes, Bytes>,
}

fn errno(e: heed::Error) -> Errno {
    match e {
        heed::Error::Io(e) => e.into(),
        heed::Error::Mdb(heed::MdbError::MapFull) => Errno(libc::ENOSPC),
        _ => Errno(libc::EIO),
    }
}

impl Index {
    pub fn open(directory: &Path) -> Res<Self> {
        std::fs::create_dir_all(directory)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(INDEX_MAP_BYTES).max_dbs(2).max_readers(INDEX_READERS);
        // SAFETY: the environment is used by this process alone (the volume's lock); without syncs a
        // death of the machine may damage it, after which it is made anew.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::NO_READ_AHEAD);
            options.open(directory).map_err(errno)?
        };
        let mut txn = env.write_txn().map_err(errno)?;
        let keys = env.create_database(&mut txn, Some("keys")).map_err(errno)?;
        let meta = env.create_database(&mut txn, Some("meta")).map_err(errno)?;
        txn.commit().map_err(errno)?;
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Ok(Self { shards, env, keys, meta })
    }

    fn shard_of(&self, oid: Oid) -> &Mutex<Fresh> {
        &self.shards[(oid.ino ^ oid.gen >> 17) as usize % SHARDS]
    }

    fn shard(&self, place: &[u8]) -> &Mutex<Fresh> {
        self.shard_of(oid_of(place).unwrap_or(Oid::NONE))
    }

    /// Makes an entry found.
    pub fn add(&self, entry: &Entry) {
        let place = entry.place();
        let mut shard = self.shard(place).lock();
        match shard.get_mut(place) {
            Some(entries) => entries.push(entry.clone()),
            None => {
                shard.insert(place.to_vec(), vec![entry.clone()]);
            }
        }
    }

    /// The first entry of a place whose change came after `seq`; `is_after` says so of those in memory.
    pub fn first_after(
        &self,
        log: &Log,
        place: &[u8],
        seq: u64,
        is_after: fn(&Entry, u64) -> bool,
    ) -> Res<Option<Entry>> {
        let fresh = {
            let shard = self.shard(place).lock();
            shard.get(place).and_then(|all| all.iter().find(|e| is_after(e, seq)).cloned())
        };
        let txn = self.env.read_txn().map_err(errno)?;
        let from = key(place, seq.saturating_add(1));
        let found = self.keys.get_greater_than_or_equal_to(&txn, &from).map_err(errno)?;
        let stored = match found {
            Some((key, location)) if split(key).is_some_and(|(p, _)| p == place) => {
                log.entry_at(location)
            }
            _ => None,
        };
        Ok(stored.or(fresh))
    }

    /// The first entry after `seq`, which has settled, of every place in `[from, to)`, all of one object, in
    /// order.
    pub fn each_after(
        &self,
        log: &Log,
        (from, to): (&[u8], &[u8]),
        seq: u64,
    ) -> Res<BTreeMap<Vec<u8>, Entry>> {
        let mut found = BTreeMap::new();
        {
            let shard = self.shard(from).lock();
            let range = (Bound::Included(from), Bound::Excluded(to));
            for (place, entries) in shard.range::<[u8], _>(range) {
                if let Some(entry) = entries.iter().find(|e| e.is_after_settled(seq)) {
                    found.insert(place.clone(), entry.clone());
                }
            }
        }
        let txn = self.env.read_txn().map_err(errno)?;
        let mut at = from.to_vec();
        while let Some((stored, location)) =
            self.keys.get_greater_than_or_equal_to(&txn, &at).map_err(errno)?
        {
            let Some((place, stamp)) = split(stored) else { break };
            if place >= to {
                break;
            }
            if stamp <= seq {
                at = key(place, seq.saturating_add(1));
                continue;
            }
            if let Some(entry) = log.entry_at(location) {
                found.insert(place.to_vec(), entry);
            }
            at = key(place, u64::MAX);
            at.push(0);
        }
        Ok(found)
    }

    /// All entries of a place, in order of their seqs.
    pub fn all_of(&self, log: &Log, place: &[u8]) -> Res<Vec<(u64, Entry)>> {
        let mut found = BTreeMap::new();
        if let Some(entries) = self.shard(place).lock().get(place) {
            found.extend(entries.iter().map(|e| (e.stamp(), e.clone())));
        }
        found.remove(&0);
        let txn = self.env.read_txn().map_err(errno)?;
        let range = (key(place, 0), key(place, u64::MAX));
        let bounds = (Bound::Included(&range.0[..]), Bound::Included(&range.1[..]));
        for stored in self.keys.range(&txn, &bounds).map_err(errno)? {
            let (stored, location) = stored.map_err(errno)?;
            let Some((found_place, stamp)) = split(stored) else { continue };
            if found_place == place {
                if let Some(entry) = log.entry_at(location) {
                    found.insert(stamp, entry);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Is there an entry of exactly this change?
    pub fn has(&self, place: &[u8], seq: u64) -> Res<bool> {
        if let Some(entries) = self.shard(place).lock().get(place) {
            if entries.iter().any(|e| e.stamp() == seq) {
                return Ok(true);
            }
        }
        let txn = self.env.read_txn().map_err(errno)?;
        Ok(self.keys.get(&txn, &key(place, seq)).map_err(errno)?.is_some())
    }

    /// Is anything under way whose seq may be `seq` or below?
    pub fn is_settled(&self, seq: u64) -> bool {
        self.shards.iter().all(|shard| {
            let shard = shard.lock();
            let under_way = |e: &Entry| e.stamp() == 0 && e.low() <= seq;
            !shard.values().any(|entries| entries.iter().any(under_way))
        })
    }

    /// Up to where the environment has the log: segment and offset.
    pub fn cursor(&self) -> Res<(u32, u32)> {
        let txn = self.env.read_txn().map_err(errno)?;
        let stored = self.meta.get(&txn, CURSOR).map_err(errno)?;
        let word = |at: usize| {
            let bytes = stored.and_then(|b| b.get(at..at + 4)).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        Ok((word(0), word(4)))
    }

    /// Takes over entries, stamped and in the order of the log; `end` is where the next one begins.
    pub fn take_over(&self, entries: &[Entry], end: [u8; 8]) -> Res<()> {
        let mut txn = self.env.write_txn().map_err(errno)?;
        for entry in entries.iter().filter(|e| e.is_complete()) {
            let key = key(entry.place(), entry.stamp());
            // The first one is the state before the change, however often it was begun.
            match self.keys.put_with_flags(
                &mut txn,
                heed::PutFlags::NO_OVERWRITE,
                &key,
                &entry.location(),
            ) {
                Ok(()) | Err(heed::Error::Mdb(heed::MdbError::KeyExist)) => {}
                Err(e) => return Err(errno(e)),
            }
        }
        self.meta.put(&mut txn, CURSOR, &end).map_err(errno)?;
        txn.commit().map_err(errno)?;
        entries.iter().filter(|e| e.is_complete()).for_each(|e| self.drop_one(e));
        Ok(())
    }

    /// Writes the environment to the disk.
    pub fn sync(&self) -> Res<()> {
        self.env.force_sync().map_err(errno)
    }

    fn drop_one(&self, entry: &Entry) {
        let place = entry.place();
        let mut shard = self.shard(place).lock();
        if let Some(all) = shard.get_mut(place) {
            let same = |e: &Entry| e.at == entry.at && e.segment.number == entry.segment.number;
            all.retain(|e| !same(e));
            if all.is_empty() {
                shard.remove(place);
            }
        }
    }

    /// Lets go of entries whose segment goes; returns what the environment has to forget of them.
    pub fn drop_from_memory(&self, entries: &[Entry]) -> Vec<Stored> {
        let complete = entries.iter().filter(|e| e.is_complete());
        complete
            .map(|entry| {
                self.drop_one(entry);
                (key(entry.place(), entry.stamp()), entry.location())
            })
            .collect()
    }

    /// Forgets entries whose segment has gone.
    pub fn forget(&self, gone: &[Stored]) -> Res<()> {
        let mut txn = self.env.write_txn().map_err(errno)?;
        for (key, location) in gone {
            let found = self.keys.get(&txn, key).map_err(errno)?;
            if found.is_some_and(|found| found == location) {
                self.keys.delete(&mut txn, key).map_err(errno)?;
            }
        }
        txn.commit().map_err(errno)
    }
}
