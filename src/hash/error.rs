//! What can be wrong with the nodes or settings of a table.

/// Why a table could not be built or changed.
///
/// Nothing has happened when one of these is returned: a table that was to be changed is as it was.
/// Trying again with the same input gives the same error.
///
/// # Examples
///
/// ```
/// use waypost::hash::{HashRing, TableError};
///
/// let error = HashRing::new([("a:80", 1), ("a:80", 2)]).unwrap_err();
/// assert_eq!(error, TableError::DuplicateNode { name: "a:80".into() });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The list of nodes was empty.
    #[error("there are no nodes; give at least one")]
    NoNodes,
    /// No node has a weight above zero, so no key could be placed.
    #[error("all nodes have weight 0; give at least one node a weight of 1 or more")]
    AllWeightsZero,
    /// Two nodes have the same name, so their points would be the same.
    #[error("node {name:?} is given twice; list each node once and put its share in its weight")]
    DuplicateNode {
        /// The name that appears twice.
        name: String,
    },
    /// The index names no node of this table.
    #[error("there is no node with index {node}; use the index that the table returned for it")]
    UnknownNode {
        /// The index that was given.
        node: u32,
    },
    /// There are more nodes than the table can number.
    #[error("{nodes} nodes are more than the {limit} this table can hold; split the set")]
    TooManyNodes {
        /// How many nodes were given.
        nodes: u64,
        /// How many are possible.
        limit: u64,
    },
    /// The weights ask for more points than allowed.
    #[error(
        "the weights ask for {points} points but the limit is {limit}; \
         lower the points per weight, raise the unit weight, or raise the limit"
    )]
    TooManyPoints {
        /// How many points the weights come to.
        points: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// A table size that the algorithm cannot use.
    #[error("table size {size} does not work: it must be {must_be}")]
    BadTableSize {
        /// The size that was given.
        size: u64,
        /// What sizes are possible.
        must_be: &'static str,
    },
    /// A weight, or the sum of all weights, is above what the server that is matched takes.
    #[error("a weight or sum of weights of {weight} is above {limit}; scale the weights down")]
    TooMuchWeight {
        /// The weight, or the sum.
        weight: u64,
        /// How much is possible.
        limit: u64,
    },
}
