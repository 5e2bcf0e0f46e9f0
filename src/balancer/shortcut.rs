//! How a call of any endpoint is picked where nothing but a common choice has to
//! be looked at.

use super::group::{Draw, Group};
use crate::strategy::{Common, CommonByWeight, is_peak_ewma};
use crate::time::Clock;

/// A choice that is made in place, without asking a picker.
///
/// Which it is stands in a byte of its own: told from a pointer within, it would
/// cost each pick four instructions more.
#[repr(u8)]
pub(super) enum Shortcut {
    /// Among endpoints of one weight, in the first group, which gets every call.
    Common(Common),
    /// The same of unequal weights.
    ByWeight(CommonByWeight),
    /// The cheaper of two by peak EWMA, with the clock that costs go by: as
    /// common, and by more than the calls in flight.
    ByCost(Clock),
    /// Among groups that share the calls, and then within the one that was drawn.
    Shares(Box<Shares>),
}

impl Shortcut {
    /// Of a state whose first group gets every call.
    pub(super) fn of_first(first: &Group, stopwatch: Option<&Clock>) -> Option<Self> {
        let picker = first.picker();
        if let Some(common) = Common::of(picker) {
            return Some(Self::Common(common));
        }
        if let Some(common) = CommonByWeight::of(picker) {
            return Some(Self::ByWeight(common));
        }
        let clock = stopwatch.filter(|_| is_peak_ewma(picker));
        clock.cloned().map(Self::ByCost)
    }
}

/// The groups that share the calls, in one place.
pub(super) struct Shares {
    /// The last of the draws of 32 bits that each has, ascending.
    last: [u32; Self::MOST],
    groups: [Share; Self::MOST],
}

/// Where a group is, and its choice.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) start: u32,
    pub(super) len: u32,
    /// None where the picker has to be asked.
    pub(super) common: Option<Common>,
}

impl Shares {
    /// A cache line of bounds and one and a half of groups.
    const MOST: usize = 8;

    /// The groups with what each has of the draw; none where they are too many.
    pub(super) fn of(draw: &Draw, groups: &[Group]) -> Option<Box<Self>> {
        let others = draw.groups() - 1;
        if others >= Self::MOST {
            return None;
        }
        // What rounding left belongs to the last.
        let mut shares = Self {
            last: [u32::MAX; Self::MOST],
            groups: Default::default(),
        };
        for (last, bound) in shares.last[..others].iter_mut().zip(draw.bounds()) {
            *last = bound.saturating_sub(1);
        }
        for (share, group) in shares.groups.iter_mut().zip(groups).take(others + 1) {
            *share = Share {
                start: group.view.start(),
                len: group.len(),
                common: Common::of(group.picker()),
            };
        }
        Some(Box::new(shares))
    }

    /// The group of a number that was drawn.
    #[inline]
    pub(super) fn at(&self, drawn: u32) -> (usize, Share) {
        let at = self.last.iter().position(|&last| drawn <= last);
        let at = at.unwrap_or_default() % Self::MOST;
        (at, self.groups[at])
    }
}
