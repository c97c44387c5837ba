//! What most types on most streams never have.
//!
//! A stream has a watch for each type, and all of them are looked at for each push. With ten thousand streams none of that is
//! in the processor's cache, so that it is memory and time in one: what is rare is a pointer until there is something in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
    time::Instant,
};

use super::Table;
use crate::{
    snapshot::{Encoded, Version},
    xds::Contents,
};

/// Exceptions and parts.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub owed: Owed,
    pub refused: BTreeMap<Arc<str>, Refused>,
    pub held: BTreeMap<Arc<str>, Held>,
    /// Tables that the client has, and what the names of their parts begin with. A newer version of one leaves its parts as
    /// they are.
    pub tables: BTreeMap<Arc<str>, Arc<str>>,
    /// What happened to them that the watch of the parts does not know yet.
    pub news: Vec<Table>,
    /// Tables that this client gets in their second spelling: it may have the first from another stream.
    pub respelt: BTreeSet<Arc<str>>,
    /// Collections that are gone and that the client still asks for, with what it may have of them.
    pub vanished: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Route configurations in place of which an empty one must not be sent: the client has, or may have, one that waits for
    /// virtual hosts. Without them Envoy loses hold of its subscription to them and follows it beyond its end
    /// (`RdsRouteConfigSubscription::afterProviderUpdate`).
    pub spared: BTreeSet<Arc<str>>,
    /// What the names of parts begin with that the client has a place for. It drops others; of virtual hosts it says on a
    /// reconnect that it has them all the same.
    pub open: BTreeSet<Arc<str>>,
    /// Those of them that it waits for, and whether all have to be sent, known or not.
    pub awaited: BTreeMap<Arc<str>, bool>,
}

/// Assignments that clusters wait for which were sent before the client asked for any. All that it asks for without saying that
/// it has it is sent anyway.
#[derive(Debug, Default)]
pub(super) enum Owed {
    #[default]
    Nothing,
    /// Those of these clusters.
    These(Contents),
    /// It was more than once.
    Everything,
}

/// A version that the client refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub version: Version,
    /// What stands in for it, where the whole set has to be sent: the last good bytes.
    pub kept: Option<Arc<Encoded>>,
}

/// Gone from the snapshot, kept by the client until nothing names it any more.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub resource: Arc<Encoded>,
    pub gone_in: u64,
    pub since: Instant,
    /// For as long as the client asks for it.
    pub kept: bool,
}

/// [`Rare`], or nothing of it so far. Reads as if it were there.
#[derive(Debug, Default)]
pub(super) struct Rarely(Option<Box<Rare>>);

impl Rarely {
    /// To add to it.
    pub fn make(&mut self) -> &mut Rare {
        self.0.get_or_insert_default()
    }

    /// To take away from it.
    pub fn some(&mut self) -> Option<&mut Rare> {
        self.0.as_deref_mut()
    }
}

impl Deref for Rarely {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        static NOTHING: Rare = Rare {
            owed: Owed::Nothing,
            refused: BTreeMap::new(),
            held: BTreeMap::new(),
            tables: BTreeMap::new(),
            news: Vec::new(),
            respelt: BTreeSet::new(),
            vanished: BTreeMap::new(),
            spared: BTreeSet::new(),
            open: BTreeSet::new(),
            awaited: BTreeMap::new(),
        };
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}
