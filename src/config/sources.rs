//! Files, texts and environment variables, laid over each other.

use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::read::read;
use super::value::{Table, Value};
use crate::error::{Error, excerpt};
use crate::format::Format;

/// Where a configuration is read from: each source says what is different from
/// the ones before it, key by key; lists and texts are taken as a whole.
///
/// ```
/// use waypost::config::{Config, Sources};
///
/// let config: Config = Sources::new()
///     .toml("service = 'users'\n[calls]\ntimeout = '2s'\nwait = '1s'")
///     .variables("WAYPOST", [("WAYPOST__CALLS__TIMEOUT", "500ms")])
///     .read()?;
/// assert_eq!(config.calls.timeout, Some(std::time::Duration::from_millis(500)));
/// assert_eq!(config.calls.wait, std::time::Duration::from_secs(1));
///
/// let wrong = Sources::new().toml("[calls.retry]\natempts = 2").read::<Config>();
/// assert_eq!(
///     wrong.unwrap_err().to_string(),
///     "configuration: calls.retry.atempts: there is no such key; did you mean `attempts`?"
/// );
/// # Ok::<(), waypost::Error>(())
/// ```
///
/// # What it reads
///
/// Anything that serde can: a [`Config`](super::Config), or an application's own
/// structure with some of them in it. Beside what the formats have, it knows:
///
/// - `false`, for what is not there or switched off;
/// - `true`, for a section with all its defaults;
/// - a kind's name, for a kind with all its defaults: `strategy = "ring_hash"`.
///
/// # Environment variables
///
/// `WAYPOST__CALLS__TIMEOUT=2s` sets `calls.timeout`: the parts of the path are
/// joined by two underscores. Case does not matter, so that keys of maps are in
/// small letters; nor does it in `true` and `false`. A list is written with commas
/// (`502,503`), and whatever a variable cannot say otherwise as JSON.
#[derive(Clone, Default)]
#[must_use = "it is read by `read`"]
pub struct Sources {
    layers: Vec<Layer>,
}

#[derive(Clone)]
struct Layer {
    content: Result<Value, Error>,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    Text,
    File(String),
    /// The names of variables, with the paths that they set.
    Variables(Vec<(Vec<String>, String)>),
}

impl Sources {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file; its ending tells whether it is TOML, YAML or JSON.
    pub fn file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            let reason = format!("the file cannot be read: {error}");
            Error::config(&*name, reason)
        };
        let content = Format::of("configuration", path).and_then(|format| {
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            parse(format, &text, &name)
        });
        self.layer(content, Origin::File(name))
    }

    /// A TOML document.
    pub fn toml(self, text: &str) -> Self {
        self.layer(parse(Format::Toml, text, "TOML"), Origin::Text)
    }

    /// A YAML document.
    pub fn yaml(self, text: &str) -> Self {
        self.layer(parse(Format::Yaml, text, "YAML"), Origin::Text)
    }

    /// A JSON document.
    pub fn json(self, text: &str) -> Self {
        self.layer(parse(Format::Json, text, "JSON"), Origin::Text)
    }

    /// The process's environment variables that begin with `WAYPOST__`, or
    /// another prefix than `WAYPOST`.
    pub fn environment(self, prefix: &str) -> Self {
        // What is no text cannot be one of ours.
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        self.variables(prefix, texts)
    }

    /// Variables as [`environment`](Self::environment) reads them.
    pub fn variables<N, V>(self, prefix: &str, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let mut paths: Vec<(Vec<String>, String)> = Vec::new();
        let mut content = Value::Table(Table::new());
        let mut ours: Vec<(String, String)> = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(name, _)| path_of(name, prefix).is_some())
            .collect();
        ours.sort();
        for (name, value) in ours {
            let path = path_of(&name, prefix).unwrap_or_default();
            if let Some((_, other)) = paths
                .iter()
                .find(|(set, _)| path.starts_with(set.as_slice()))
            {
                let reason =
                    format!("it says more of what {other} says already; unset one of them");
                return self.layer(Err(Error::config(name, reason)), Origin::Text);
            }
            let over = path
                .iter()
                .rev()
                .fold(Value::Variable(value), |value, key| {
                    Value::Table(Table::from([(key.clone(), value)]))
                });
            content.overlay(over);
            paths.push((path, name));
        }
        self.layer(Ok(content), Origin::Variables(paths))
    }

    fn layer(mut self, content: Result<Value, Error>, origin: Origin) -> Self {
        self.layers.push(Layer { content, origin });
        self
    }

    /// What they say.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when a source cannot be read, or something is not
    /// as it has to be: with the path of the key, where it was set, and why.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Error> {
        let mut all = Value::Table(Table::new());
        for layer in &self.layers {
            all.overlay(layer.content.clone()?);
        }
        read(all).map_err(|refusal| {
            let (path, reason) = refusal.into_parts();
            let shown = excerpt(&path.join("."), 200);
            Error::config(format!("{shown}{}", self.origin(&path)), reason)
        })
    }

    /// Where a path was set last.
    fn origin(&self, path: &[String]) -> String {
        let says = |layer: &&Layer| layer.content.as_ref().is_ok_and(|value| value.says(path));
        match self
            .layers
            .iter()
            .rev()
            .find(says)
            .map(|layer| &layer.origin)
        {
            Some(Origin::File(name)) => format!(" (in {name})"),
            Some(Origin::Variables(names)) => {
                let related = |set: &[String]| set.starts_with(path) || path.starts_with(set);
                let name = names.iter().find(|(set, _)| related(set));
                name.map_or_else(String::new, |(_, name)| format!(" (in {name})"))
            }
            Some(Origin::Text) | None => String::new(),
        }
    }
}

/// The path that a variable sets, if it is one of ours.
fn path_of(name: &str, prefix: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(prefix)?.strip_prefix("__")?;
    Some(rest.to_lowercase().split("__").map(str::to_owned).collect())
}

fn parse(format: Format, text: &str, name: &str) -> Result<Value, Error> {
    let value: Value = format
        .read(text)
        .map_err(|reason| Error::config(name, reason))?;
    match value {
        // An empty YAML document.
        Value::Nothing => Ok(Value::Table(Table::new())),
        Value::Table(_) => Ok(value),
        _ => Err(Error::config(name, "it is no table of keys and values")),
    }
}

/// Values may be secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.layers.iter().map(|layer| match &layer.origin {
            Origin::Text => "a text",
            Origin::File(name) => name,
            Origin::Variables(_) => "variables",
        });
        f.debug_list().entries(origins).finish()
    }
}
