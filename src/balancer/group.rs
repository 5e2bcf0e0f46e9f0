//! Endpoints that are picked from together, and which of several such groups
//! gets a call.

use crate::rng::Rng;
use crate::strategy::{BoxPicker, PickContext, Picker, RoundRobin, Strategy};
use crate::view::View;

/// Endpoints of one priority, zone and part of a split, and the choice among
/// them.
pub(super) struct Group {
    pub(super) view: View,
    picker: BoxPicker,
    /// None where there is but one.
    pub(super) rank: Option<Rank>,
}

/// What a group is.
#[derive(Clone, Debug)]
pub(super) struct Rank {
    pub(super) share: f64,
    pub(super) priority: u32,
    pub(super) part: Option<usize>,
    pub(super) only_named: bool,
    pub(super) panic: bool,
}

impl Rank {
    fn is_same_place(&self, other: &Self) -> bool {
        (self.priority, self.part) == (other.priority, other.part)
    }
}

impl Group {
    pub(super) fn none() -> Self {
        let view = View::none();
        Self {
            picker: RoundRobin::new().build(&view),
            view,
            rank: None,
        }
    }

    /// The group of that view, which follows the one of the same rank before.
    pub(super) fn new<'a>(
        view: View,
        rank: Option<Rank>,
        mut before: impl Iterator<Item = &'a Self>,
        strategy: &dyn Strategy,
    ) -> Self {
        let before = before.find(|group| match (&group.rank, &rank) {
            (Some(before), Some(now)) => {
                before.is_same_place(now) && first_zone(&group.view) == first_zone(&view)
            }
            (None, None) => !group.view.is_empty(),
            _ => false,
        });
        let picker = match before {
            None => strategy.build(&view),
            Some(before) => strategy.rebuild(&view, before.picker()),
        };
        Self { view, picker, rank }
    }

    pub(super) fn picker(&self) -> &dyn Picker {
        &*self.picker
    }

    pub(super) fn len(&self) -> u32 {
        self.view.len()
    }

    /// The position, among the state's endpoints, of the one that gets the call.
    pub(super) fn pick(&self, context: &mut PickContext<'_>) -> Option<u32> {
        let index = self.picker.pick(context)?;
        (index < self.view.len()).then(|| self.view.start() + index)
    }
}

fn first_zone(view: &View) -> Option<&str> {
    view.endpoints().first()?.locality().zone()
}

/// Shares of the first groups, as upper bounds of a draw of 32 bits.
pub(super) struct Draw(Box<[u32]>);

impl Draw {
    /// None where the first gets all.
    pub(super) fn new(shares: &[f64]) -> Option<Self> {
        let mut sum = 0.0;
        let bounds = shares
            .iter()
            .take_while(|&&share| share > 0.0)
            .map(|share| {
                sum += share;
                (sum * 2_f64.powi(32)) as u32
            });
        let bounds: Box<[u32]> = bounds.collect();
        (bounds.len() > 1).then_some(Self(bounds))
    }

    /// How many groups share the calls; two at least.
    pub(super) fn groups(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bounds(&self) -> &[u32] {
        &self.0
    }

    /// Calls with equal keys go to the same group.
    pub(super) fn draw(&self, context: &mut PickContext<'_>) -> usize {
        let bits = match context.hash() {
            Some(hash) => Rng::seeded(hash).bits(),
            None => context.rng().bits(),
        };
        let drawn = (bits >> 32) as u32;
        let group = self.0.iter().position(|&bound| drawn < bound);
        // What rounding left belongs to the last.
        group.unwrap_or(self.0.len() - 1)
    }
}
