//! TOML, JSON and YAML, told apart by a file's ending.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, excerpt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Toml,
    Json,
    Yaml,
}

impl Format {
    /// The format of a file; `field` is where its path is set.
    pub(crate) fn of(field: &'static str, path: &Path) -> Result<Self, Error> {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_ascii_lowercase().as_str() {
            "toml" => Ok(Self::Toml),
            "json" => Ok(Self::Json),
            "yaml" | "yml" => Ok(Self::Yaml),
            _ => {
                let reason = "its ending tells no format; `.toml`, `.json`, `.yaml` and `.yml` do";
                Err(Error::invalid(field, path.display(), reason))
            }
        }
    }

    /// Reads a whole document; the `Err` says, shortly, what is wrong, and in
    /// which line and column.
    pub(crate) fn read<T: DeserializeOwned>(self, text: &str) -> Result<T, String> {
        let read = match self {
            Self::Toml => toml::from_str(text).map_err(|error| {
                let place = error.span().map(|span| place_of(text, span.start));
                format!("{}{}", error.message(), place.unwrap_or_default())
            }),
            // These say where, too.
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Self::Yaml => serde_yaml_ng::from_str(text).map_err(|error| error.to_string()),
        };
        // They quote what they refuse.
        read.map_err(|reason| excerpt(&reason, 400))
    }
}

fn place_of(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!(" at line {line} column {column}")
}
