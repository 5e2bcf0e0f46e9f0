//! What a server says of when to come back.

use std::time::Duration;

/// A server's word on retries, which goes before the client's own backoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing was said.
    #[default]
    None,
    /// Not before this time has passed.
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// The header that gRPC servers push back with (A6).
    pub const GRPC_HEADER: &'static str = "grpc-retry-pushback-ms";

    /// Of a `Retry-After` (RFC 9110, 10.2.3) in seconds. A date is told by
    /// [`Pushback::retry_after_date`]; what is neither says nothing.
    #[must_use]
    pub fn retry_after(value: &str) -> Self {
        let value = value.trim();
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::None;
        }
        // More digits than fit are longer than anybody waits.
        Self::After(Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
    }

    /// Of a `Retry-After` that is a date, parsed by whoever knows the calendar:
    /// `until` and `now` in seconds of any one clock. What has passed is 0.
    #[must_use]
    pub fn retry_after_date(until: u64, now: u64) -> Self {
        Self::After(Duration::from_secs(until.saturating_sub(now)))
    }

    /// Of a `grpc-retry-pushback-ms`: a negative number, and what is no number,
    /// mean never (A6).
    #[must_use]
    pub fn grpc(value: &str) -> Self {
        match value.trim().parse::<u64>() {
            Ok(millis) => Self::After(Duration::from_millis(millis)),
            Err(_) => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_and_nonsense_says_nothing() {
        for (value, told) in [
            ("0", Pushback::After(Duration::ZERO)),
            (" 120 ", Pushback::After(Duration::from_mins(2))),
            (
                "99999999999999999999999",
                Pushback::After(Duration::from_secs(u64::MAX)),
            ),
            ("", Pushback::None),
            ("-1", Pushback::None),
            ("+1", Pushback::None),
            ("1.5", Pushback::None),
            ("soon", Pushback::None),
        ] {
            assert_eq!(Pushback::retry_after(value), told, "{value:?}");
        }
        assert_eq!(
            Pushback::retry_after_date(10, 20),
            Pushback::After(Duration::ZERO)
        );
    }

    #[test]
    fn grpc_takes_what_is_no_number_for_never() {
        for (value, told) in [
            ("0", Pushback::After(Duration::ZERO)),
            ("25", Pushback::After(Duration::from_millis(25))),
            ("-1", Pushback::Never),
            ("", Pushback::Never),
            ("soon", Pushback::Never),
        ] {
            assert_eq!(Pushback::grpc(value), told, "{value:?}");
        }
    }
}
