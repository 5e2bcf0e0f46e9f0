//! The parts of a split, for calls that name theirs.

use super::group::Draw;
use super::state::State;
use crate::strategy::{PickContext, Turns};
use crate::topology::{Fallback, Group, Selector, Topology};

/// Which groups of a state each part of the split has.
pub(super) struct Parts {
    parts: Box<[Part]>,
    fallback: Fallback,
}

struct Part {
    selector: Selector,
    /// Positions among the state's groups, those first that share its calls.
    groups: Box<[usize]>,
    draw: Option<Draw>,
}

impl Parts {
    /// Of groups in the state's order; none where nothing is split.
    pub(super) fn of(topology: &Topology, groups: &[Group]) -> Option<Box<Self>> {
        let hidden_first = usize::from(Self::hides_first(groups.iter().map(|g| g.only_named)));
        let parts: Box<[Part]> = topology
            .part_selectors()
            .enumerate()
            .map(|(number, selector)| {
                let of_part = groups.iter().enumerate();
                let mut of_part: Vec<(usize, &Group)> = of_part
                    .filter(|(_, group)| group.part == Some(number))
                    .collect();
                of_part.sort_by_key(|(_, group)| group.share_of_part <= 0.0);
                let shares: Vec<f64> = of_part.iter().map(|(_, g)| g.share_of_part).collect();
                Part {
                    selector: selector.clone(),
                    groups: of_part.iter().map(|(at, _)| at + hidden_first).collect(),
                    draw: Draw::new(&shares),
                }
            })
            .collect();
        let fallback = topology.falls_back().clone();
        (!parts.is_empty()).then(|| Box::new(Self { parts, fallback }))
    }

    /// Whether a state begins with a group of nobody, since the first of these
    /// is only for calls that name it.
    pub(super) fn hides_first(mut only_named: impl Iterator<Item = bool>) -> bool {
        only_named.next().unwrap_or(false)
    }

    /// The node that a call of that subset gets.
    pub(super) fn pick(
        &self,
        state: &State,
        turns: &Turns,
        subset: &Selector,
        context: &mut PickContext<'_>,
    ) -> Option<u32> {
        let named = self.pick_of(state, subset, context);
        named.or_else(|| match &self.fallback {
            Fallback::Any => state.pick_any(turns, context),
            Fallback::None => None,
            Fallback::To(other) => self.pick_of(state, other, context),
        })
    }

    fn pick_of(
        &self,
        state: &State,
        subset: &Selector,
        context: &mut PickContext<'_>,
    ) -> Option<u32> {
        let part = self.parts.iter().find(|part| part.selector == *subset)?;
        let drawn = part.draw.as_ref().map_or(0, |draw| draw.draw(context));
        let first = part.groups.get(drawn)?;
        let others = part.groups.iter().filter(|&at| at != first);
        let mut groups = std::iter::once(first).chain(others);
        groups.find_map(|&at| state.groups().nth(at)?.pick(context))
    }
}
