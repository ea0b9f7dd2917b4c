//! The generator's picture of the tree: which names exist and of what kind.
//!
//! It exists to pick objects that are there; it is never used to judge. It learns from the
//! right side's outcomes and may be wrong (a file made through a symbolic link is not in it),
//! and corrects itself whenever a directory is listed.

use std::collections::HashMap;

pub type NodeId = u32;
pub const ROOT: NodeId = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    Device,
}

const KINDS: usize = 6;

impl Kind {
    pub fn of_mode(mode: u32) -> Kind {
        // d_type is the type bits of the mode, shifted (dirent.h).
        Kind::of_dtype(((mode & libc::S_IFMT) >> 12) as u8)
    }

    pub fn of_dtype(d: u8) -> Kind {
        match d {
            libc::DT_DIR => Kind::Dir,
            libc::DT_LNK => Kind::Symlink,
            libc::DT_FIFO => Kind::Fifo,
            libc::DT_SOCK => Kind::Socket,
            libc::DT_CHR | libc::DT_BLK => Kind::Device,
            _ => Kind::File,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub parent: NodeId,
    pub name: Vec<u8>,
    pub kind: Kind,
    pub children: Vec<NodeId>,
    /// The worker that made it.
    pub owner: u16,
    /// Last size seen.
    pub size: u64,
    /// Extended attributes set through this name.
    pub xattrs: Vec<Vec<u8>>,
    place: usize,
}

pub struct Catalogue {
    nodes: HashMap<NodeId, Node>,
    by_kind: [Vec<NodeId>; KINDS],
    by_name: HashMap<(NodeId, Vec<u8>), NodeId>,
    next: NodeId,
}

impl Default for Catalogue {
    fn default() -> Self {
        let root = Node {
            parent: ROOT,
            name: Vec::new(),
            kind: Kind::Dir,
            children: Vec::new(),
            owner: 0,
            size: 0,
            xattrs: Vec::new(),
            place: usize::MAX,
        };
        Catalogue {
            nodes: HashMap::from([(ROOT, root)]),
            by_kind: Default::default(),
            by_name: HashMap::new(),
            next: 1,
        }
    }
}

impl Catalogue {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    /// All nodes of a kind, without the root.
    pub fn of_kind(&self, kind: Kind) -> &[NodeId] {
        &self.by_kind[kind as usize]
    }

    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.by_name.get(&(parent, name.to_vec())).copied()
    }

    /// Adds a name, replacing what had it.
    pub fn add(&mut self, parent: NodeId, name: &[u8], kind: Kind, owner: u16) -> NodeId {
        if let Some(old) = self.lookup(parent, name) {
            self.remove(old);
        }
        let id = self.next;
        self.next += 1;
        let list = &mut self.by_kind[kind as usize];
        let node = Node {
            parent,
            name: name.to_vec(),
            kind,
            children: Vec::new(),
            owner,
            size: 0,
            xattrs: Vec::new(),
            place: list.len(),
        };
        list.push(id);
        self.nodes.insert(id, node);
        self.attach(id, parent, name);
        id
    }

    /// Forgets a node and everything below it.
    pub fn remove(&mut self, id: NodeId) {
        if id == ROOT || !self.nodes.contains_key(&id) {
            return;
        }
        self.detach(id);
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let Some(node) = self.nodes.remove(&id) else { continue };
            self.by_name.remove(&(node.parent, node.name));
            stack.extend(node.children);
            let list = &mut self.by_kind[node.kind as usize];
            list.swap_remove(node.place);
            if let Some(moved) = list.get(node.place).copied() {
                if let Some(m) = self.nodes.get_mut(&moved) {
                    m.place = node.place;
                }
            }
        }
    }

    /// Gives a node another name, replacing what had it.
    pub fn relocate(&mut self, id: NodeId, parent: NodeId, name: &[u8]) {
        if !self.nodes.contains_key(&id) || !self.nodes.contains_key(&parent) {
            return self.remove(id);
        }
        if self.path_below(id, parent).is_some() {
            // The picture was wrong: no directory can move below itself.
            return self.remove(id);
        }
        match self.lookup(parent, name) {
            Some(old) if old == id => return,
            Some(old) => self.remove(old),
            None => {}
        }
        self.detach(id);
        self.attach(id, parent, name);
    }

