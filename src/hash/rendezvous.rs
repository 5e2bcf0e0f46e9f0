//! Rendezvous hashing: every node draws a number for the key, and the highest wins.
//!
//! **The problem.** For a few dozen nodes a table is more than is needed, and the shares of a ring
//! are uneven.
//!
//! **The idea.** Node `i` of weight `w` draws a uniform `u` from the hashes of its name and of the
//! key, and scores `-w / ln u`; the highest score owns the key ([Thaler and Ravishankar 1998];
//! weights after [Schindelhauer and Schomaker 2005]). Shares are exact but for chance, nothing is
//! stored but the nodes, and a changed node moves only keys that it gains or loses. A lookup asks
//! every node: a few nanoseconds each where all weights are equal, and a logarithm more otherwise.
//!
//! ```
//! use waypost::hash::Rendezvous;
//!
//! let table = Rendezvous::new([("a:80", 1), ("b:80", 2)])?;
//! assert!(table.lookup_key(b"user:42").is_some());
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [Thaler and Ravishankar 1998]: https://doi.org/10.1109/90.663936
//! [Schindelhauer and Schomaker 2005]: https://doi.org/10.1145/1073970.1074008

use super::key::mix;
use super::nodes::{self, Node};
use super::{Table, TableError, key_hash};

/// Weighted rendezvous hashing. See the [module](self).
///
/// | operation | time |
/// |---|---|
/// | [`lookup`](Self::lookup) | O(nodes) |
/// | [`new`](Self::new) | O(nodes · log nodes) |
/// | memory | 16 bytes for each node |
#[derive(Debug, Clone)]
pub struct Rendezvous {
    /// Those of a weight above zero, in an order that the names give: the first of equals wins.
    drawers: Vec<Drawer>,
    /// Whether all weights are equal, so that the numbers drawn can be compared as they are.
    equal: bool,
    nodes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Drawer {
    hash: u64,
    node: u32,
    weight: u32,
}

impl Rendezvous {
    /// Builds the table. A node's index is its place in the input.
    ///
    /// # Errors
    ///
    /// No nodes, all weights zero, a name that appears twice, or more than 2^32 - 1 nodes.
    pub fn new<S: AsRef<str>>(
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        let nodes = nodes::collect(nodes, u32::MAX.into())?;
        let drawer = |index: u32| {
            let Node { hash, weight, .. } = nodes.get(index as usize)?;
            Some(Drawer {
                hash,
                node: index,
                weight,
            })
        };
        let order = nodes::by_name_hash(&nodes);
        let mut drawers: Vec<Drawer> = order.into_iter().filter_map(drawer).collect();
        drawers.retain(|drawer| drawer.weight > 0);
        let equal = drawers
            .windows(2)
            .all(|pair| pair[0].weight == pair[1].weight);
        Ok(Self {
            drawers,
            equal,
            nodes: nodes.len(),
        })
    }

    /// The node that owns a hash. Always `Some`. O(nodes).
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        self.best(hash, |_| true)
    }

    /// The node that owns a key: [`lookup`](Self::lookup) of its [`key_hash`].
    #[inline]
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(key_hash(key))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.drawers.capacity() * size_of::<Drawer>()
    }

    #[inline]
    fn best(&self, hash: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let accepted = self.drawers.iter().filter(|drawer| accept(drawer.node));
        let drawn = accepted.map(|drawer| (drawer, mix(drawer.hash ^ hash, 0)));
        if self.equal {
            let best = drawn.reduce(|best, next| if next.1 > best.1 { next } else { best });
            return best.map(|(drawer, _)| drawer.node);
        }
        let scored = drawn.map(|(drawer, drawn)| (drawer, score(drawn, drawer.weight)));
        let best = scored.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(drawer, _)| drawer.node)
    }
}

impl Table for Rendezvous {
    #[inline]
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.lookup(hash)
    }

    fn len(&self) -> usize {
        self.nodes
    }

    /// The highest score of those accepted. O(nodes).
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        self.best(hash, accept)
    }
}

/// `-weight / ln u`, where `u` in (0, 1) is made of the top 52 bits drawn and one half.
fn score(drawn: u64, weight: u32) -> f64 {
    let u = ((drawn >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    -f64::from(weight) / ln(u)
}

/// The natural logarithm of a number in (0, 1), by operations that IEEE 754 fixes to the last bit.
///
/// `f64::ln` is the platform's, and platforms differ in the last bit: two clients would disagree on
/// a key now and then. With `x = m · 2^e` and `m` in [√½, √2), `ln m = 2 atanh((m-1)/(m+1))`, whose
/// series to the 15th power is exact to 2e-14 there.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let t2 = t * t;
    let series = [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0]
        .iter()
        .fold(0.0, |sum, power| sum * t2 + 1.0 / power);
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * t * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_agrees_with_the_platforms() {
        for i in 1..10_000u64 {
            let x = (mix(7, i) >> 12) as f64 / (1u64 << 52) as f64 + 1e-16;
            assert!(
                (ln(x) - x.ln()).abs() <= 1e-13 * x.ln().abs().max(1.0),
                "{x}"
            );
        }
    }
}
