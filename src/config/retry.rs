//! What is sent again, and what that may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::{self, between};
use crate::error::Error;
use crate::resilience::{Attempts, Hedge, Retry, RetryBudget};

/// A [`Retry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often a call is sent in all.
    pub attempts: u32,
    /// The most that is waited before the second attempt, doubling from there.
    #[serde(with = "time")]
    pub backoff: Duration,
    /// The most that is waited before any.
    #[serde(with = "time")]
    pub max_backoff: Duration,
    /// The HTTP statuses that are worth another attempt.
    pub statuses: Vec<u16>,
    /// The gRPC codes that are.
    pub grpc_codes: Vec<u32>,
    /// Calls of every method may be repeated.
    pub any_method: bool,
    /// The longest pause that a server may ask for.
    #[serde(with = "time")]
    pub max_wait: Duration,
    /// The largest body, in bytes, that is kept to be sent again.
    pub max_body: u64,
    /// What retries may cost in all.
    pub budget: BudgetConfig,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            statuses: vec![502, 503, 504],
            grpc_codes: vec![14],
            any_method: false,
            max_wait: Duration::from_secs(5),
            max_body: 64 * 1_024,
            budget: BudgetConfig::default(),
        }
    }
}

impl RetryConfig {
    pub(super) fn build(&self) -> Result<Retry, Error> {
        if self.attempts == 0 {
            let reason = "`0` is refused: a call is sent once at least, which is `1`";
            return Err(Error::config("calls.retry.attempts", reason));
        }
        let retry = Retry::new()
            .attempts(Attempts::at_most(self.attempts))
            .backoff(self.backoff, self.max_backoff)
            .max_wait(self.max_wait)
            .max_body(self.max_body)
            .budget(self.budget.build()?);
        let retry = if self.any_method {
            retry.any_method()
        } else {
            retry
        };
        retry
            .statuses(self.statuses.iter().copied())
            .and_then(|retry| retry.grpc_codes(self.grpc_codes.iter().copied()))
            .map_err(|error| error.within("calls.retry"))
    }
}

/// A [`RetryBudget`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BudgetConfig {
    /// A share of the calls.
    Share(ShareConfig),
    /// gRPC's.
    Throttle(TokensConfig),
    /// None but each call's attempts.
    Unlimited,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self::Share(ShareConfig::default())
    }
}

impl BudgetConfig {
    pub(super) fn build(&self) -> Result<RetryBudget, Error> {
        match self {
            &Self::Share(ShareConfig {
                percent,
                min_per_second,
                ttl,
            }) => share("calls.retry.budget.share", percent, min_per_second, ttl),
            Self::Throttle(tokens) => RetryBudget::throttle(tokens.max_tokens, tokens.token_ratio)
                .map_err(|error| error.within("calls.retry.budget.throttle")),
            Self::Unlimited => Ok(RetryBudget::unlimited()),
        }
    }
}

/// Of [`RetryBudget::share`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShareConfig {
    /// At most so many percent of the calls.
    pub percent: u32,
    /// And so many a second more.
    pub min_per_second: u32,
    /// How long a call counts.
    #[serde(with = "time")]
    pub ttl: Duration,
}

impl Default for ShareConfig {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        }
    }
}

fn share(
    path: &str,
    percent: u32,
    min_per_second: u32,
    ttl: Duration,
) -> Result<RetryBudget, Error> {
    let budget = RetryBudget::share(percent).map_err(|error| error.within(path))?;
    let ttl = between(&format!("{path}.ttl"), ttl, 1, 60)?;
    Ok(budget.min_per_second(min_per_second).ttl(ttl))
}

/// Of [`RetryBudget::throttle`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokensConfig {
    /// How many tokens there are; a failure takes one.
    pub max_tokens: u32,
    /// What a success gives back.
    pub token_ratio: f64,
}

impl Default for TokensConfig {
    /// The example of gRPC's A6.
    fn default() -> Self {
        Self {
            max_tokens: 10,
            token_ratio: 0.1,
        }
    }
}

/// A [`Hedge`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeConfig {
    /// After a fixed delay.
    #[serde(with = "time::option")]
    pub after: Option<Duration>,
    /// Once a call takes longer than this share of calls did lately.
    pub beyond: Option<f64>,
    /// What hedges may cost.
    pub budget: HedgeBudgetConfig,
}

/// Of a hedge's [`RetryBudget::share`], which is smaller than a retry's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeBudgetConfig {
    /// At most so many percent of the calls.
    pub percent: u32,
    /// And so many a second more.
    pub min_per_second: u32,
    /// How long a call counts.
    #[serde(with = "time")]
    pub ttl: Duration,
}

impl Default for HedgeBudgetConfig {
    fn default() -> Self {
        Self {
            percent: 5,
            min_per_second: 1,
            ttl: Duration::from_secs(10),
        }
    }
}

impl HedgeConfig {
    pub(super) fn build(&self) -> Result<Hedge, Error> {
        let hedge = match (self.after, self.beyond) {
            (Some(delay), None) => Ok(Hedge::after(delay)),
            (None, Some(share)) => Hedge::beyond(share),
            _ => {
                let reason = "set either `after`, such as \"100ms\", or `beyond`, such as 0.95";
                return Err(Error::config("calls.hedge", reason));
            }
        };
        let hedge = hedge.map_err(|error| error.within("calls.hedge"))?;
        let HedgeBudgetConfig {
            percent,
            min_per_second,
            ttl,
        } = self.budget;
        let budget = share("calls.hedge.budget", percent, min_per_second, ttl)?;
        Ok(hedge.budget(budget))
    }
}
