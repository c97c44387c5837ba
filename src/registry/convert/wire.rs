//! Scalars as people and API servers write them: numbers as text, text as numbers, Go durations.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, de};

use crate::model::Labels;

/// Text; numbers and booleans are taken as what was written (`version: 1` in labels).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub Arc<str>);

/// The same, borrowed from the JSON where that is possible: kinds that come by the hundred thousand are read with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str<'a>(pub Cow<'a, str>);

/// An integer; protobuf's JSON also allows `"100"` and `100.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int(pub i64);

/// A number with a fraction, or the same as text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Real(pub f64);

/// A boolean, with YAML 1.1's spellings: `kubectl` reads `yes` as true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A duration as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Span {
    /// `30s`, `1h30m`, as Go reads them.
    Text(Arc<str>),
    /// A bare number, which has no unit.
    Number(f64),
}

/// Labels, annotations, selectors.
pub fn labels(wire: BTreeMap<Text, Text>) -> Labels {
    wire.into_iter().map(|(k, v)| (k.0, v.0)).collect()
}

// === impl Text ===

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(d)?;
        Ok(Self(match scalar {
            Scalar::Text(text) => text.into(),
            Scalar::Bool(value) => value.to_string().into(),
            Scalar::Int(value) => value.to_string().into(),
            Scalar::Real(value) => value.to_string().into(),
        }))
    }
}

// === impl Int ===

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(d)?;
        let value = match &scalar {
            Scalar::Int(value) => Some(*value),
            // Exact up to 2^53, far above every field that is read.
            #[allow(clippy::cast_possible_truncation)]
            Scalar::Real(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
            Scalar::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        value.map(Self).ok_or_else(|| de::Error::custom(format!("{scalar} is not a whole number")))
    }
}

// === impl Real ===

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(d)?;
        let value = match &scalar {
            #[allow(clippy::cast_precision_loss)]
            Scalar::Int(value) => Some(*value as f64),
            Scalar::Real(value) => Some(*value),
            Scalar::Text(text) => text.trim().parse().ok(),
            Scalar::Bool(_) => None,
        };
        let value = value.filter(|v: &f64| v.is_finite());
        value.map(Self).ok_or_else(|| de::Error::custom(format!("{scalar} is not a number")))
    }
}

// === impl Flag ===

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(d)?;
        let value = match &scalar {
            Scalar::Bool(value) => Some(*value),
            Scalar::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "on" => Some(true),
                "false" | "no" | "n" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        value.map(Self).ok_or_else(|| de::Error::custom(format!("{scalar} is neither true nor false")))
    }
}

// === impl Span ===

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let scalar = Scalar::deserialize(d)?;
        match scalar {
            #[allow(clippy::cast_precision_loss)]
            Scalar::Int(value) => Ok(Self::Number(value as f64)),
            Scalar::Real(value) => Ok(Self::Number(value)),
            Scalar::Text(text) => Ok(Self::Text(text.into())),
            Scalar::Bool(_) => Err(de::Error::custom(format!("{scalar} is not a duration such as 30s"))),
        }
    }
}

/// A list that may be null, as API servers write an empty one.
pub fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

// === impl Str ===

impl Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self(match Scalar::deserialize(d)? {
            Scalar::Text(text) => text,
            Scalar::Bool(value) => value.to_string().into(),
            Scalar::Int(value) => value.to_string().into(),
            Scalar::Real(value) => value.to_string().into(),
        }))
    }
}

// === impl Scalar ===

/// Any scalar.
enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> de::Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value, not a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        #[allow(clippy::cast_precision_loss)]
        Ok(i64::try_from(value).map_or(Scalar::Real(value as f64), Scalar::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Real(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value)))
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}
