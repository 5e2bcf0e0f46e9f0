//! Endpoints compared with each other.

/// The success rate below which an endpoint stands out: the mean less so many
/// standard deviations of the whole population (Envoy's formula).
pub(super) fn success_threshold(rates: &[f64], deviations: f64) -> f64 {
    let n = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / n;
    mean - deviations * variance.sqrt()
}

/// The middle one; the lower of two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len().saturating_sub(1) / 2;
    values.sort_by(f64::total_cmp);
    values.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the comments of Envoy's `outlier_detection_impl.cc`.
    #[test]
    fn envoys_example() {
        let threshold = success_threshold(&[50.0, 100.0, 100.0, 100.0, 100.0], 1.9);
        assert!((threshold - 52.0).abs() < 1e-9, "{threshold}");
    }

    #[test]
    fn the_median_is_the_lower_middle() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
        assert!((median(vec![9.0, 1.0]) - 1.0).abs() < f64::EPSILON);
    }
}
