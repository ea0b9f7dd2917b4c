//! Runs operations on file content: descriptors and mappings.

use std::os::fd::{AsRawFd, RawFd};

use super::exec::{done, Mapped, Side};
use super::op::{Op, Target};
use super::outcome::{Attrs, Outcome, View};
use crate::sys::map::Mapping;
use crate::sys::{attr, cstr, file, Errno};

/// How far SEEK_DATA's answer is checked against the content.
const SEEK_CHECK_MAX: u64 = 1 << 20;

impl Side {
    pub(super) fn data_op(&mut self, op: &Op, out: &mut Outcome) -> Result<i64, Errno> {
        match op {
            Op::Read { slot, len } => {
                let fd = self.fd(*slot);
                let buf = self.buf.get(*len as usize);
                let n = file::read(fd, buf)?;
                out.bytes = Some(buf[..n].to_vec());
                Ok(n as i64)
            }
            Op::Pread { slot, off, len } => {
                let fd = self.fd(*slot);
                let buf = self.buf.get(*len as usize);
                let n = file::pread(fd, buf, *off)?;
                out.bytes = Some(buf[..n].to_vec());
                Ok(n as i64)
            }
            Op::Write { slot, fill } => {
                let fd = self.fd(*slot);
                file::write(fd, self.buf.filled(*fill)).map(|n| n as i64)
            }
            Op::Pwrite { slot, off, fill } => {
                let fd = self.fd(*slot);
                file::pwrite(fd, self.buf.filled(*fill), *off).map(|n| n as i64)
            }
            Op::Writev { slot, off, lens, seed } => {
                let fd = self.fd(*slot);
                let len = lens.iter().sum();
                let buf = self.buf.filled(super::op::Fill { seed: *seed, len });
                file::writev(fd, buf, lens, *off).map(|n| n as i64)
            }
            Op::Seek { slot, off, whence } => file::lseek(self.fd(*slot), *off, *whence),
            Op::SeekMap { slot, off, whence } => {
                // Whose answer this is decides whether it can be judged, see `limits`.
                self.view("subject", &Target::Fd(*slot), false, out);
                self.seek_map(self.fd(*slot), *off, *whence, out)
            }
            Op::Ftruncate { slot, len } => done(file::ftruncate(self.fd(*slot), *len)),
            Op::Truncate { at, len } => {
                done(file::truncateat(self.base(at), &cstr(at.path.as_slice())?, *len))
            }
            Op::Fallocate { slot, mode, off, len } => {
                done(file::fallocate(self.fd(*slot), *mode, *off, *len))
            }
            Op::CopyRange { from, from_off, to, to_off, len } => {
                copy_range(self.fd(*from), *from_off, self.fd(*to), *to_off, *len as usize)
            }
            Op::Fsync { slot, data_only: false } => done(file::fsync(self.fd(*slot))),
            Op::Fsync { slot, data_only: true } => done(file::fdatasync(self.fd(*slot))),
            Op::Syncfs { slot } => done(file::syncfs(self.fd(*slot))),
            _ => self.map_op(op, out),
        }
    }

