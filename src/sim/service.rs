//! How long a server works at a call.

use crate::rng::Rng;

/// The distribution of service times around their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Service {
    /// Exponential: coefficient of variation 1.
    #[default]
    Exponential,
    /// Always the mean.
    Deterministic,
    /// Log-normal with this standard deviation of the logarithm.
    Lognormal {
        /// Standard deviation of the logarithm; 0 or more.
        sigma: f64,
    },
    /// Pareto with this tail index.
    Pareto {
        /// Tail index; above 1, or there is no mean.
        alpha: f64,
    },
    /// Some calls take `factor` times what the others take.
    Bimodal {
        /// The share of calls that take longer, in 0..=1.
        share: f64,
        /// How many times longer.
        factor: f64,
    },
}

impl Service {
    /// What is wrong with the parameters; none when nothing is.
    pub(super) fn objection(self) -> Option<&'static str> {
        let (fine, rule) = match self {
            Self::Exponential | Self::Deterministic => return None,
            Self::Lognormal { sigma } => (
                (0.0..=10.0).contains(&sigma),
                "a sigma of log-normal is in 0..=10",
            ),
            Self::Pareto { alpha } => (
                alpha > 1.0 && alpha.is_finite(),
                "an alpha of Pareto is above 1",
            ),
            Self::Bimodal { share, factor } => (
                (0.0..=1.0).contains(&share) && factor > 0.0 && factor.is_finite(),
                "bimodal has a share in 0..=1 and a positive factor",
            ),
        };
        (!fine).then_some(rule)
    }

    /// A draw with mean 1.
    pub(super) fn draw(self, rng: &mut Rng) -> f64 {
        match self {
            Self::Exponential => exponential(rng),
            Self::Deterministic => 1.0,
            // exp(sigma^2 / 2) is the mean of exp(sigma N).
            Self::Lognormal { sigma } => (sigma * normal(rng) - sigma * sigma / 2.0).exp(),
            // The mean of a Pareto from 1 is alpha / (alpha - 1).
            Self::Pareto { alpha } => (exponential(rng) / alpha).exp() * (alpha - 1.0) / alpha,
            Self::Bimodal { share, factor } => {
                let short = 1.0 / (1.0 + share * (factor - 1.0));
                if unit(rng) <= share {
                    short * factor
                } else {
                    short
                }
            }
        }
    }
}

/// Uniform in (0, 1]: 53 bits, and never 0, whose logarithm is infinite.
pub(super) fn unit(rng: &mut Rng) -> f64 {
    ((rng.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// Exponential with mean 1.
pub(super) fn exponential(rng: &mut Rng) -> f64 {
    -unit(rng).ln()
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut Rng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (std::f64::consts::TAU * unit(rng)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distribution_has_mean_one() {
        let all = [
            Service::Exponential,
            Service::Deterministic,
            Service::Lognormal { sigma: 0.5 },
            Service::Pareto { alpha: 4.0 },
            Service::Bimodal {
                share: 0.1,
                factor: 10.0,
            },
        ];
        for service in all {
            let mut rng = Rng::seeded(5);
            let sum: f64 = (0..200_000).map(|_| service.draw(&mut rng)).sum();
            // The widest is bimodal: a deviation of 1.4, so four errors are .013.
            let mean = sum / 200_000.0;
            assert!((mean - 1.0).abs() < 0.013, "{service:?}: {mean}");
        }
    }
}
