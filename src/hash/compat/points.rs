//! Points on a circle, as nginx, Envoy, HAProxy and ketama have them: sorted, and searched by
//! halving.

/// Points and whose they are, sorted by place. Of equal points the one of the host that was given
/// first comes first, as a stable sort or a tree with duplicates leaves them.
#[derive(Debug, Clone)]
pub(super) struct Points<H> {
    places: Box<[H]>,
    nodes: Box<[u32]>,
}

impl<H: Copy + Ord> Points<H> {
    /// Sorts the points. There must be at least one.
    pub(super) fn sorted(mut points: Vec<(H, u32)>) -> Self {
        debug_assert!(!points.is_empty());
        points.sort_unstable();
        let (places, nodes): (Vec<H>, Vec<u32>) = points.into_iter().unzip();
        Self {
            places: places.into(),
            nodes: nodes.into(),
        }
    }

    /// The same, and of equal points only the first is kept.
    pub(super) fn sorted_and_distinct(mut points: Vec<(H, u32)>) -> Self {
        points.sort_unstable();
        points.dedup_by_key(|point| point.0);
        Self::sorted(points)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The first point at `place` or after it, around the circle.
    pub(super) fn at_or_after(&self, place: H) -> usize {
        let index = self.places.partition_point(|&point| point < place);
        if index == self.len() { 0 } else { index }
    }

    pub(super) fn next(&self, index: usize) -> usize {
        if index + 1 == self.len() {
            0
        } else {
            index + 1
        }
    }

    pub(super) fn previous(&self, index: usize) -> usize {
        if index == 0 {
            self.len() - 1
        } else {
            index - 1
        }
    }

    pub(super) fn place(&self, index: usize) -> H {
        self.places[index]
    }

    pub(super) fn node(&self, index: usize) -> u32 {
        self.nodes[index]
    }

    /// The nodes of all points, once around the circle from `start`.
    pub(super) fn nodes_from(&self, start: usize) -> impl Iterator<Item = u32> {
        let (before, after) = self.nodes.split_at(start);
        after.iter().chain(before).copied()
    }

    /// The node of the first point from `start` on that `accept` takes.
    ///
    /// When the first points in a row are all refused, twice as many as there are nodes, each of
    /// the `nodes` is asked once: a ring has hundreds of points for each, and asking them all would
    /// make an outage expensive.
    pub(super) fn find(
        &self,
        start: usize,
        nodes: u32,
        accept: &mut dyn FnMut(u32) -> bool,
    ) -> Option<u32> {
        let patience = nodes as usize * 2;
        for (asked, node) in self.nodes_from(start).enumerate() {
            if accept(node) {
                return Some(node);
            }
            if asked == patience && !(0..nodes).any(&mut *accept) {
                return None;
            }
        }
        None
    }
}
