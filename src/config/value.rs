//! What was written, before anybody knows what it means.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A tree of values, from whatever format.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nothing,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    /// From an environment variable: what it is depends on what is asked for.
    Variable(String),
    List(Vec<Value>),
    Table(Table),
}

pub(super) type Table = BTreeMap<String, Value>;

impl Value {
    /// Puts what `other` says over this: table by table, all else as a whole.
    pub(super) fn overlay(&mut self, other: Self) {
        match (self, other) {
            (Self::Table(under), Self::Table(over)) => {
                for (key, value) in over {
                    match under.get_mut(&key) {
                        Some(below) => below.overlay(value),
                        None => drop(under.insert(key, value)),
                    }
                }
            }
            (under, over) => *under = over,
        }
    }

    /// Whether something is said at that place.
    pub(super) fn says(&self, path: &[String]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return true;
        };
        match self {
            Self::Table(table) => table.get(first).is_some_and(|value| value.says(rest)),
            Self::List(list) => {
                let at = first.parse::<usize>().ok();
                at.and_then(|at| list.get(at))
                    .is_some_and(|value| value.says(rest))
            }
            // Its parts are its own.
            Self::Variable(_) => true,
            _ => false,
        }
    }

    /// Whether it switches off what it stands for.
    pub(super) fn is_off(&self) -> bool {
        match self {
            Self::Nothing | Self::Bool(false) => true,
            Self::Variable(text) => text.trim().eq_ignore_ascii_case("false"),
            _ => false,
        }
    }

    /// Whether it switches on what it stands for, with its defaults.
    pub(super) fn is_on(&self) -> bool {
        match self {
            Self::Bool(on) => *on,
            Self::Variable(text) => text.trim().eq_ignore_ascii_case("true"),
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut table = Table::new();
        while let Some((key, value)) = map.next_entry::<String, _>()? {
            // JSON would let it pass, and the last would win.
            if table.contains_key(&key) {
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
            table.insert(key, value);
        }
        Ok(Value::Table(table))
    }
}