    /// Swaps the names of two nodes.
    pub fn exchange(&mut self, a: NodeId, b: NodeId) {
        let (Some(x), Some(y)) = (self.nodes.get(&a).cloned(), self.nodes.get(&b).cloned()) else {
            return;
        };
        if self.path_below(a, b).is_some() || self.path_below(b, a).is_some() {
            self.remove(a);
            return self.remove(b);
        }
        self.detach(a);
        self.detach(b);
        self.attach(a, y.parent, &y.name);
        self.attach(b, x.parent, &x.name);
    }

    fn detach(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        let parent = node.parent;
        self.by_name.remove(&(parent, node.name.clone()));
        if let Some(p) = self.nodes.get_mut(&parent) {
            p.children.retain(|c| *c != id);
        }
    }

    fn attach(&mut self, id: NodeId, parent: NodeId, name: &[u8]) {
        if let Some(n) = self.nodes.get_mut(&id) {
            n.parent = parent;
            n.name = name.to_vec();
        }
        self.by_name.insert((parent, name.to_vec()), id);
        if let Some(p) = self.nodes.get_mut(&parent) {
            p.children.push(id);
        }
    }

    /// Corrects a directory from a listing.
    pub fn listed<'a>(&mut self, dir: NodeId, names: impl Iterator<Item = (&'a [u8], u8)>) {
        let Some(node) = self.nodes.get(&dir) else { return };
        let mut gone: HashMap<NodeId, ()> = node.children.iter().map(|c| (*c, ())).collect();
        let mut found = Vec::new();
        for (name, dtype) in names {
            match self.lookup(dir, name) {
                Some(id) if self.nodes.get(&id).map(|n| n.kind) == Some(Kind::of_dtype(dtype)) => {
                    gone.remove(&id);
                }
                _ => found.push((name.to_vec(), Kind::of_dtype(dtype))),
            }
        }
        for id in gone.into_keys().collect::<std::collections::BTreeSet<_>>() {
            self.remove(id);
        }
        for (name, kind) in found {
            self.add(dir, &name, kind, 0);
        }
    }

    /// The path from `from` down to `id`; None when `id` is not below it.
    pub fn path_below(&self, from: NodeId, mut id: NodeId) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = Vec::new();
        while id != from {
            let node = self.nodes.get(&id)?;
            if id == ROOT {
                return None;
            }
            parts.push(&node.name);
            id = node.parent;
        }
        if parts.is_empty() {
            return Some(b".".to_vec());
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    pub fn depth(&self, mut id: NodeId) -> usize {
        let mut depth = 0;
        while let Some(n) = self.nodes.get(&id).filter(|_| id != ROOT) {
            depth += 1;
            id = n.parent;
        }
        depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_follows_renames_of_directories() {
        let mut c = Catalogue::default();
        let a = c.add(ROOT, b"a", Kind::Dir, 0);
        let f = c.add(a, b"f", Kind::File, 0);
        let b = c.add(ROOT, b"b", Kind::Dir, 0);
        c.relocate(a, b, b"x");
        assert_eq!(c.path_below(ROOT, f), Some(b"b/x/f".to_vec()));
        assert_eq!(c.path_below(b, f), Some(b"x/f".to_vec()));
        let d = c.add(ROOT, b"d", Kind::Dir, 0);
        c.exchange(f, d);
        assert_eq!(c.path_below(ROOT, d), Some(b"b/x/f".to_vec()));
        assert_eq!(c.path_below(ROOT, f), Some(b"d".to_vec()));
        c.relocate(b, a, b"loop");
        assert_eq!(c.path_below(ROOT, a), None);
        c.listed(ROOT, [(b"q".as_slice(), libc::DT_REG)].into_iter());
        assert_eq!(c.len(), 2);
        assert_eq!(c.of_kind(Kind::File).len(), 1);
    }
}
