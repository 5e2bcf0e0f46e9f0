//! The nodes that follow a key on the ring: where its replicas go, and who takes over.

use super::{HashRing, Wheel, with_lines};

impl HashRing {
    /// The first `n` distinct nodes from a hash on, in ring order; the first is its owner.
    ///
    /// Fewer if the ring has fewer. Removing one of them brings the next one in at the end and
    /// changes nothing before it. Each step costs O(1) for each point passed, and a comparison
    /// with the nodes found before.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::{HashRing, key_hash};
    ///
    /// let ring = HashRing::new([("a:80", 1), ("b:80", 1), ("c:80", 1)])?;
    /// let hash = key_hash(b"shard:7");
    /// let replicas: Vec<u32> = ring.replicas(hash, 2).collect();
    /// assert_eq!(replicas.len(), 2);
    /// assert_eq!(Some(replicas[0]), ring.lookup(hash));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    #[must_use]
    pub fn replicas(&self, hash: u64, n: usize) -> Replicas<'_> {
        Replicas {
            walk: self.walk(hash),
            seen: Vec::new(),
            wanted: n.min(self.nodes.len()),
        }
    }

    /// `n` distinct nodes from a hash on, spread over zones as evenly as the zones allow.
    ///
    /// Goes round in ring order and takes the first node of each zone, then round again for the
    /// second of each, until there are `n` or no more. The first is the owner of the hash.
    /// `zone_of` is asked for nodes that have points. O(points) at worst for each round: when a
    /// zone's only node has few points, the walk is long.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::HashRing;
    ///
    /// let ring = HashRing::new([("a1", 1), ("a2", 1), ("a3", 1), ("b1", 1)])?;
    /// let zones = ["a", "a", "a", "b"];
    /// let two = ring.replicas_across(7, 2, |node| zones[node as usize]);
    /// assert_ne!(zones[two[0] as usize], zones[two[1] as usize]);
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    #[must_use]
    pub fn replicas_across<Z: PartialEq>(
        &self,
        hash: u64,
        n: usize,
        zone_of: impl Fn(u32) -> Z,
    ) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::with_capacity(n.min(self.nodes.len()));
        while chosen.len() < n {
            let before = chosen.len();
            let mut zones: Vec<Z> = Vec::new();
            // How many more this round can give: it ends early once every zone has given.
            let mut left = self.zones_with_more(&chosen, &zone_of);
            for node in self.walk(hash) {
                if left == 0 || chosen.len() == n {
                    break;
                }
                if chosen.contains(&node) {
                    continue;
                }
                let zone = zone_of(node);
                if !zones.contains(&zone) {
                    zones.push(zone);
                    chosen.push(node);
                    left -= 1;
                }
            }
            if chosen.len() == before {
                break;
            }
        }
        chosen
    }

    /// How many zones have a node with points that is not chosen.
    fn zones_with_more<Z: PartialEq>(&self, chosen: &[u32], zone_of: impl Fn(u32) -> Z) -> usize {
        let mut zones: Vec<Z> = Vec::new();
        for (index, node) in (0..).zip(self.nodes.iter()) {
            let placed = node.is_some_and(|node| node.weight > 0);
            if placed && !chosen.contains(&index) {
                let zone = zone_of(index);
                if !zones.contains(&zone) {
                    zones.push(zone);
                }
            }
        }
        zones.len()
    }

    /// The node of every point, once round from a hash.
    pub(super) fn walk(&self, hash: u64) -> Walk<'_> {
        let (line, rank) = with_lines!(&self.wheel, lines => lines.locate(hash), (0, 0));
        Walk {
            ring: self,
            line,
            rank,
            left: self.points,
        }
    }
}

/// Distinct nodes in ring order; see [`HashRing::replicas`].
#[derive(Debug, Clone)]
pub struct Replicas<'a> {
    walk: Walk<'a>,
    seen: Vec<u32>,
    wanted: usize,
}

impl Iterator for Replicas<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.seen.len() == self.wanted {
            return None;
        }
        let node = self.walk.find(|node| !self.seen.contains(node))?;
        self.seen.push(node);
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.wanted - self.seen.len()))
    }
}

impl std::iter::FusedIterator for Replicas<'_> {}

#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    ring: &'a HashRing,
    line: usize,
    rank: usize,
    left: u64,
}

impl Iterator for Walk<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        loop {
            let point = with_lines!(
                &self.ring.wheel, lines => lines.point(self.line, self.rank), return None
            );
            if let Some(point) = point {
                self.rank += 1;
                self.left -= 1;
                return Some(point.node);
            }
            self.rank = 0;
            self.line += 1;
            if self.line as u64 == self.ring.lines() {
                self.line = 0;
            }
        }
    }
}
