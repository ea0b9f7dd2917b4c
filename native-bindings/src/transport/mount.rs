//! The mount itself: /dev/fuse, mount(2), and its undoing.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Opens a new FUSE connection.
pub fn open_device() -> io::Result<OwnedFd> {
    // SAFETY: plain open of a constant path.
    let fd = unsafe { libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A further descriptor of the same connection, with a queue of its own (FUSE_DEV_IOC_CLONE).
pub fn clone_device(device: &OwnedFd) -> io::Result<OwnedFd> {
    const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;
    let clone = open_device()?;
    let mut source = device.as_raw_fd() as u32;
    // SAFETY: the ioctl reads a u32 from the pointer.
    let rc = unsafe { libc::ioctl(clone.as_raw_fd(), FUSE_DEV_IOC_CLONE, &mut source) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(clone)
}

/// Attaches the connection at `mountpoint`. `backing_flags` are the MS_* flags (nosuid, nodev,
/// noexec, read-only) that the backing mount has and the volume inherits.
pub fn attach(
    device: &OwnedFd,
    mountpoint: &CString,
    source: &str,
    root_mode: u32,
    backing_flags: libc::c_ulong,
) -> io::Result<()> {
    let options = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,allow_other,default_permissions,max_read={}",
        device.as_raw_fd(),
        root_mode & libc::S_IFMT,
        super::device::IO_BYTES_MAX,
    );
    let options = CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
    let source = CString::new(source).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: all pointers are valid C strings.
    let rc = unsafe {
        libc::mount(
            source.as_ptr(),
            mountpoint.as_ptr(),
            c"fuse.holdfast".as_ptr(),
            backing_flags,
            options.as_ptr().cast(),
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Detaches the mount; `lazy` also when it is in use.
pub fn detach(mountpoint: &CString, lazy: bool) -> io::Result<()> {
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: a valid C string.
    if unsafe { libc::umount2(mountpoint.as_ptr(), flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Mounts a directory over itself, read-only: whoever goes by its path cannot change it.
pub fn guard(path: &CString) -> io::Result<()> {
    let bind = |flags: libc::c_ulong| {
        let none = std::ptr::null();
        // SAFETY: valid C strings, or none.
        match unsafe { libc::mount(path.as_ptr(), path.as_ptr(), none, flags, none.cast()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    bind(libc::MS_BIND)?;
    // SAFETY: a valid C string; the descriptor is closed below.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    let flags = flags_of(fd);
    // SAFETY: a descriptor of ours.
    unsafe { libc::close(fd) };
    bind(libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | flags).inspect_err(|_| {
        let _ = detach(path, true);
    })
}

/// MS_* flags of the mount that holds this descriptor.
pub fn flags_of(fd: i32) -> libc::c_ulong {
    // SAFETY: all zero is a valid buffer; the descriptor is open.
    let st = unsafe {
        let mut st: libc::statvfs = std::mem::zeroed();
        libc::fstatvfs(fd, &mut st);
        st
    };
    let pairs = [
        (libc::ST_RDONLY, libc::MS_RDONLY),
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    pairs.into_iter().filter(|(st_flag, _)| st.f_flag & st_flag != 0).fold(0, |f, (_, ms)| f | ms)
}

/// Read-ahead and write limits of the mount's backing device info; failures cost speed only.
pub fn tune(dev_major: u32, dev_minor: u32) {
    let base = format!("/sys/class/bdi/{dev_major}:{dev_minor}");
    for (file, value) in [("read_ahead_kb", "4096"), ("strict_limit", "0"), ("max_ratio", "100")] {
        let _ = std::fs::write(format!("{base}/{file}"), value);
    }
}

/// A detached copy of the mount that shows `path`, without mounts below it: the way to the backing
/// directory that does not lead through our own mount. Returns the tree, which must stay open as long
/// as it is used, and a readable descriptor of its root.
pub fn clone_tree(path: &CString) -> io::Result<(OwnedFd, File)> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: a valid C string; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: opens the root of the detached tree.
    let fd = unsafe { libc::openat(tree.as_raw_fd(), c".".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok((tree, unsafe { File::from_raw_fd(fd) }))
}
