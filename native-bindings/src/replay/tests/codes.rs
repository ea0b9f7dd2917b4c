//! Codes of the target's files: what they must not outlive.

use super::journal::{Head, Journal, UUID};
use super::kills::replay;
use super::scan::BASELINE;
use super::world::everywhere;
use crate::codes::Code;
use crate::record::{seal, Oid, Op, RecordView, SEGMENT_BYTES};
use crate::replay::{ReplayOptions, Replayer, Start, BASELINE_AWAITED};
use std::path::Path;
use std::time::Duration;

const SEGMENTS: u64 = 4;

#[test]
fn a_file_made_anew_has_no_codes_of_the_one_before() {
    everywhere(|world| {
        let mut source = world.chaos(1).source;
        source.start_journal();
        let name = Path::new("made-anew");
        source.create(name, libc::S_IFREG | 0o644, 0, (0, 0, 0o022), b"").unwrap();
        let (fd, oid) = source.open(name).unwrap();
        let content = vec![0x43; (SEGMENTS * SEGMENT_BYTES) as usize];
        source.write(&fd, oid, 0, &content, false).unwrap();
        replay(world, &source.journal.frames(10, 1 << 20));
        let options = ReplayOptions::from_base(world.b(), UUID, world.state());
        let mut replayer = Replayer::open(options.clone()).unwrap();
        while replayer.compute_codes(Duration::from_secs(1)).unwrap().codes_left {}
        replayer.close(false).unwrap();
        // From before the file was made, once more: it goes, and is made again, with a hole this time.
        let root = source.known(Path::new(""));
        let mut again = Journal::default();
        let bracket = |journal: &mut Journal, op| {
            journal.add(Head::new(op, Oid::NONE), |e| {
                e.u8(BASELINE);
            });
        };
        bracket(&mut again, Op::ScanBegin);
        again.add(Head::new(Op::ImageDir, root), |e| {
            e.u8(3).name(b"").name(b"").payload().u32(0);
        });
        bracket(&mut again, Op::ScanEnd);
        for record in &source.journal.records {
            let op = RecordView::parse(record).unwrap().op();
            if op != Op::Write {
                let (mut copy, seq) = (record.clone(), again.records.len() as u64 + 1);
                seal(&mut copy, seq, seq * 1000);
                again.records.push(copy);
            }
        }
        again.add(Head::new(Op::Write, oid), |e| {
            e.u64((SEGMENTS - 1) * SEGMENT_BYTES).payload().raw(b"C");
        });
        bracket(&mut again, Op::ScanBegin);
        again.add(Head::new(Op::Codes, oid), |e| {
            e.u64(0).u64(SEGMENTS * SEGMENT_BYTES).payload();
            for _ in 0..SEGMENTS {
                e.raw(&Code::of(&content[..SEGMENT_BYTES as usize]).bytes());
            }
        });
        bracket(&mut again, Op::ScanEnd);
        let start = Start { scans: BASELINE_AWAITED, ..Start::default() };
        let mut replayer =
            Replayer::open(ReplayOptions { start, restart: true, ..options }).unwrap();
        for frame in again.frames(100, 1 << 20) {
            replayer.apply_frame(&frame).unwrap();
        }
        let needs = replayer.needs().unwrap();
        assert_eq!(needs, [(oid, (0, SEGMENTS * SEGMENT_BYTES))]);
    });
}
