//! From a tree of values to what they mean.
//!
//! A deserializer of our own, since it has to say at which key something is
//! wrong and what was probably meant, and since it knows three shorthands that
//! no format has: `false` for what is not there, `true` for all defaults, and a
//! kind's name alone for a kind with its defaults.

use std::vec;

use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::refusal::{Refusal, quoted};
use super::value::{Table, Value};
use crate::error::excerpt;
use crate::format::Format;

/// Reads one value.
pub(super) struct Reader(pub(super) Value);

type Read<T> = Result<T, Refusal>;

impl Reader {
    /// A text of the environment, as the list or table that it has to be.
    fn structured(self) -> Read<Value> {
        let text = match self.0 {
            on if on.is_on() => return Ok(Value::Table(Table::new())),
            Value::Variable(text) => text,
            value => return Ok(value),
        };
        if text.starts_with(['[', '{']) {
            return Format::Json.read(&text).map_err(Refusal::new);
        }
        let parts = text.split(',').map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        Ok(Value::List(
            parts.map(|part| Value::Variable(part.to_owned())).collect(),
        ))
    }
}

/// A text of the environment, as the number that is asked for.
macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            match &self.0 {
                Value::Variable(text) => match text.trim().parse() {
                    Ok(value) => Reader(Value::Integer(value)).deserialize_any(visitor),
                    Err(_) => Err(Refusal::new("it must be a whole number")),
                },
                _ => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Reader {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.0 {
            Value::Nothing => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Integer(value) => match u64::try_from(value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(i64::try_from(value).unwrap_or(i64::MIN)),
            },
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(text) | Value::Variable(text) => visitor.visit_string(text),
            Value::List(list) => visitor.visit_seq(Items {
                left: list.into_iter(),
                at: 0,
            }),
            Value::Table(table) => visitor.visit_map(Entries::of(table)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match &self.0 {
            Value::Variable(_) if self.0.is_on() => visitor.visit_bool(true),
            Value::Variable(_) if self.0.is_off() => visitor.visit_bool(false),
            Value::Variable(_) => Err(Refusal::new("it must be `true` or `false`")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match &self.0 {
            Value::Variable(text) => match text.trim().parse() {
                Ok(value) => visitor.visit_f64(value),
                Err(_) => Err(Refusal::new("it must be a number")),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    integers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.0.is_off() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        Self(self.structured()?).deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Read<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        Self(self.structured()?).deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        match self.structured()? {
            // Serde would take its items for the keys' values, one by one.
            Value::List(_) => Err(Refusal::new(format!(
                "it must be a section of keys, of which there are {}",
                quoted(fields)
            ))),
            value => Self(value).deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        kinds: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        let chosen = match self.0 {
            Value::Text(kind) | Value::Variable(kind) if !kind.starts_with('{') => {
                let settings = Value::Table(Table::new());
                return visitor.visit_enum(Kind { kind, settings });
            }
            value => match Reader(value).structured()? {
                Value::Table(table) => table,
                _ => return Err(Refusal::new(one_of(kinds))),
            },
        };
        let mut chosen: Vec<_> = chosen
            .into_iter()
            .filter(|(_, settings)| !settings.is_off())
            .collect();
        match (chosen.pop(), chosen.first()) {
            (Some((kind, settings)), None) => {
                let part = kind.clone();
                let read = visitor.visit_enum(Kind { kind, settings });
                read.map_err(|refusal| refusal.inside(part))
            }
            (Some((last, _)), Some((first, _))) => Err(Refusal::new(format!(
                "it can be one thing only, and is both `{}` and `{}`; set one of them to `false`",
                excerpt(first, 64),
                excerpt(&last, 64)
            ))),
            (None, _) => Err(Refusal::new(one_of(kinds))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char str string bytes byte_buf unit unit_struct tuple_struct
        identifier ignored_any
    }
}

fn one_of(kinds: &[&str]) -> String {
    format!("it must be one of {}", quoted(kinds))
}

struct Items {
    left: vec::IntoIter<Value>,
    at: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        let Some(value) = self.left.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(Reader(value));
        let read = read.map_err(|refusal| refusal.inside(self.at.to_string()))?;
        self.at += 1;
        Ok(Some(read))
    }
}

struct Entries {
    left: std::collections::btree_map::IntoIter<String, Value>,
    /// The entry whose key was read.
    current: Option<(String, Value)>,
}

impl Entries {
    fn of(table: Table) -> Self {
        Self {
            left: table.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        let Some((key, value)) = self.left.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(StringDeserializer::new(key.clone()));
        let read = read.map_err(|refusal: Refusal| refusal.inside(&key))?;
        self.current = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<T::Value> {
        let none = || Refusal::new("a value was asked for before its key");
        let (key, value) = self.current.take().ok_or_else(none)?;
        let read = seed.deserialize(Reader(value));
        read.map_err(|refusal| refusal.inside(key))
    }
}

/// One kind of several, and its settings.
struct Kind {
    kind: String,
    settings: Value,
}

impl<'de> EnumAccess<'de> for Kind {
    type Error = Refusal;
    type Variant = Settings;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<(T::Value, Settings)> {
        let kind = seed.deserialize(StringDeserializer::<Refusal>::new(self.kind))?;
        Ok((kind, Settings(self.settings)))
    }
}

struct Settings(Value);

impl<'de> VariantAccess<'de> for Settings {
    type Error = Refusal;

    fn unit_variant(self) -> Read<()> {
        match self.0 {
            Value::Table(table) if table.is_empty() => Ok(()),
            on if on.is_on() => Ok(()),
            Value::Table(table) => {
                let key = table.into_keys().next().unwrap_or_default();
                Err(Refusal::new("there is no such key; it has no settings").inside(key))
            }
            _ => Err(Refusal::new("it has no settings; `true` switches it on")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        seed.deserialize(Reader(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Read<V::Value> {
        Reader(self.0).deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        Reader(self.0).deserialize_map(visitor)
    }
}

/// What `T` is, written as `value`.
pub(super) fn read<T: de::DeserializeOwned>(value: Value) -> Read<T> {
    T::deserialize(Reader(value))
}
