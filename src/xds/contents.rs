//! What responses contain. Streams that get the same resources share the list of them, and the bytes.

use std::{
    collections::HashMap,
    mem,
    ops::Deref,
    slice,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Protocol, names::Names, watch::collection};
use crate::snapshot::{Encoded, ResourceSet};

/// Bundles with fewer bytes are copied for each stream: that costs less than a DATA frame of their own.
const WORTH_PAGES: usize = 32 * 1024;

/// So many bytes are kept as shared pages at most, in the whole process. What is beyond is copied for each stream, as far as the
/// stream has room for it: many clients that do not read may each hold on to another bundle.
const MOST_PAGES: usize = 64 * 1024 * 1024;

/// Bundles of so many bytes in all are kept for those who come next; twice as much for a moment.
const MOST_RECENT: usize = MOST_PAGES / 4;

/// Bytes of shared pages that are alive.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// The resources of a response: bundles that other streams get as well, and single ones.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    bundles: Vec<Arc<Bundle>>,
    single: Single,
}

/// One is what most changes come to. It needs no list of its own, which would be kept until its acknowledgement comes.
#[derive(Clone, Debug)]
enum Single {
    One(Arc<Encoded>),
    Several(Arc<[Arc<Encoded>]>),
}

impl Deref for Single {
    type Target = [Arc<Encoded>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl Default for Single {
    fn default() -> Self {
        Self::Several(Arc::default())
    }
}

/// Some of the resources.
pub(super) enum Part<'a> {
    Resources(&'a [Arc<Encoded>]),
    /// As they are written.
    Pages(&'a [Bytes]),
}

/// Which of a layer's resources.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// All.
    Everything,
    /// Those of a subscription.
    Names(&'a Arc<Names>),
    /// Those whose names begin so.
    Prefix(&'a Arc<str>),
}

/// Some of the resources of a snapshot's layer.
#[derive(Debug)]
pub struct Bundle {
    /// Held on to, because where they are stands for them in [`Bundles`].
    _names: Option<Arc<Names>>,
    resources: Vec<Arc<Encoded>>,
    /// The sum of their sizes.
    bytes: usize,
    /// How long all of them are as they are written, by protocol.
    lengths: [usize; 2],
    /// Whether one of them waits for another resource.
    waits: bool,
    /// What their names begin with, up to the last `/`.
    prefixes: Vec<Arc<str>>,
    /// All of them as they are written, by protocol. None: not to be kept.
    pages: [OnceLock<Option<Pages>>; 2],
}

#[derive(Debug)]
struct Pages {
    pages: Vec<Bytes>,
    bytes: usize,
}

/// The bundles that streams are given now, each once.
#[derive(Debug, Default)]
pub struct Bundles(Mutex<Known>);

/// Of what, and the stamp of the layer.
type Key = (Which, u64);

/// [`Of`], with names by where they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Which {
    Everything,
    Names(usize),
    Prefix(Arc<str>),
}

#[derive(Debug, Default)]
struct Known {
    all: HashMap<Key, Weak<Bundle>>,
    /// What was asked for since [`Bundles::age`] was called, and before: proxies that come one after the other would each make
    /// their own, as nobody has the bundle of one that has acknowledged it.
    recent: [Recent; 2],
}

#[derive(Debug, Default)]
struct Recent {
    bundles: HashMap<Key, Arc<Bundle>>,
    bytes: usize,
}

/// A resource as it is written.
pub(super) fn field(protocol: Protocol, resource: &Encoded) -> &[u8] {
    match protocol {
        Protocol::Delta => resource.delta_field(),
        Protocol::Sotw => resource.sotw_field(),
    }
}

fn length(protocol: Protocol, resources: &[Arc<Encoded>]) -> usize {
    resources.iter().map(|resource| field(protocol, resource).len()).sum()
}

fn place(protocol: Protocol) -> usize {
    usize::from(protocol == Protocol::Sotw)
}

// === impl Contents ===

impl Contents {
    /// Both.
    pub fn new(bundles: Vec<Arc<Bundle>>, single: Vec<Arc<Encoded>>) -> Self {
        let single = <[_; 1]>::try_from(single)
            .map_or_else(|several| Single::Several(several.into()), |[one]| Single::One(one));
        Self { bundles, single }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.bundles.iter().flat_map(|bundle| &bundle.resources).chain(&*self.single)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bundles.iter().map(|bundle| bundle.resources.len()).sum::<usize>() + self.single.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.bundles.iter().all(|bundle| bundle.resources.is_empty())
    }

    /// The sum of their sizes.
    pub fn bytes(&self) -> usize {
        let single = self.single.iter().map(|resource| resource.size());
        self.bundles.iter().map(|bundle| bundle.bytes).chain(single).sum()
    }

    /// Those that wait for another resource.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        let bundles = self.bundles.iter().filter(|bundle| bundle.waits);
        let resources = bundles.flat_map(|bundle| &bundle.resources).chain(&*self.single);
        resources.filter(|resource| resource.waits_for.is_some())
    }

    /// How long all of them are as they are written.
    pub(super) fn length(&self, protocol: Protocol) -> usize {
        let bundles = self.bundles.iter().map(|bundle| bundle.lengths[place(protocol)]);
        bundles.sum::<usize>() + length(protocol, &self.single)
    }

    /// The resources in parts. None: there are no more.
    pub(super) fn part(&self, part: usize, protocol: Protocol) -> Option<Part<'_>> {
        match self.bundles.get(part) {
            Some(bundle) => {
                Some(bundle.pages(protocol).map_or(Part::Resources(&bundle.resources), Part::Pages))
            }
            None => (part == self.bundles.len()).then_some(Part::Resources(&self.single)),
        }
    }
}

impl From<Vec<Arc<Encoded>>> for Contents {
    fn from(single: Vec<Arc<Encoded>>) -> Self {
        Self::new(Vec::new(), single)
    }
}

// === impl Bundle ===

impl Bundle {
    fn new(of: Of<'_>, layer: &ResourceSet) -> Self {
        let resources: Vec<_> = match of {
            Of::Everything => layer.values().cloned().collect(),
            Of::Names(names) => names.iter().filter_map(|name| layer.get(name)).cloned().collect(),
            Of::Prefix(prefix) => layer.with_prefix(prefix).cloned().collect(),
        };
        let names = if let Of::Names(names) = of { Some(names.clone()) } else { None };
        let bytes = resources.iter().map(|resource| resource.size()).sum();
        let lengths = [Protocol::Delta, Protocol::Sotw].map(|protocol| length(protocol, &resources));
        let waits = resources.iter().any(|resource| resource.waits_for.is_some());
        let mut prefixes: Vec<&str> = resources.iter().map(|resource| collection(&resource.name)).collect();
        prefixes.dedup();
        let prefixes = prefixes.into_iter().map(Arc::from).collect();
        Self { _names: names, resources, bytes, lengths, waits, prefixes, pages: Default::default() }
    }

