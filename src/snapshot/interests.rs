//! What streams follow, kept so that a change finds those that see it without asking each of them.
//!
//! Every stream has a Bloom filter over the names of its load assignments. The filters of 64 streams stand side by side, turned
//! by a quarter: a word is one bit of 64 filters. A name of two bits is then looked up for 64 streams by one `and`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64;

/// Streams whose filters are looked at together.
pub const BLOCK: usize = 64;

/// Words of a filter.
const WORDS: usize = 16;

/// A stream that follows more assignments than this is woken for all of them: with two of the filter's 1,024 bits for each
/// name, a third of the bits would be set.
pub const MANY_NAMES: usize = 200;

/// A name's bits in a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits([u16; 2]);

impl Bits {
    /// Of this name.
    pub fn of(name: &str) -> Self {
        let hash = xxh3_64(name.as_bytes());
        Self([hash, hash >> 32].map(|half| half as u16 % (WORDS as u16 * 64)))
    }

    fn each(self) -> impl Iterator<Item = (usize, u64)> {
        self.0.into_iter().map(|bit| (usize::from(bit) / 64, 1 << (bit % 64)))
    }
}

/// A Bloom filter over names: that one is not there is certain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter([u64; WORDS]);

impl Filter {
    /// Holds whatever is asked for.
    pub const EVERYTHING: Self = Self([u64::MAX; WORDS]);

    /// Adds a name to so many others. With more than [`MANY_NAMES`] it cannot tell any more.
    pub fn add(&mut self, name: &str, others: usize) {
        if others >= MANY_NAMES {
            *self = Self::EVERYTHING;
        }
        Bits::of(name).each().for_each(|(word, bit)| self.0[word] |= bit);
    }

    /// Whether a name with these bits may be there.
    pub fn may_hold(&self, bits: Bits) -> bool {
        bits.each().all(|(word, bit)| self.0[word] & bit != 0)
    }
}

/// One stream's filter, written by the stream and read by the pipeline.
#[derive(Debug, Default)]
pub struct Interest([AtomicU64; WORDS]);

impl Interest {
    /// Follows these names. The order with other memory is the caller's business.
    pub fn set(&self, names: &Filter) {
        self.0.iter().zip(names.0).for_each(|(word, value)| word.store(value, Relaxed));
    }

    /// Whether the stream may follow one of these names: no is certain.
    pub fn meets(&self, names: &[Bits]) -> bool {
        let set = |(word, bit): (usize, u64)| self.0[word].load(Relaxed) & bit != 0;
        names.iter().any(|bits| bits.each().all(set))
    }
}

/// The filters of [`BLOCK`] streams: one word for each bit of a filter, one bit of it for each stream.
#[derive(Debug)]
pub struct Block(Box<[u64; WORDS * 64]>);

impl Block {
    /// Of these streams, at most [`BLOCK`], in order.
    pub fn of<'a>(streams: impl Iterator<Item = &'a Interest>) -> Self {
        let mut block = Self(Box::new([0; WORDS * 64]));
        streams.enumerate().for_each(|(place, interest)| block.put(place, interest));
        block
    }

    /// Takes over a stream's filter.
    pub fn put(&mut self, place: usize, interest: &Interest) {
        let stream = 1 << place;
        for (rows, word) in self.0.as_chunks_mut::<64>().0.iter_mut().zip(&interest.0) {
            let word = word.load(Relaxed);
            for (bit, row) in rows.iter_mut().enumerate() {
                *row = *row & !stream | (word >> bit & 1) << place;
            }
        }
    }

    /// The places of those that may follow one of these names.
    pub fn meeting(&self, names: &[Bits]) -> impl Iterator<Item = usize> + use<> {
        let row = |bit: u16| self.0[usize::from(bit)];
        let mut streams = names.iter().fold(0, |found, Bits([a, b])| found | row(*a) & row(*b));
        std::iter::from_fn(move || {
            let place = streams.trailing_zeros() as usize;
            streams &= streams.wrapping_sub(1);
            (place < BLOCK).then_some(place)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter<'a>(names: impl IntoIterator<Item = &'a str>) -> Filter {
        let mut filter = Filter::default();
        names.into_iter().enumerate().for_each(|(before, name)| filter.add(name, before));
        filter
    }

    fn interest(names: &Filter) -> Interest {
        let interest = Interest::default();
        interest.set(names);
        interest
    }

    #[test]
    fn everything_is_met() {
        let many = filter((0..MANY_NAMES + 1).map(|_| "x"));
        let found = [Filter::EVERYTHING, many, Filter::default()]
            .map(|names| interest(&names).meets(&[Bits::of("a")]));
        assert_eq!(found, [true, true, false]);
    }

    proptest! {
        /// A block says of each of its streams what the stream's own filter says, whoever had the place before.
        #[test]
        fn a_block_is_its_filters(
            before in prop::collection::vec(prop::collection::vec("[a-d]{1,3}", 0..9), BLOCK),
            renewed in prop::collection::btree_map(0..BLOCK, prop::collection::vec("[a-d]{1,3}", 0..9), 0..9),
            changed in prop::collection::vec("[a-d]{1,3}", 1..4),
        ) {
            let mut streams: Vec<_> = before.iter().map(|names| interest(&filter(names.iter().map(String::as_str)))).collect();
            let mut block = Block::of(streams.iter());
            for (place, names) in &renewed {
                streams[*place] = interest(&filter(names.iter().map(String::as_str)));
                block.put(*place, &streams[*place]);
            }
            let names: Vec<_> = changed.iter().map(|name| Bits::of(name)).collect();
            let expected: Vec<_> = (0..BLOCK).filter(|place| streams[*place].meets(&names)).collect();
            prop_assert_eq!(block.meeting(&names).collect::<Vec<_>>(), expected);
        }
    }
}
