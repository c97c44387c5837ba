//! Responses, before they are given the form of their protocol.

use std::{fmt, num::NonZeroU64, sync::Arc};

use super::{contents::Contents, kind::Kind, watch::Step};

/// The two forms of xDS streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Each response holds what changed.
    Delta,
    /// Each response of clusters or listeners holds all of them.
    Sotw,
}

/// Names a response on its stream: they are counted. Text on the wire, a number here, where each stream keeps a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(NonZeroU64);

/// One response. Its resources are shared with every other stream.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The type.
    pub kind: Kind,
    /// Unique on the stream.
    pub nonce: Nonce,
    /// `version_info`, or `system_version_info`.
    pub version: FrameVersion,
    /// What the client gets.
    pub resources: Contents,
    /// What it shall drop (Delta only).
    pub removed: Vec<Arc<str>>,
    /// The snapshot that it comes from.
    pub step: Arc<Step>,
    /// Whether it was sent for an event, not for a request.
    pub push: bool,
}

/// What the resources of a response are a version of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameVersion {
    /// The snapshot with this epoch.
    Epoch(u64),
    /// All of them together: a hash that is equal over restarts and replicas.
    Content(u64),
}

impl fmt::Display for FrameVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(epoch) => epoch.fmt(f),
            Self::Content(hash) => write!(f, "{hash:016x}"),
        }
    }
}

impl Nonce {
    /// The first response's.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The next one's.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether this text of a client is it.
    pub fn is(self, text: &str) -> bool {
        // Other spellings of the number are not ours.
        !text.starts_with(['+', '0']) && text.parse() == Ok(self.0)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Frame {
    /// The bytes of its resources, and of the names of what is removed.
    pub fn bytes(&self) -> usize {
        self.resources.bytes() + self.removed.iter().map(|name| name.len()).sum::<usize>()
    }
}