    /// Its resources.
    pub fn resources(&self) -> &[Arc<Encoded>] {
        &self.resources
    }

    /// The sum of the sizes of its resources, and of what comes with each in a response.
    pub fn bytes(&self) -> usize {
        self.bytes + 8 * self.resources.len()
    }

    /// What the names of its resources begin with, up to the last `/`.
    pub fn prefixes(&self) -> &[Arc<str>] {
        &self.prefixes
    }

    fn pages(&self, protocol: Protocol) -> Option<&[Bytes]> {
        let pages = self.pages[place(protocol)].get_or_init(|| {
            let worth = self.bytes >= WORTH_PAGES && PAGES.load(Relaxed) + self.bytes <= MOST_PAGES;
            worth.then(|| Pages::new(super::payload::pages(protocol, &self.resources)))
        });
        pages.as_ref().map(|pages| pages.pages.as_slice())
    }
}

impl Pages {
    fn new(pages: Vec<Bytes>) -> Self {
        let bytes = pages.iter().map(Bytes::len).sum();
        PAGES.fetch_add(bytes, Relaxed);
        Self { pages, bytes }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        PAGES.fetch_sub(self.bytes, Relaxed);
    }
}

// === impl Bundles ===

impl Bundles {
    /// Lets go of bundles that nobody is sent any more.
    pub fn forget(&self) {
        let mut known = self.0.lock();
        known.recent = Default::default();
        known.retain_alive();
        known.all.shrink_to_fit();
    }

