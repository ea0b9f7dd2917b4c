//! Applies frames: checks the whole frame first, then its records in order, then their times.

use super::compare::is_comparison;
use super::engine::Engine;
use super::error::{op_name, Done, Fault, ReplayCode, ReplayError};
use super::header::Place;
use super::limits::{AHEAD_SEQS_MAX, CHECKPOINT_BYTES, CHECKPOINT_INTERVAL, CHECKPOINT_RECORDS};
use super::objects::Obj;
use super::sys::Name;
use super::Position;
use crate::record::{valid, Fields, FrameView, ImageDir, ImagePayload, Oid, Op, RecordView, Time};

/// A record with its fields.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub view: RecordView<'a>,
    pub fields: Fields<'a>,
    pub oid: Oid,
    pub time: Time,
    pub mode: u32,
}

impl<'a> Record<'a> {
    fn read(view: RecordView<'a>) -> Done<Self> {
        Ok(Self {
            fields: view.decode()?,
            oid: view.oid(),
            time: view.time(),
            mode: view.mode(),
            view,
        })
    }
}

fn frame_error(code: ReplayCode, message: impl Into<String>) -> ReplayError {
    ReplayError::new(code, "frame", message)
}

impl Engine {
    pub fn position(&self) -> Position {
        let place = self.state.header.place();
        Position {
            applied_seq: place.seq,
            applied_chain: place.chain,
            records: place.records,
            bytes: place.bytes,
            objects: self.objects.len() as u64,
            scans: self.state.header.scans(),
            needs: self.lacking(),
            differences: self.comparison.count,
            verified: self.comparison.verified,
            codes_left: true,
        }
    }

    /// Applies the records of one frame; see `Replayer::apply_frame`.
    pub fn apply_frame(&mut self, bytes: &[u8]) -> Result<Position, ReplayError> {
        let frame = FrameView::parse(bytes).map_err(|e| ReplayError::of_decode(&e))?;
        if !self.continues(&frame)? {
            return Ok(self.position());
        }
        check_records(&frame)?;
        self.enter_frame(&frame)?;
        let mut applied = (0u64, 0u64);
        let mut views = frame.records().peekable();
        while let Some(view) = views.next() {
            let view = view.map_err(|e| ReplayError::of_decode(&e))?;
            self.written_next = match views.peek() {
                Some(Ok(next)) if next.op() == Op::ImageData => written_by(next),
                _ => (Oid::NONE, 0),
            };
            applied.0 += 1;
            applied.1 += view.bytes().len() as u64;
            let record = Record::read(view)
                .map_err(|f| ReplayError::of_fault(&f, view.seq(), op_name(view.op()), vec![]))?;
            if let Err(fault) = self.step(&record) {
                self.in_doubt = true;
                let (parent, name) = place_of(&record);
                let path = self.path_of(parent, name);
                let op = op_name(view.op());
                return Err(ReplayError::of_fault(&fault, view.seq(), op, path));
            }
        }
        self.leave_frame(&frame, applied).map_err(|fault| {
            self.in_doubt = true;
            ReplayError::of_fault(&fault, frame.header.last_seq, "times", Vec::new())
        })?;
        Ok(self.position())
    }

    /// Whether the frame is the next one; false when it was applied before.
    fn continues(&self, frame: &FrameView) -> Result<bool, ReplayError> {
        let h = &frame.header;
        if h.uuid != self.uuid {
            return Err(frame_error(
                ReplayCode::ForeignVolume,
                "the frame belongs to another volume",
            ));
        }
        let header = &self.state.header;
        let place = header.place();
        if place.seq != 0 || place.chain != [0; 8] {
            if h.last_seq <= place.seq {
                if h.last_seq == place.seq && frame.chain != place.chain {
                    return Err(frame_error(
                        ReplayCode::Fork,
                        format!("another frame ending at {} was applied", h.last_seq),
                    ));
                }
                return Ok(false);
            }
            if h.first_seq > place.seq + 1 {
                return Err(frame_error(
                    ReplayCode::Gap,
                    format!("applied up to {}, the frame starts at {}", place.seq, h.first_seq),
                ));
            }
            if h.first_seq <= place.seq || h.prev_chain != place.chain {
                return Err(frame_error(
                    ReplayCode::Fork,
                    format!("the frame at {} does not continue the one before", h.first_seq),
                ));
            }
        }
        let begun = header.effect_chain();
        if begun != [0; 8] && begun != place.chain && begun != frame.chain {
            return Err(frame_error(
                ReplayCode::Fork,
                format!("another frame at {} was begun", h.first_seq),
            ));
        }
        Ok(true)
    }

