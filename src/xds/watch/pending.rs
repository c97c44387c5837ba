//! Names that a client has to be told about.

use std::{collections::BTreeMap, sync::Arc};

use super::Has;
use crate::xds::Names;

/// What is still to be sent, and what the client has of it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// All that was asked for at first; then there is nothing else. It mostly goes out as a whole.
    all: Option<Arc<Names>>,
    each: BTreeMap<Arc<str>, Has>,
}

impl Pending {
    /// These names, of which nothing is known.
    pub fn all(names: Arc<Names>) -> Self {
        Self { all: (!names.is_empty()).then_some(names), each: BTreeMap::new() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.each.is_empty()
    }

    /// Takes the names if they are still those of [`Self::all`].
    pub fn take_all(&mut self) -> Option<Arc<Names>> {
        self.all.take()
    }

    /// Name by name.
    pub fn each(&mut self) -> &mut BTreeMap<Arc<str>, Has> {
        if let Some(all) = self.all.take() {
            self.each = all.iter().map(|name| (name.clone(), Has::Unknown)).collect();
        }
        &mut self.each
    }
}
