//! Why an endpoint may be picked now, or may not.

use std::fmt;
use std::time::Duration;

use super::core::Core;
use super::group::Group;
use super::layout::Fact;
use super::state::State;
use crate::endpoint::{Endpoint, Status};
use crate::health::outlier::Standing;

/// What a balancer does with each endpoint, and why:
/// [`Balancer::explain`](crate::Balancer::explain).
///
/// ```
/// use waypost::{Balancer, Endpoint, EndpointSet, Status};
///
/// # fn main() -> Result<(), waypost::Error> {
/// let (users, mut updater) = Balancer::builder("users").manual()?;
/// let leaving = Endpoint::builder("10.0.0.2:80").status(Status::Draining).build()?;
/// updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?, leaving])?);
/// assert_eq!(users.explain().to_string(), "\
/// users: 1 of 2 endpoints may be picked
///   10.0.0.1:80: 100.0 % of the calls
///   10.0.0.2:80: no calls, it is draining
/// ");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// Each endpoint, in the order of ids.
    pub endpoints: Vec<Verdict>,
}

/// What a balancer does with an endpoint.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The endpoint's id.
    pub id: String,
    /// Where it is called.
    pub address: String,
    /// What the registry says of it.
    pub status: Status,
    /// Its priority.
    pub priority: u32,
    /// Its zone.
    pub zone: Option<String>,
    /// The part of the split that it is in.
    pub part: Option<usize>,
    /// Its weight by the registry.
    pub weight: u32,
    /// Its weight now: less while it ramps up.
    pub effective_weight: f64,
    /// The share of all calls that its priority, zone and part of a split get
    /// together, of 1.
    pub group_share: f64,
    /// The share of all calls that it gets, of 1, as far as weights decide.
    pub share: f64,
    /// Whether a call may go to it, or has to.
    pub why: Why,
}

/// Whether an endpoint may be picked, and why.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It gets its share.
    Picked,
    /// It gets a growing share.
    Ramping,
    /// It is ill, and gets calls because so many are that it is not believed.
    Panic {
        /// What speaks against it.
        ill: Box<Why>,
    },
    /// It gets calls when those that share them have been tried.
    Spare,
    /// It gets the calls that name its part of the split.
    Named,
    /// It gets one call, which decides.
    OnTrial,
    /// Its status keeps it out.
    Status,
    /// Its weight is 0.
    Weightless,
    /// It fails its health check.
    CheckFailed {
        /// What the probe that decided it found.
        reason: String,
    },
    /// Calls to it failed.
    Ejected {
        /// How long it still is.
        remaining: Duration,
        /// How it came about.
        cause: String,
    },
    /// It is not in this client's subset, or in no part of the split.
    NotInSubset,
}

pub(super) fn explain(core: &Core) -> Explanation {
    let state = core.published.load();
    let verdicts = state.set.iter().enumerate();
    let groups = Groups::of(&state);
    Explanation {
        service: core.service.as_str().to_owned(),
        endpoints: verdicts
            .map(|(position, endpoint)| verdict(core, &state, &groups, position, endpoint))
            .collect(),
    }
}

/// The groups, each with where it ends and what its weights add up to.
struct Groups<'a>(Vec<(u32, u64, &'a Group)>);

impl<'a> Groups<'a> {
    fn of(state: &'a State) -> Self {
        let total = |group: &Group| group.view.weights().iter().copied().map(u64::from).sum();
        let groups = state.groups();
        Self(
            groups
                .map(|group| (group.view.start() + group.len(), total(group), group))
                .collect(),
        )
    }

    fn at(&self, place: usize) -> Option<(u64, &'a Group)> {
        let at = self.0.partition_point(|&(end, ..)| end as usize <= place);
        self.0.get(at).map(|&(_, total, group)| (total, group))
    }
}

