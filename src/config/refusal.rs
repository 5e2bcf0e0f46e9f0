//! Why what was written is not taken, and at which key.

use std::fmt;

use crate::error::excerpt;

/// Serde's error, with the path of the key, built from the inside out.
#[derive(Debug)]
pub(super) struct Refusal {
    /// From the last part to the first.
    path: Vec<String>,
    reason: String,
}

impl Refusal {
    /// Says that it was inside of `part`.
    pub(super) fn inside(mut self, part: impl Into<String>) -> Self {
        self.path.push(part.into());
        self
    }

    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            reason: reason.into(),
        }
    }

    /// The path, from the root on, and the reason.
    pub(super) fn into_parts(mut self) -> (Vec<String>, String) {
        self.path.reverse();
        (self.path, self.reason)
    }
}

impl serde::de::Error for Refusal {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        // Serde quotes what it refuses.
        Self::new(excerpt(&reason.to_string(), 400))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("there is no such key; {}", hint(field, known)))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let shown = excerpt(variant, 64);
        Self::new(format!("`{shown}` is unknown; {}", hint(variant, known)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("it must be set").inside(field)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// The known name that is nearest, if one is near; else all of them.
fn hint(written: &str, known: &[&str]) -> String {
    let written = written.to_ascii_lowercase();
    let near = known.iter().map(|name| (distance(&written, name), name));
    // A third of a word changed is another word.
    let most = (written.chars().count() / 3).max(2);
    match near.min() {
        Some((distance, name)) if distance <= most => format!("did you mean `{name}`?"),
        _ => format!("there are {}", quoted(known)),
    }
}

/// All of the names: `` `a`, `b` ``.
pub(super) fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// Levenshtein's distance, in which two letters that changed places count as one
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_nearest_name_is_proposed_and_none_that_is_far() {
        let known = ["interval", "base_time", "max_time", "max_percent"];
        for (written, meant) in [
            ("intervall", "interval"),
            ("intreval", "interval"),
            ("basetime", "base_time"),
            ("MAX_TIME", "max_time"),
            ("max_precent", "max_percent"),
        ] {
            assert_eq!(hint(written, &known), format!("did you mean `{meant}`?"));
        }
        let all = hint("colour", &known);
        assert!(
            all.starts_with("there are `interval`, `base_time`"),
            "{all}"
        );
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn what_is_refused_is_quoted_shortly() {
        let long = "x".repeat(100_000);
        for document in [
            format!(r#"{{"{long}": 1}}"#),
            format!(r#"{{"strategy": "{long}"}}"#),
            format!(r#"{{"calls": "{long}"}}"#),
        ] {
            let error = Config::from_json(&document).unwrap_err();
            let text = error.to_string();
            assert!(
                text.len() < 1_000 && text.contains('…'),
                "{} {:.300}",
                text.len(),
                text
            );
        }
    }
}
