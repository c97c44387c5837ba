//! The types of one stream.

use std::sync::{Arc, LazyLock};

use super::{
    kind::Kind,
    watch::{Step, Watch},
};
use crate::snapshot::{Resources, Snapshot};

/// A watch for each type that there is something to say of. A stream looks at all of them for each push, and most proxies never
/// ask for most types: those are not there.
#[derive(Debug, Default)]
pub struct Watches([Option<Box<Watch>>; Kind::ALL.len()]);

static UNTOUCHED: LazyLock<[Watch; Kind::ALL.len()]> = LazyLock::new(|| {
    let (snapshot, secrets) = (Arc::new(Snapshot::empty()), Resources::default());
    let start = Arc::new(Step { sequence: 0, snapshot, secrets });
    Kind::ALL.map(|kind| Watch::new(kind, start.clone()))
});

impl Watches {
    /// The state of a type.
    pub fn get(&self, kind: Kind) -> &Watch {
        let index = kind.index();
        self.0[index].as_deref().unwrap_or(&UNTOUCHED[index])
    }

    /// The same, to change it.
    pub fn make(&mut self, kind: Kind) -> &mut Watch {
        let index = kind.index();
        self.0[index].get_or_insert_with(|| Box::new(Watch::new(kind, UNTOUCHED[index].step.clone())))
    }

    /// The same, if there is anything to change.
    pub fn some(&mut self, kind: Kind) -> Option<&mut Watch> {
        self.0[kind.index()].as_deref_mut()
    }

    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Watch> {
        self.0.iter().flatten().map(|watch| &**watch)
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Watch> {
        self.0.iter_mut().flatten().map(|watch| &mut **watch)
    }
}