fn verdict(
    core: &Core,
    state: &State,
    groups: &Groups<'_>,
    position: usize,
    endpoint: &Endpoint,
) -> Verdict {
    let fact = state
        .facts
        .as_ref()
        .map_or(Fact::WELL, |facts| facts[position].clone());
    let place = state.place_of(position);
    let group = groups.at(place);
    let rank = group.and_then(|(_, group)| group.rank.as_ref());
    let group_share = match group {
        Some(_) => rank.map_or(1.0, |rank| rank.share),
        None => 0.0,
    };
    let share = group.map_or(0.0, |(total, _)| {
        group_share * f64::from(state.roster.weights[place]) / total as f64
    });
    let panic = rank.is_some_and(|rank| rank.panic);
    let out = why_not(core, endpoint, &fact);
    let why = match (group, out) {
        (None, out) => out.unwrap_or(Why::NotInSubset),
        (Some(_), Some(ill)) if panic => Why::Panic { ill: Box::new(ill) },
        (Some(_), _) if rank.is_some_and(|rank| rank.only_named) => Why::Named,
        (Some(_), _) if group_share <= 0.0 => Why::Spare,
        (Some(_), _) if fact.factor < 1.0 => Why::Ramping,
        (Some(_), _) => Why::Picked,
    };
    Verdict {
        id: endpoint.id().as_str().to_owned(),
        address: endpoint.address().as_str().to_owned(),
        status: endpoint.status(),
        priority: endpoint.priority(),
        zone: endpoint.locality().zone().map(str::to_owned),
        part: rank.and_then(|rank| rank.part),
        weight: endpoint.weight(),
        effective_weight: f64::from(endpoint.weight()) * fact.factor,
        group_share,
        share,
        why,
    }
}

/// In the order of precedence: the registry, the check, the calls.
fn why_not(core: &Core, endpoint: &Endpoint, fact: &Fact) -> Option<Why> {
    if endpoint.status() != Status::Up {
        return Some(Why::Status);
    }
    if endpoint.weight() == 0 {
        return Some(Why::Weightless);
    }
    if let Some(reason) = &fact.failing {
        return Some(Why::CheckFailed {
            reason: reason.as_ref().to_owned(),
        });
    }
    match fact.standing {
        Standing::Admitted => None,
        Standing::OnTrial => Some(Why::OnTrial),
        Standing::Ejected { until, cause } => Some(Why::Ejected {
            remaining: until.since(core.clock.now()),
            cause: cause.to_string(),
        }),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let eligible = self.endpoints.iter().filter(|it| it.is_picked()).count();
        let (service, known) = (&self.service, self.endpoints.len());
        writeln!(
            f,
            "{service}: {eligible} of {known} endpoints may be picked"
        )?;
        self.endpoints
            .iter()
            .try_for_each(|verdict| writeln!(f, "  {verdict}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.reason())
    }
}

struct Reason<'a>(&'a Verdict);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.0;
        let percent = verdict.share * 100.0;
        match &verdict.why {
            Why::Picked => write!(f, "{percent:.1} % of the calls"),
            Why::Ramping => write!(
                f,
                "{percent:.1} % of the calls, ramping up with a weight of {:.2} of {}",
                verdict.effective_weight, verdict.weight
            ),
            Why::Panic { ill } => {
                write!(f, "{percent:.1} % of the calls, though ")?;
                verdict.object(ill, f)?;
                let priority = verdict.priority;
                write!(f, ": too many of priority {priority} are ill")
            }
            Why::Spare => write!(
                f,
                "no calls while the others take them, priority {}",
                verdict.priority
            ),
            Why::Named => f.write_str("the calls that name its part of the split"),
            Why::OnTrial => f.write_str("one trial call, which decides"),
            objection => {
                f.write_str("no calls, ")?;
                verdict.object(objection, f)
            }
        }
    }
}

impl Verdict {
    /// The verdict in words, without the endpoint it is on.
    #[must_use]
    pub fn reason(&self) -> impl fmt::Display {
        Reason(self)
    }

    /// Whether calls go to it, or would if those that go first had been tried.
    #[must_use]
    pub fn is_picked(&self) -> bool {
        self.share > 0.0 || matches!(self.why, Why::Spare | Why::Named)
    }

    /// What speaks against it.
    fn object(&self, why: &Why, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match why {
            Why::Status => write!(f, "it is {}", self.status),
            Why::Weightless => f.write_str("its weight is 0"),
            Why::CheckFailed { reason } => write!(f, "it fails its health check ({reason})"),
            Why::OnTrial => f.write_str("its trial call is awaited"),
            Why::Ejected { remaining, cause } => {
                let seconds = remaining.as_secs_f64();
                write!(f, "it is ejected for {seconds:.1} s ({cause})")
            }
            _ => f.write_str("it is not in this client's subset"),
        }
    }
}
