//! The hard-link partition: names that are one inode on the left are one on the right.

use std::collections::HashMap;

/// Identity of an inode: device and number.
pub type InodeId = (u64, u64);

struct Partner {
    other: InodeId,
    names_to_come: u32,
}

/// Inodes with more than one name whose last name has not been met yet.
#[derive(Default)]
pub struct Links {
    left: HashMap<InodeId, Partner>,
    right: HashMap<InodeId, InodeId>,
}

/// What a further name of a pair of inodes says.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// First name of both: compare everything.
    First,
    /// Both were already met as a pair: nothing left to compare.
    Again,
    /// The two sides group their names differently.
    Differs,
}

impl Links {
    /// Call for each pair of non-directories where either side has more than one link.
    pub fn meet(&mut self, left: InodeId, right: InodeId, nlink: u32) -> Seen {
        match (self.left.get_mut(&left), self.right.get(&right)) {
            (None, None) => {
                let names_to_come = nlink.saturating_sub(1);
                if names_to_come > 0 {
                    self.left.insert(left, Partner { other: right, names_to_come });
                    self.right.insert(right, left);
                }
                Seen::First
            }
            (Some(p), Some(l)) if p.other == right && *l == left => {
                p.names_to_come = p.names_to_come.saturating_sub(1);
                if p.names_to_come == 0 {
                    self.left.remove(&left);
                    self.right.remove(&right);
                }
                Seen::Again
            }
            _ => Seen::Differs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_detects_a_different_grouping() {
        let mut links = Links::default();
        assert_eq!(links.meet((1, 1), (2, 7), 2), Seen::First);
        assert_eq!(links.meet((1, 1), (2, 8), 2), Seen::Differs);
        assert_eq!(links.meet((1, 1), (2, 7), 2), Seen::Again);
        assert!(links.left.is_empty() && links.right.is_empty());
    }
}
