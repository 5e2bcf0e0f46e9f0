//! What all tables have in common.

/// A table that maps hashes to nodes, the same for every client that builds it from the same nodes.
///
/// A node is an index into the list the table was built from. The trait can be used as an object.
///
/// # Examples
///
/// ```
/// use waypost::hash::{HashRing, Maglev, Rendezvous, Table};
///
/// let nodes = [("a:80", 1), ("b:80", 1), ("c:80", 1)];
/// let tables: [Box<dyn Table>; 3] = [
///     Box::new(HashRing::new(nodes)?),
///     Box::new(Maglev::new(nodes)?),
///     Box::new(Rendezvous::new(nodes)?),
/// ];
/// for table in tables {
///     let owner = table.lookup(7).expect("there are nodes");
///     // The owner is down: every client goes to the same other node.
///     let second = table.find(7, &mut |node| node != owner).expect("there are others");
///     assert_ne!(owner, second);
///     assert_eq!(table.choices(7, 3)[..2], [owner, second]);
/// }
/// # Ok::<(), waypost::hash::TableError>(())
/// ```
pub trait Table {
    /// The node that owns a hash; `None` if no node has a weight above zero.
    fn lookup(&self, hash: u64) -> Option<u32>;

    /// How many indices there are: every node is below this.
    fn len(&self) -> usize;

    /// Whether there are no nodes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first node in the order of preference for `hash` that `accept` takes; `None` if it takes
    /// none of them.
    ///
    /// With an `accept` that takes all it is [`lookup`](Self::lookup). The order is fixed by the
    /// hash and the nodes, so a node that comes and goes in `accept` moves only its own keys; and
    /// nothing is allocated. `accept` must give the same answer for the same node while it is
    /// asked: it may be asked several times, and in any order.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32>;

    /// The first `n` distinct nodes in the order of preference for `hash`; fewer if there are fewer.
    ///
    /// O(n) calls of [`find`](Self::find).
    fn choices(&self, hash: u64, n: usize) -> Vec<u32> {
        let mut chosen = Vec::with_capacity(n.min(self.len()));
        while chosen.len() < n {
            match self.find(hash, &mut |node| !chosen.contains(&node)) {
                Some(node) => chosen.push(node),
                None => break,
            }
        }
        chosen
    }
}