    fn enter_frame(&mut self, frame: &FrameView) -> Result<(), ReplayError> {
        let first = frame.header.first_seq;
        self.frame_last = frame.header.last_seq;
        self.past_of_frame();
        if self.state.header.place().seq == 0 {
            self.state.starts_after(first.saturating_sub(1));
        }
        if self.state.header.ceiling() == u64::MAX {
            self.state.header.set_ceiling(first + AHEAD_SEQS_MAX);
        }
        self.state.header.set_effect_chain(frame.chain);
        for (seq, oid, stamp) in std::mem::take(&mut self.dir_times) {
            if let Some(obj) = self.objects.find(oid).filter(|_| seq >= first) {
                self.touch_stamp(obj, stamp)
                    .map_err(|f| ReplayError::of_fault(&f, seq, "times", Vec::new()))?;
            }
        }
        Ok(())
    }

    /// One record: its effect unless it was made before, and its times.
    fn step(&mut self, record: &Record) -> Done {
        self.seq = record.view.seq();
        self.fds.next_turn();
        if self.seq > self.state.header.effect_seq() {
            self.end_redo_window()?;
            if self.seq > self.state.durable_seq() + AHEAD_SEQS_MAX {
                self.checkpoint_now()?;
            }
            self.past_of_record(record)?;
            match self.effect(record) {
                Err(f) if f.is(libc::EPERM) => self.effect_unsealed(record)?,
                Err(Fault::Stale) if self.forgives_unknown() => self.pass_over(record.oid)?,
                r => r?,
            }
            if self.in_doubt && !self.forgives_unknown() {
                self.purge_parked()?;
            }
            self.collect_times(record, true)?;
            self.state.header.set_effect_seq(self.seq);
            self.in_doubt = false;
            Ok(())
        } else {
            self.collect_times(record, false)
        }
    }

    /// Once more, with the objects' immutable and append-only flags lifted.
    fn effect_unsealed(&mut self, record: &Record) -> Done {
        let mut objs = Vec::new();
        let mut add = |found: Option<Obj>| objs.extend(found);
        add(self.objects.find(record.oid));
        match record.fields {
            Fields::Rename { old_parent, new_parent, replaced, .. } => {
                add(self.objects.find(old_parent));
                add(self.objects.find(new_parent));
                add(self.objects.find(replaced));
            }
            Fields::Tmpfile { parent, .. } => add(self.objects.find(parent)),
            _ => add(self.objects.find(place_of(record).0)),
        }
        // Parts of the effect may have happened before the refusal.
        self.in_doubt = true;
        self.unsealed(&objs, |engine| engine.effect(record))
    }

    fn effect(&mut self, r: &Record) -> Done {
        match r.fields {
            Fields::Bind { parent, name } => self.apply_bind(r, parent, name),
            Fields::Mknod(c) | Fields::Mkdir(c) | Fields::Symlink(c) => self.apply_create(r, &c),
            Fields::Link { parent, name, .. } => self.apply_link(r, parent, name),
            Fields::Unlink { parent, links, name, .. } => self.apply_unlink(r, parent, links, name),
            Fields::Rmdir { parent, name, .. } => self.apply_unlink(r, parent, 0, name),
            Fields::Rename { .. } => self.apply_rename(r),
            Fields::Tmpfile { .. } => self.apply_tmpfile(r),
            Fields::Write { offset } => self.apply_write(r, offset),
            Fields::Setattr { .. } => self.apply_setattr(r),
            // More of them than a comparison looks at.
            Fields::Setxattr { .. } if is_comparison(r) => Ok(()),
            Fields::Setxattr { name, .. } => self.apply_setxattr(r, name),
            Fields::Removexattr { name } => self.apply_removexattr(r, name),
            Fields::Fallocate { .. } => self.apply_fallocate(r),
            Fields::Copy { .. } => self.apply_copy(r),
            Fields::Setflags { flags } => self.apply_setflags(r, flags),
            Fields::Setxflags { fsxattr } => self.apply_setxflags(r, fsxattr),
            Fields::Gone => self.apply_gone(r),
            Fields::Marker { .. } => Ok(()),
            _ if !self.compares && (is_comparison(r) || r.view.op() == Op::Codes) => Ok(()),
            Fields::Image { .. } if is_comparison(r) => self.compare_image(r),
            Fields::ImageHole { offset, len } if is_comparison(r) => {
                self.compare_hole(r, offset, len)
            }
            Fields::ImageDir { range, after, up_to } if is_comparison(r) => {
                self.compare_dir(r, range, after, up_to)
            }
            Fields::Codes { offset, len } => self.apply_codes(r, offset, len),
            Fields::Image { .. } => self.apply_image(r),
            Fields::ImageData { offset } => self.apply_image_data(r, offset),
            Fields::ImageHole { offset, len } => self.apply_image_hole(r, offset, len),
            Fields::ImageLater { offset, len } => self.apply_image_later(r, offset, len),
            Fields::ImageDir { range, after, up_to } => {
                self.apply_image_dir(r, range, after, up_to)
            }
            Fields::ImageEntry { parent, present, name, .. } => {
                self.apply_image_entry(r, parent, present, name)
            }
            Fields::ScanBegin { kind } => self.apply_scan_begin(kind),
            Fields::ScanEnd { kind } => self.apply_scan_end(kind),
        }
    }

