//! The kernel's FUSE interface, version 7.41 (include/uapi/linux/fuse.h), as far as it is used here.
//!
//! Structures are plain data in native byte order, read from and written to message buffers.

pub const KERNEL_VERSION: u32 = 7;
pub const KERNEL_MINOR_VERSION: u32 = 41;
pub const ROOT_ID: u64 = 1;

macro_rules! opcodes {
    ($($name:ident = $code:literal,)*) => {
        $(pub const $name: u32 = $code;)*
        /// The operation's name in lower case, for counters and logs.
        pub fn opcode_name(code: u32) -> &'static str {
            match code { $($code => stringify!($name),)* _ => "UNKNOWN" }
        }
    };
}

opcodes! {
    LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8,
    MKDIR = 9, UNLINK = 10, RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16,
    STATFS = 17, RELEASE = 18, FSYNC = 20, SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23,
    REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28, RELEASEDIR = 29,
    FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33, ACCESS = 34, CREATE = 35, INTERRUPT = 36,
    BMAP = 37, DESTROY = 38, IOCTL = 39, POLL = 40, NOTIFY_REPLY = 41, BATCH_FORGET = 42,
    FALLOCATE = 43, READDIRPLUS = 44, RENAME2 = 45, LSEEK = 46, COPY_FILE_RANGE = 47,
    SETUPMAPPING = 48, REMOVEMAPPING = 49, SYNCFS = 50, TMPFILE = 51, STATX = 52,
}

/// One more than the highest operation code.
pub const OPCODES: usize = 53;

pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const HAS_IOCTL_DIR: u64 = 1 << 11;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const OVER_IO_URING: u64 = 1 << 41;
}

pub const FATTR_MODE: u32 = 1 << 0;
pub const FATTR_UID: u32 = 1 << 1;
pub const FATTR_GID: u32 = 1 << 2;
pub const FATTR_SIZE: u32 = 1 << 3;
pub const FATTR_ATIME: u32 = 1 << 4;
pub const FATTR_MTIME: u32 = 1 << 5;
pub const FATTR_FH: u32 = 1 << 6;
pub const FATTR_ATIME_NOW: u32 = 1 << 7;
pub const FATTR_MTIME_NOW: u32 = 1 << 8;
pub const FATTR_KILL_SUIDGID: u32 = 1 << 11;

pub const WRITE_CACHE: u32 = 1 << 0;
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
pub const IOCTL_DIR: u32 = 1 << 4;
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;

pub const NOTIFY_INVAL_INODE: i32 = 2;
pub const NOTIFY_INVAL_ENTRY: i32 = 3;

/// Plain data of the kernel's interface: any bit pattern is valid and there is no padding.
///
/// # Safety
/// Implementors are `repr(C)` structs of integers without padding.
pub unsafe trait Pod: Copy {}

macro_rules! pod {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty,)* } = $size:literal;)*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default)]
            pub struct $name { $(pub $field: $ty,)* }
            // SAFETY: integers only; the size shows that there is no padding.
            unsafe impl Pod for $name {}
            const _: () = assert!(std::mem::size_of::<$name>() == $size);
        )*
    };
}

pod! {
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16, } = 40;
    OutHeader { len: u32, error: i32, unique: u64, } = 16;
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32,
        unused: [u32; 11], } = 64;
    InitOut { major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16,
        unused: [u16; 11], } = 64;
    Attr { ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32,
        mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        blksize: u32, flags: u32, } = 88;
    EntryOut { nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr, } = 128;
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, } = 104;
    OpenOut { fh: u64, open_flags: u32, backing_id: i32, } = 16;
    ForgetIn { nlookup: u64, } = 8;
    ForgetOne { nodeid: u64, nlookup: u64, } = 16;
    BatchForgetIn { count: u32, dummy: u32, } = 8;
    SetattrIn { valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64,
        mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32,
        unused4: u32, uid: u32, gid: u32, unused5: u32, } = 88;
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32, } = 16;
    MkdirIn { mode: u32, umask: u32, } = 8;
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, } = 16;
    RenameIn { newdir: u64, } = 8;
    Rename2In { newdir: u64, flags: u32, padding: u32, } = 16;
    LinkIn { oldnodeid: u64, } = 8;
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32, } = 40;
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32, } = 40;
    WriteOut { size: u32, padding: u32, } = 8;
    StatfsOut { blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32,
        namelen: u32, frsize: u32, padding: u32, spare: [u32; 6], } = 80;
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32, } = 16;
    SetxattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32, } = 16;
    GetxattrIn { size: u32, padding: u32, } = 8;
    GetxattrOut { size: u32, padding: u32, } = 8;
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, } = 32;
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32, } = 24;
    LseekOut { offset: u64, } = 8;
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64,
        len: u64, flags: u64, } = 56;
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32, } = 32;
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32, } = 16;
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, } = 24;
    SxTime { tv_sec: i64, tv_nsec: u32, reserved: i32, } = 16;
    Statx { mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64, atime: SxTime,
        btime: SxTime, ctime: SxTime, mtime: SxTime, rdev_major: u32, rdev_minor: u32,
        dev_major: u32, dev_minor: u32, spare2a: [u64; 14], } = 256;
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2],
        stat: Statx, } = 288;
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32, } = 24;
    NotifyInvalInodeOut { ino: u64, off: i64, len: i64, } = 24;
    NotifyInvalEntryOut { parent: u64, namelen: u32, flags: u32, } = 16;
}

/// Length of the fixed argument in front of names and data, by operation.
pub fn fixed_len(opcode: u32) -> usize {
    use std::mem::size_of as s;
    match opcode {
        FORGET => s::<ForgetIn>(),
        GETATTR => 16,
        SETATTR => s::<SetattrIn>(),
        MKNOD => s::<MknodIn>(),
        MKDIR => s::<MkdirIn>(),
        RENAME => s::<RenameIn>(),
        RENAME2 => s::<Rename2In>(),
        LINK => s::<LinkIn>(),
        OPEN | OPENDIR => 8,
        READ | READDIR | READDIRPLUS => s::<ReadIn>(),
        WRITE => s::<WriteIn>(),
        RELEASE | RELEASEDIR | FLUSH => 24,
        FSYNC | FSYNCDIR => s::<FsyncIn>(),
        SETXATTR => s::<SetxattrIn>(),
        GETXATTR | LISTXATTR => s::<GetxattrIn>(),
        INIT => s::<InitIn>(),
        ACCESS => 8,
        CREATE | TMPFILE => s::<CreateIn>(),
        INTERRUPT => 8,
        BMAP => 16,
        IOCTL => s::<IoctlIn>(),
        POLL => 24,
        BATCH_FORGET => s::<BatchForgetIn>(),
        FALLOCATE => s::<FallocateIn>(),
        LSEEK => s::<LseekIn>(),
        COPY_FILE_RANGE => s::<CopyFileRangeIn>(),
        SYNCFS => 8,
        STATX => s::<StatxIn>(),
        _ => 0,
    }
}
