//! Times as people write them: `250ms`, `10s`, `1m30s`, `2h`, `1d`.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use crate::error::Error as Refused;

/// From the largest down, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The shortest way to write it, without loss.
pub(super) fn written(time: Duration) -> String {
    let mut left = time.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in UNITS {
        let count = left / nanos;
        left %= nanos;
        if count > 0 {
            write!(text, "{count}{unit}").expect("a string can be written");
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Refuses what the builder would bring into these bounds without a word.
pub(super) fn between(
    path: &str,
    time: Duration,
    least: u64,
    most: u64,
) -> Result<Duration, Refused> {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    if (least..=most).contains(&time) {
        return Ok(time);
    }
    let [time, least, most] = [time, least, most].map(written);
    let reason = format!("`{time}` is refused: it is from {least} to {most}");
    Err(Refused::config(path, reason))
}

fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty; write a time, such as `10s`".into());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_alphabetic() && c != 'µ');
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let unit = if unit == "µs" { "us" } else { unit };
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let term = known.and_then(|(_, each)| count.parse::<u128>().ok()?.checked_mul(*each));
        nanos = term
            .and_then(|term| nanos.checked_add(term))
            .ok_or_else(|| wrong(text, unit.is_empty()))?;
        rest = after.trim_start();
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| format!("`{text}` is longer than five centuries"))
}

fn wrong(text: &str, without_unit: bool) -> String {
    let number = text.chars().all(|c| c.is_ascii_digit());
    if without_unit && number {
        return format!("`{text}` has no unit; write `{text}s` or `{text}ms`");
    }
    format!(
        "`{text}` is no time; write whole numbers with d, h, m, s, ms, us or ns, such as `1m30s`"
    )
}

pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&written(*time))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Time)
}

struct Time;

impl Visitor<'_> for Time {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time, such as \"10s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
        Err(E::custom(wrong(&number.to_string(), true)))
    }
}

/// Of a time that may be absent.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, written};

    struct Written(Duration);

    impl<'de> Deserialize<'de> for Written {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            super::deserialize(from).map(Self)
        }
    }

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(written).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let written = Option::<Written>::deserialize(from)?;
        Ok(written.map(|Written(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_is_what_people_write() {
        for (text, nanos) in [
            ("0s", 0),
            ("250ms", 250_000_000),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1d", 86_400_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1us500ns", 1_500),
        ] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(parse(text), Ok(time), "{text}");
            assert_eq!(written(time), text);
        }
        assert_eq!(parse(" 1m 30s "), Ok(Duration::from_secs(90)));
        assert_eq!(parse("7µs"), Ok(Duration::from_micros(7)));
        assert_eq!(parse("90s"), parse("1m30s"));
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be() {
        for (text, said) in [
            ("", "such as `10s`"),
            ("30", "write `30s` or `30ms`"),
            ("30 sec", "whole numbers with"),
            ("1.5s", "whole numbers with"),
            ("-1s", "whole numbers with"),
            ("s", "whole numbers with"),
            ("1s5", "whole numbers with"),
            ("99999999999d", "five centuries"),
            (
                "340282366920938463463374607431768211455d",
                "whole numbers with",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