    fn touch_oid(&mut self, oid: Oid, time: Time) -> Done {
        match self.objects.find(oid) {
            Some(obj) => self.touch(obj, time),
            None => Ok(()),
        }
    }

    /// Defers the times that the record tells. `fresh`: its effect was made just now, and gave a new
    /// object that is no regular file its time already.
    fn collect_times(&mut self, r: &Record, fresh: bool) -> Done {
        if is_comparison(r) {
            return Ok(());
        }
        match r.fields {
            Fields::Mknod(c) | Fields::Mkdir(c) | Fields::Symlink(c) => {
                let regular = r.view.op() == Op::Mknod && is_regular(c.requested_mode);
                if regular || !fresh {
                    self.touch_oid(r.oid, r.time)?;
                }
                self.touch_oid(c.parent, c.pmtime)
            }
            Fields::Link { parent, pmtime, .. }
            | Fields::Unlink { parent, pmtime, .. }
            | Fields::Rmdir { parent, pmtime, .. }
            | Fields::ImageEntry { parent, pmtime, .. } => self.touch_oid(parent, pmtime),
            Fields::Rename { old_parent, old_pmtime, new_parent, new_pmtime, .. } => {
                // A directory that gets another parent may get another time by it.
                if old_parent != new_parent && r.mode & libc::S_IFMT == libc::S_IFDIR {
                    self.touch_oid(r.oid, r.time)?;
                }
                self.touch_oid(old_parent, old_pmtime)?;
                self.touch_oid(new_parent, new_pmtime)
            }
            Fields::Setattr { valid: v, mtime, .. } => {
                if v & (valid::SIZE | valid::MTIME) == 0 {
                    return Ok(());
                }
                let known = r.time.is_known() || v & valid::MTIME == 0;
                self.touch_oid(r.oid, if known { r.time } else { mtime })
            }
            Fields::Tmpfile { .. }
            | Fields::Write { .. }
            | Fields::Fallocate { .. }
            | Fields::Copy { .. }
            | Fields::Image { .. }
            | Fields::ImageData { .. }
            | Fields::ImageHole { .. }
            | Fields::ImageDir { .. } => self.touch_oid(r.oid, r.time),
            _ => Ok(()),
        }
    }

    /// The first record that no power loss can have brought to the disk before.
    fn end_redo_window(&mut self) -> Done {
        let ceiling = self.state.header.ceiling();
        if ceiling != 0 && self.seq > ceiling {
            if !self.scanning() {
                self.purge_parked()?;
            }
            self.state.header.set_ceiling(0);
        }
        Ok(())
    }

    fn leave_frame(&mut self, frame: &FrameView, applied: (u64, u64)) -> Done {
        self.flush_times()?;
        let header = &self.state.header;
        let before = header.place();
        // Seqs of interrupted operations at the frame's end are missing: the frame covers them.
        header.set_effect_seq(frame.header.last_seq);
        header.set_place(&Place {
            seq: frame.header.last_seq,
            chain: frame.chain,
            records: before.records + applied.0,
            bytes: before.bytes + applied.1,
        });
        self.past_reaches(frame.header.last_seq);
        self.since_checkpoint.0 += applied.0;
        self.since_checkpoint.1 += applied.1;
        self.end_checkpoint(false)?;
        self.compact_map()?;
        self.checkpoint_when_due()
    }

