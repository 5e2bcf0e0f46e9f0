//! Passwords, tokens and keys: by value, by file or by environment variable.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::error::Error;

/// Something that is not to be seen, and where it is.
///
/// Written as the text itself, as `{ file = "/run/secrets/token" }` or as
/// `{ env = "CONSUL_TOKEN" }`; what is in a file ends before its last line
/// break, Windows' or another. Files and variables are read when the configuration is built.
///
/// Neither [`Debug`](fmt::Debug) nor serde shows the text: it is written as
/// `(hidden)`, which is not taken for a secret when it is read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Text(String),
    File(PathBuf),
    Variable(String),
}

const HIDDEN: &str = "(hidden)";

impl Secret {
    /// The text itself.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Place::Text(text.into()))
    }

    /// What is in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    /// What an environment variable holds.
    pub fn variable(name: impl Into<String>) -> Self {
        Self(Place::Variable(name.into()))
    }

    /// The text; `at` is the key that it is for.
    pub(super) fn reveal(&self, at: &str) -> Result<String, Error> {
        let cannot = |what, why: &dyn fmt::Display| Error::config(at, format!("{what}: {why}"));
        let text = match &self.0 {
            Place::Text(text) => Ok(text.clone()),
            Place::File(path) => std::fs::read_to_string(path)
                .map(|text| {
                    let line = text.strip_suffix('\n').unwrap_or(&text);
                    line.strip_suffix('\r').unwrap_or(line).to_owned()
                })
                .map_err(|error| {
                    let what = format!("its file {} cannot be read", path.display());
                    cannot(what, &error)
                }),
            Place::Variable(name) => std::env::var(name).map_err(|error| {
                let what = format!("its environment variable {name} cannot be read");
                // The error would show what is no text.
                match error {
                    std::env::VarError::NotPresent => cannot(what, &"it is not set"),
                    std::env::VarError::NotUnicode(_) => cannot(what, &"it holds no text"),
                }
            }),
        }?;
        if text.is_empty() {
            return Err(Error::config(at, "it is empty"));
        }
        Ok(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Text(_) => f.write_str(HIDDEN),
            Place::File(path) => f.debug_tuple("File").field(path).finish(),
            Place::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    File(PathBuf),
    Env(String),
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.clone() {
            Place::Text(_) => to.serialize_str(HIDDEN),
            Place::File(path) => Written::File(path).serialize(to),
            Place::Variable(name) => Written::Env(name).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// What is of another type is refused without being shown, as serde would.
macro_rules! unseen {
    ($($method:ident $type:ty)*) => {
        $(fn $method<E: de::Error>(self, _: $type) -> Result<Secret, E> {
            Err(E::custom("it must be a text, in quotes"))
        })*
    };
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or `file` or `env` with where it is")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        if text == HIDDEN {
            let reason = "`(hidden)` is what a configuration prints in place of a secret; give \
                          the secret itself, or `file` or `env` with where it is";
            return Err(E::custom(reason));
        }
        Ok(Secret::text(text))
    }

    unseen! { visit_bool bool visit_i64 i64 visit_u64 u64 visit_f64 f64 }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
        Ok(Secret(
            match Written::deserialize(MapAccessDeserializer::new(map))? {
                Written::File(path) => Place::File(path),
                Written::Env(name) => Place::Variable(name),
            },
        ))
    }
}
