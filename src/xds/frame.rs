//! Responses, before and after they are given the form of their protocol.

use std::sync::Arc;

use landbridge_proto::landbridge::envelope::{DeltaDiscoveryResponse, DiscoveryResponse};

use super::{contents::Contents, kind::Kind, watch::Step};

/// The two forms of xDS streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Each response holds what changed.
    Delta,
    /// Each response of clusters or listeners holds all of them.
    Sotw,
}

/// One response. Its resources are shared with every other stream.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The type.
    pub kind: Kind,
    /// Unique on the stream.
    pub nonce: String,
    /// `version_info`, or `system_version_info`.
    pub version: String,
    /// What the client gets.
    pub resources: Contents,
    /// What it shall drop (Delta only).
    pub removed: Vec<Arc<str>>,
    /// The snapshot that it comes from.
    pub step: Step,
    /// Whether it was sent for an event, not for a request.
    pub push: bool,
}

impl Frame {
    /// The bytes of its resources, and of the names of what is removed.
    pub fn bytes(&self) -> usize {
        self.resources.bytes() + self.removed.iter().map(|name| name.len()).sum::<usize>()
    }

    /// In the form of Delta streams.
    pub fn into_delta(self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: self.version,
            resources: self.resources.iter().map(|r| r.resource()).collect(),
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce,
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
            control_plane: None,
        }
    }

    /// In the form of state-of-the-world streams.
    pub fn into_sotw(self) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: self.version,
            resources: self.resources.iter().map(|r| r.any()).collect(),
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce,
            control_plane: None,
        }
    }
}
