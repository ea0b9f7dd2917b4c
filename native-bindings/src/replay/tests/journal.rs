//! A journal made by tests: records, packed into chained frames.

use crate::record::{
    seal, seal_frame, Encoder, FrameHeader, Header, Oid, Op, Time, FRAME_HEADER, RECORD_BYTES_MAX,
};

pub const UUID: [u8; 16] = *b"replay-test-uuid";

/// What stands in front of a record's fields.
#[derive(Clone, Copy)]
pub struct Head {
    pub op: Op,
    pub oid: Oid,
    pub time: Time,
    pub mode: u32,
    pub flags: u8,
}

impl Head {
    pub fn new(op: Op, oid: Oid) -> Self {
        Self { op, oid, time: Time::UNKNOWN, mode: 0, flags: 0 }
    }
}

#[derive(Default)]
pub struct Journal {
    /// Sealed records, by seq (index + 1).
    pub records: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    /// Frames end here.
    cuts: Vec<usize>,
}

impl Journal {
    pub fn add(&mut self, head: Head, fill: impl FnOnce(&mut Encoder)) -> u64 {
        self.scratch.resize(RECORD_BYTES_MAX, 0);
        let header = Header {
            seq: 0,
            clock: 0,
            op: head.op,
            flags: head.flags,
            uid: 0,
            gid: 0,
            pid: 1,
            comm: *b"test\0\0\0\0\0\0\0\0\0\0\0\0",
            oid: head.oid,
            time: head.time,
            mode: head.mode,
        };
        let len = {
            let mut e = Encoder::new(&mut self.scratch, &header);
            fill(&mut e);
            e.finish()
        };
        let mut record = self.scratch[..len].to_vec();
        let seq = self.records.len() as u64 + 1;
        seal(&mut record, seq, seq * 1000);
        self.records.push(record);
        seq
    }

    /// The records before, so that seqs and chain go on.
    pub fn continue_from(&mut self, other: &Journal) {
        self.records = other.records.clone();
        self.cuts = other.cuts.clone();
    }

    /// What is there now has been given out in frames.
    pub fn cut(&mut self) {
        self.cuts.push(self.records.len());
    }

    /// Frames of at most `records` records and `bytes` bytes each.
    pub fn frames(&self, records: usize, bytes: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut chain = [0; 8];
        let mut at = 0;
        while at < self.records.len() {
            let mut frame = vec![0; FRAME_HEADER];
            let first = at;
            while at < self.records.len()
                && at - first < records
                && (at == first || !self.cuts.contains(&at))
                && (at == first || frame.len() + self.records[at].len() <= bytes)
            {
                frame.extend_from_slice(&self.records[at]);
                at += 1;
            }
            let header = FrameHeader {
                uuid: UUID,
                epoch: 1,
                records: (at - first) as u32,
                first_seq: first as u64 + 1,
                last_seq: at as u64,
                clock: at as u64 * 1000,
                prev_chain: chain,
            };
            chain = seal_frame(&mut frame, &header);
            out.push(frame);
        }
        out
    }
}