    fn map_op(&mut self, op: &Op, out: &mut Outcome) -> Result<i64, Errno> {
        match op {
            Op::MapOpen { slot, map, off, len, write } => {
                let own = self.owned(*slot)?;
                let mapping = Mapping::new(own.as_raw_fd(), *off, *len as usize, *write)?;
                let fd = own.try_clone().map_err(|_| libc::EMFILE)?;
                let at = *map as usize;
                if self.maps.len() <= at {
                    self.maps.resize_with(at + 1, || None);
                }
                self.maps[at] = Some(Mapped { map: mapping, fd, off: *off });
                Ok(0)
            }
            Op::MapStore { map, at, fill } => {
                let bytes = self.buf.filled(*fill).to_vec();
                let m = self.mapped(*map)?;
                let len = m.inside(*at, bytes.len())?;
                let n = m.map.store(*at as usize, &bytes[..len])?;
                // The inode number tells the judge whose time is undecided from now on.
                let result = self.fstat(m.fd.as_raw_fd()).map(|s| Attrs::of(&s));
                out.views.push(View { label: "subject".to_owned(), result });
                Ok(n as i64)
            }
            Op::MapLoad { map, at, len } => {
                let m = self.mapped(*map)?;
                let bytes = m.map.load(*at as usize, m.inside(*at, *len as usize)?)?;
                let n = bytes.len() as i64;
                out.bytes = Some(bytes);
                Ok(n)
            }
            Op::Msync { map, flags } => done(self.mapped(*map)?.map.msync(*flags)),
            Op::MapClose { map } => match self.maps.get_mut(*map as usize).and_then(Option::take) {
                Some(_) => Ok(0),
                None => Err(libc::EINVAL),
            },
            _ => Err(libc::ENOSYS),
        }
    }

    /// SEEK_DATA and SEEK_HOLE may answer by allocation, so the answer is checked against the
    /// content instead of against the other side. The file position is put back.
    fn seek_map(
        &mut self,
        fd: RawFd,
        off: i64,
        whence: i32,
        out: &mut Outcome,
    ) -> Result<i64, Errno> {
        let stat = attr::fstat(fd)?;
        if !stat.is_file() {
            return Err(libc::EISDIR);
        }
        let size = stat.size as i64;
        let before = file::lseek(fd, 0, libc::SEEK_CUR)?;
        let answer = file::lseek(fd, off, whence);
        file::lseek(fd, before, libc::SEEK_SET)?;
        if self.seek_exact {
            return answer;
        }
        if off < 0 || off >= size {
            return answer.map(|_| 0);
        }
        let data = whence == libc::SEEK_DATA;
        let broken = match answer {
            Ok(n) if n < off || n > size || (data && n == size) => {
                Some(format!("seek from {off} answers {n} in {size} bytes"))
            }
            Ok(n) if data => self.zeros(fd, off, n, &format!("SEEK_DATA {off} answers {n}")),
            Ok(n) => self.zeros(fd, n, size.min(n + 1), &format!("SEEK_HOLE {off} answers {n}")),
            Err(libc::ENXIO) if data => self.zeros(fd, off, size, "SEEK_DATA sees no data"),
            Err(e) => return Err(e),
        };
        out.broken = broken;
        Ok(0)
    }

    /// A complaint unless `[from, to)` reads as zeros. An unreadable file is not judged.
    fn zeros(&mut self, fd: RawFd, from: i64, to: i64, claim: &str) -> Option<String> {
        let len = ((to - from) as u64).min(SEEK_CHECK_MAX) as usize;
        let buf = self.buf.get(len);
        let n = file::pread(fd, buf, from).ok()?;
        let at = buf[..n].iter().position(|b| *b != 0)?;
        Some(format!("{claim}, but there is data at {}", from + at as i64))
    }
}

impl Mapped {
    /// How much of `[at, at + len)` lies inside the file now; beyond it a store has no meaning.
    fn inside(&self, at: u32, len: usize) -> Result<usize, Errno> {
        let size = attr::fstat(self.fd.as_raw_fd())?.size as i64;
        let room = (size - self.off - i64::from(at)).max(0) as usize;
        Ok(len.min(room).min(self.map.len().saturating_sub(at as usize)))
    }
}

/// Copies in as many calls as the kernel wants; a reflinking file system may shorten each.
fn copy_range(from: RawFd, a: i64, to: RawFd, b: i64, len: usize) -> Result<i64, Errno> {
    let mut total = 0;
    loop {
        let n = file::copy_file_range(from, a + total, to, b + total, len - total as usize);
        match n {
            Ok(0) => return Ok(total),
            Ok(n) => total += n as i64,
            Err(e) if total == 0 => return Err(e),
            Err(_) => return Ok(total),
        }
        if total as usize >= len {
            return Ok(total);
        }
    }
}
