//! What is wrong with an object, said to a person.

use std::fmt;

use thiserror::Error;

/// One thing about one field: what, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field's path in the object, e.g. `spec.ports[1].port`; empty for the whole object.
    pub field: String,
    /// What is wrong and what follows from it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// A finding about `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    /// `spec.host: is missing; add spec.host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, reason, remedy } = self;
        let colon = if field.is_empty() { "" } else { ": " };
        write!(f, "{field}{colon}{reason}; {remedy}")
    }
}

/// The object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub Box<Finding>);

impl Invalid {
    /// Refuses an object because of `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(Box::new(Finding::new(field, reason, remedy)))
    }
}

/// What is refused is an error; what is only ignored is collected on the side.
pub type Result<T> = std::result::Result<T, Invalid>;

/// Things that are accepted but not done, or not as written.
pub type Warnings = Vec<Finding>;
