//! The operation families: name, weights per profile, and who plans them.

use super::gen::{Gen, Plan};
use super::{gen_attr as attr, gen_data as data, gen_name as name, gen_open as open};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Full,
    Namespace,
    Data,
}

pub struct Family {
    pub name: &'static str,
    /// For the profiles full, namespace, data.
    weights: [u32; 3],
    /// 1 makes objects, -1 removes them.
    pub growth: i8,
    pub root_only: bool,
    pub plan: fn(&mut Gen, usize) -> Plan,
}

impl Family {
    pub fn weight(&self, profile: Profile) -> u32 {
        self.weights[profile as usize]
    }
}

const fn f(name: &'static str, weights: [u32; 3], plan: fn(&mut Gen, usize) -> Plan) -> Family {
    Family { name, weights, growth: 0, root_only: false, plan }
}

const fn growing(name: &'static str, w: [u32; 3], plan: fn(&mut Gen, usize) -> Plan) -> Family {
    Family { growth: 1, ..f(name, w, plan) }
}

const fn shrinking(name: &'static str, w: [u32; 3], plan: fn(&mut Gen, usize) -> Plan) -> Family {
    Family { growth: -1, ..f(name, w, plan) }
}

const fn by_root(name: &'static str, w: [u32; 3], plan: fn(&mut Gen, usize) -> Plan) -> Family {
    Family { root_only: true, ..f(name, w, plan) }
}

pub const FAMILIES: &[Family] = &[
    growing("open-create", [50, 60, 30], open::open_create),
    f("open-existing", [70, 20, 90], open::open_existing),
    f("open-dir", [10, 14, 2], open::open_dir),
    f("open-path", [6, 8, 1], open::open_path),
    f("open-device", [1, 2, 0], open::open_device),
    f("tmpfile", [6, 8, 3], open::tmpfile),
    growing("link-tmpfile", [5, 8, 2], open::link_tmpfile),
    f("close", [50, 40, 40], open::close),
    f("read", [20, 0, 60], data::read),
    f("pread", [40, 4, 130], data::pread),
    f("write", [40, 6, 90], data::write),
    f("pwrite", [60, 6, 160], data::pwrite),
    f("writev", [15, 0, 50], data::writev),
    f("seek", [12, 0, 30], data::seek),
    f("seek-map", [8, 0, 25], data::seek_map),
    f("ftruncate", [16, 2, 50], data::ftruncate),
    f("truncate", [12, 3, 30], data::truncate),
    f("fallocate", [10, 1, 30], data::fallocate),
    f("punch", [10, 0, 35], data::punch),
    f("zero-range", [8, 0, 30], data::zero_range),
    f("collapse", [5, 0, 16], data::collapse),
    f("insert", [5, 0, 16], data::insert),
    f("copy-range", [10, 0, 40], data::copy_range),
    f("fsync", [1, 1, 2], data::fsync),
    by_root("syncfs", [1, 1, 0], data::syncfs),
    growing("mkdir", [18, 40, 1], name::mkdir),
    shrinking("rmdir", [9, 20, 1], name::rmdir),
    shrinking("unlink", [22, 50, 10], name::unlink),
    growing("symlink", [9, 20, 1], name::symlink),
    f("readlink", [8, 14, 0], name::readlink),
    growing("link", [10, 26, 3], name::link),
    growing("mknod", [7, 16, 0], name::mknod),
    f("rename", [22, 60, 5], name::rename),
    f("rename-noreplace", [6, 20, 1], name::rename_noreplace),
    f("rename-exchange", [8, 26, 2], name::rename_exchange),
    growing("rename-whiteout", [3, 10, 0], name::rename_whiteout),
    f("rename-into-self", [1, 2, 0], name::rename_into_self),
    f("readdir", [10, 24, 2], name::readdir),
    f("readdir-churn", [1, 5, 0], name::readdir_churn),
    f("chmod", [14, 14, 4], attr::chmod),
    f("chown", [10, 10, 2], attr::chown),
    f("utimens", [14, 14, 10], attr::utimens),
    f("setxattr", [16, 10, 3], attr::setxattr),
    f("getxattr", [12, 6, 2], attr::getxattr),
    f("listxattr", [7, 4, 1], attr::listxattr),
    f("removexattr", [6, 5, 1], attr::removexattr),
    f("acl-set", [8, 8, 0], attr::acl_set),
    f("acl-get", [3, 2, 0], attr::acl_get),
    by_root("caps-set", [3, 1, 2], attr::caps_set),
    f("flags-get", [3, 2, 0], attr::flags_get),
    f("flags-set", [4, 2, 0], attr::flags_set),
    by_root("seal", [3, 3, 1], attr::seal),
    f("project-get", [2, 1, 0], attr::project_get),
    by_root("project-set", [2, 1, 0], attr::project_set),
    f("map-open", [8, 0, 30], open::map_open),
    f("map-store", [14, 0, 50], open::map_store),
    f("map-load", [10, 0, 30], open::map_load),
    f("msync", [5, 0, 12], open::msync),
    f("map-close", [6, 0, 20], open::map_close),
    f("stat", [30, 30, 30], attr::stat),
    f("statx", [6, 6, 2], attr::statx),
    f("statfs", [2, 2, 1], attr::statfs),
    f("access", [10, 12, 1], attr::access),
    f("umask", [2, 3, 0], attr::umask),
];

/// Properties of other families that `--skip-op` also takes: open flags.
pub const TRAITS: &[&str] = &["direct", "append", "sync-flags"];

/// Whether `--skip-op` knows a name.
pub fn is_known(name: &str) -> bool {
    TRAITS.contains(&name) || FAMILIES.iter().any(|f| f.name == name)
}

/// The families of a profile without those in `skip`.
pub fn enabled(profile: Profile, skip: &[String]) -> Vec<&'static Family> {
    let wanted = |x: &&Family| x.weight(profile) > 0 && !skip.iter().any(|s| s == x.name);
    FAMILIES.iter().filter(wanted).collect()
}
