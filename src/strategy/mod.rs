//! Which of the endpoints that may be picked gets this call.
//!
//! A [`Strategy`] is a recipe; for each new set it builds a [`Picker`] off the
//! hot path, and the picker answers every call: no lock, no allocation, no
//! system call. What must outlive a rebuild (in flight, latency) is in the
//! nodes' [stats](crate::stats), and what a thread remembers between two picks
//! is in its [`PickContext`]; so a picker is plain data.
//!
//! | strategy | a pick costs | use it when |
//! | --- | --- | --- |
//! | [`P2c`] | O(1): two loads compared | calls differ in cost, endpoints in speed |
//! | [`P2c::peak_ewma`] | O(1), and a reading of the clock before it | as `P2c`, where latency tells more than calls in flight, or failures are fast |
//! | [`Adaptive`] (default) | O(32): .2 to .4 µs where `P2c` takes .015 | nothing is known of the service, endpoints differ in speed, or servers [report](crate::load) their load |
//! | [`Prequal`] | O(16) | as `Adaptive`, with probes: very many clients, or endpoints whose speed changes |
//! | [`RoundRobin`] | O(1) | calls and endpoints are all alike, or a strict turn is wanted |
//! | [`LoadWeighted`] | O(1) | as `RoundRobin`, where servers [report](crate::load) their load and endpoints differ in speed |
//! | [`SmoothWeighted`] | O(1) | as `RoundRobin`, in the very order of nginx |
//! | [`Random`] | O(1) | as round robin, with very many clients |
//! | [`LeastConn`] | O(n), ends at the first idle endpoint | few clients, up to a few hundred endpoints |
//! | [`LeastConn::choices`] | O(choices) | as `P2c`, with a longer look |
//! | [`PickFirst`] | O(1) | one endpoint shall do the work, the others stand by |
//! | [`RingHash`] | O(1): one cache line | equal keys shall meet the same endpoint: caches, sessions, shards |
//! | [`Maglev`] | O(1): one index | as `RingHash`, with even shares, where endpoints seldom change |
//! | [`BlockHrw`] | O(16) | as `RingHash`, for thousands of equal endpoints whose health flaps |
//! | [`Rendezvous`] | O(n) | as `RingHash`, with even shares, up to some dozens of endpoints |
//!
//! All of them but `BlockHrw` and `PickFirst` in the order of ids honour weights, and none of them returns an endpoint that the
//! call has [tried](Tried) while another is left.
//!
//! # A strategy of your own
//!
//! ```
//! use waypost::strategy::{BoxPicker, PickContext, Picker, Strategy};
//! use waypost::view::{NodeIndex, View};
//!
//! /// The first endpoint that was not tried yet.
//! #[derive(Debug)]
//! struct First;
//!
//! struct FirstPicker(View);
//!
//! impl Strategy for First {
//!     fn build(&self, view: &View) -> BoxPicker {
//!         Box::new(FirstPicker(view.clone()))
//!     }
//! }
//!
//! impl Picker for FirstPicker {
//!     fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
//!         context.first_untried(&self.0, 0)
//!     }
//! }
//!
//! # fn main() -> Result<(), waypost::Error> {
//! use waypost::{Balancer, Endpoint, EndpointSet};
//! let (users, mut updater) = Balancer::builder("users").strategy(First).manual()?;
//! updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?])?);
//! assert_eq!(users.pick()?.address().as_str(), "10.0.0.1:80");
//! # Ok(()) }
//! ```

mod adaptive;
mod alias;
mod block_hrw;
mod common;
mod context;
mod keyed;
mod least_conn;
mod load_weighted;
mod maglev;
mod p2c;
mod peak_ewma;
mod pick_first;
mod prequal;
mod random;
mod rendezvous;
mod ring_hash;
mod round_robin;
mod smooth_weighted;
mod tried;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use adaptive::Adaptive;
pub use block_hrw::BlockHrw;
pub(crate) use common::{Common, CommonByWeight, Memory, Turns};
pub use context::{PickContext, PickOptions};
pub use keyed::MissingKey;
pub use least_conn::LeastConn;
pub use load_weighted::LoadWeighted;
pub use maglev::Maglev;
pub use p2c::P2c;
pub(crate) use peak_ewma::{begin_at_cheaper, is_peak_ewma};
pub use pick_first::PickFirst;
pub use prequal::Prequal;
pub use random::Random;
pub use rendezvous::Rendezvous;
pub use ring_hash::RingHash;
pub use round_robin::RoundRobin;
pub use smooth_weighted::SmoothWeighted;
pub use tried::Tried;

use crate::view::{NodeIndex, View};

/// A picker of any strategy.
///
/// Pickers are called through a pointer even when the strategy is known at
/// compile time: the call costs about a nanosecond, and in return a
/// [`Balancer`](crate::Balancer) is one plain type, whatever its strategy.
pub type BoxPicker = Box<dyn Picker>;

/// A way to choose.
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// Prepares the choice among the nodes of `view`. Runs on each change of
    /// the set, off the hot path; an O(n) preparation is fine.
    fn build(&self, view: &View) -> BoxPicker;

    /// Prepares the choice, given the picker that the new one takes the place of: the same as
    /// [`build`](Self::build), for less where little has changed. `before` was built by this
    /// strategy for the last view of the same level; what it is can be found out by a downcast.
    fn rebuild(&self, view: &View, before: &dyn Picker) -> BoxPicker {
        let _ = before;
        self.build(view)
    }

    /// Whether its pickers ask for [`View::total_in_flight`]. A balancer then keeps a total, which
    /// costs each call two more writes.
    fn reads_total(&self) -> bool {
        false
    }

    /// Whether its pickers ask for [`PickContext::now`], and go by what calls cost. A balancer then
    /// reads the clock before each pick and not after it, and records latency even if it was told
    /// [not to](crate::balancer::BalancerBuilder::latency).
    fn reads_latency(&self) -> bool {
        false
    }

    /// Whether its pickers go by what servers [say of their load](crate::load). The clients of this
    /// crate then look for reports in answers, and else do not.
    fn reads_reports(&self) -> bool {
        false
    }
}

/// A choice that was prepared for one view.
pub trait Picker: Any + Send + Sync {
    /// The position, in the view that the picker was built for, of the node
    /// that gets the call; none when the call has tried them all.
    ///
    /// The hot path: it must not block, allocate or enter the kernel. A
    /// position outside the view is treated as none.
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex>;
}

macro_rules! as_what_it_points_to {
    ($pointer:ident) => {
        impl<T: Strategy + ?Sized> Strategy for $pointer<T> {
            fn build(&self, view: &View) -> BoxPicker {
                (**self).build(view)
            }

            fn rebuild(&self, view: &View, before: &dyn Picker) -> BoxPicker {
                (**self).rebuild(view, before)
            }

            fn reads_total(&self) -> bool {
                (**self).reads_total()
            }

            fn reads_latency(&self) -> bool {
                (**self).reads_latency()
            }

            fn reads_reports(&self) -> bool {
                (**self).reads_reports()
            }
        }
    };
}

as_what_it_points_to!(Arc);
as_what_it_points_to!(Box);