    /// Lets go of bundles that nobody is sent any more and nobody has asked for since this was called last.
    pub fn age(&self) {
        let mut known = self.0.lock();
        let [young, old] = &mut known.recent;
        let gone = mem::replace(old, mem::take(young));
        // Not under the lock.
        drop(known);
        drop(gone);
    }

    /// What a layer has of this.
    pub fn get(&self, of: Of<'_>, layer: &ResourceSet) -> Arc<Bundle> {
        let which = match of {
            Of::Everything => Which::Everything,
            Of::Names(names) => Which::Names(Arc::as_ptr(names).addr()),
            Of::Prefix(prefix) => Which::Prefix(prefix.clone()),
        };
        let key = (which, layer.stamp());
        if let Some(bundle) = self.0.lock().get(&key) {
            return bundle;
        }
        // Not under the lock. Two that come at once may both make one.
        let new = Arc::new(Bundle::new(of, layer));
        self.0.lock().insert(key, &new);
        new
    }
}

// === impl Known ===

impl Known {
    fn get(&mut self, key: &Key) -> Option<Arc<Bundle>> {
        let bundle = self.all.get(key)?.upgrade()?;
        self.recent[0].insert(key.clone(), &bundle);
        Some(bundle)
    }

    fn insert(&mut self, key: Key, bundle: &Arc<Bundle>) {
        if self.all.len() == self.all.capacity() {
            self.retain_alive();
        }
        self.all.insert(key.clone(), Arc::downgrade(bundle));
        self.recent[0].insert(key, bundle);
    }

    fn retain_alive(&mut self) {
        self.all.retain(|_, bundle| bundle.strong_count() > 0);
    }
}

// === impl Recent ===

impl Recent {
    /// Keeps it, if there is room.
    fn insert(&mut self, key: Key, bundle: &Arc<Bundle>) {
        let bytes = size_of::<(Key, Bundle)>() + bundle.bytes();
        if self.bytes + bytes <= MOST_RECENT && self.bundles.insert(key, bundle.clone()).is_none() {
            self.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(size: usize) -> ResourceSet {
        let one = Encoded::new("a".into(), "t", &vec![0; size], None, Arc::new([]));
        [(Arc::from("a"), Arc::new(one))].into_iter().collect()
    }

    #[test]
    fn bundles_are_kept_for_those_who_come_next() {
        let bundles = Bundles::default();
        let layer = layer(100);
        let first = Arc::downgrade(&bundles.get(Of::Everything, &layer));
        bundles.age();
        assert!(
            Weak::ptr_eq(&first, &Arc::downgrade(&bundles.get(Of::Everything, &layer))),
            "nobody has it, and it is there"
        );
        bundles.age();
        assert_eq!(first.strong_count(), 1);
        bundles.age();
        assert_eq!(first.strong_count(), 0, "nobody asked for it since");
        let second = Arc::downgrade(&bundles.get(Of::Everything, &layer));
        bundles.forget();
        assert_eq!((second.strong_count(), bundles.0.lock().all.len()), (0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let bundles = Bundles::default();
        let layers: Vec<_> = (0..3).map(|_| layer(MOST_RECENT / 2 - 1024)).collect();
        let made: Vec<_> =
            layers.iter().map(|layer| Arc::downgrade(&bundles.get(Of::Everything, layer))).collect();
        assert_eq!(made.iter().map(Weak::strong_count).collect::<Vec<_>>(), [1, 1, 0]);
    }
}