    pub(super) fn checkpoint_when_due(&mut self) -> Done {
        if self.since_checkpoint.0 >= CHECKPOINT_RECORDS
            || self.since_checkpoint.1 >= CHECKPOINT_BYTES
            || self.last_checkpoint.elapsed() >= CHECKPOINT_INTERVAL
        {
            self.start_checkpoint()?;
        }
        Ok(())
    }
}

/// Whose data an IMAGE_DATA record writes, and up to where.
fn written_by(view: &RecordView) -> (Oid, u64) {
    match view.decode() {
        Ok(Fields::ImageData { offset }) => (view.oid(), offset + view.payload().len() as u64),
        _ => (Oid::NONE, 0),
    }
}

fn is_regular(mode: u32) -> bool {
    let kind = mode & libc::S_IFMT;
    kind == libc::S_IFREG || kind == 0
}

/// The directory and name that a record is about, for messages.
fn place_of<'a>(r: &Record<'a>) -> (Oid, &'a [u8]) {
    match r.fields {
        Fields::Mknod(c) | Fields::Mkdir(c) | Fields::Symlink(c) => (c.parent, c.name),
        Fields::Bind { parent, name }
        | Fields::Link { parent, name, .. }
        | Fields::Unlink { parent, name, .. }
        | Fields::Rmdir { parent, name, .. }
        | Fields::ImageEntry { parent, name, .. } => (parent, name),
        Fields::Rename { old_parent, old_name, .. } => (old_parent, old_name),
        _ => (r.oid, b""),
    }
}

/// Everything in the frame can be read, before any of it is applied.
fn check_records(frame: &FrameView) -> Result<(), ReplayError> {
    let h = &frame.header;
    let (mut count, mut last) = (0u32, h.first_seq.saturating_sub(1));
    for view in frame.records() {
        let view = view.map_err(|e| ReplayError::of_decode(&e))?;
        let seq = view.seq();
        if seq <= last || seq > h.last_seq {
            return Err(frame_error(ReplayCode::Corrupt, "seqs do not ascend in the frame"));
        }
        (count, last) = (count + 1, seq);
        check_record(view)
            .map_err(|f| ReplayError::of_fault(&f, seq, op_name(view.op()), Vec::new()))?;
    }
    if count != h.records || h.first_seq > h.last_seq || h.first_seq == 0 {
        return Err(frame_error(ReplayCode::Corrupt, "records and frame header disagree"));
    }
    Ok(())
}

fn check_record(view: RecordView) -> Done {
    let record = Record::read(view)?;
    match record.fields {
        Fields::Bind { parent, name } if parent.is_none() && name.is_empty() => {}
        Fields::Rename { old_name, new_name, .. } => {
            Name::component(old_name)?;
            Name::component(new_name)?;
        }
        Fields::Setxattr { name, .. } | Fields::Removexattr { name } => {
            Name::attribute(name)?;
        }
        Fields::ImageDir { .. } => {
            let mut list = ImageDir::parse(view.payload())?;
            while let Some((oid, _, name)) = list.next_entry()? {
                Name::component(name)?;
                check_oid(oid)?;
            }
        }
        Fields::Image { .. } => {
            let mut image = ImagePayload::parse(view.payload())?;
            while let Some((name, _)) = image.next_xattr()? {
                Name::attribute(name)?;
            }
        }
        Fields::ScanBegin { kind } | Fields::ScanEnd { kind } if kind >= 64 => {
            return Err(Fault::Corrupt("a kind of scan that does not exist"));
        }
        Fields::Mknod(_)
        | Fields::Mkdir(_)
        | Fields::Symlink(_)
        | Fields::Bind { .. }
        | Fields::Link { .. }
        | Fields::Unlink { .. }
        | Fields::Rmdir { .. }
        | Fields::ImageEntry { .. } => {
            Name::component(place_of(&record).1)?;
        }
        _ => {}
    }
    match record.fields {
        Fields::Marker { .. } | Fields::ScanBegin { .. } | Fields::ScanEnd { .. } => Ok(()),
        Fields::ImageEntry { present: false, .. } => Ok(()),
        _ => check_oid(record.oid),
    }
}

fn check_oid(oid: Oid) -> Done {
    if oid.is_none() {
        return Err(Fault::Corrupt("a record without an object"));
    }
    Ok(())
}
