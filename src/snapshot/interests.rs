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
pub type Bits = [usize; 2];

/// The bits of this name.
pub fn bits(name: &str) -> Bits {
    let hash = xxh3_64(name.as_bytes());
    [hash, hash >> 32].map(|half| half as usize % (WORDS * 64))
}

/// One stream's filter, written by the stream and read by the pipeline.
#[derive(Debug, Default)]
pub struct Interest([AtomicU64; WORDS]);

impl Interest {
    /// Follows everything, or these names, and nothing else. The order with other memory is the caller's business.
    pub fn set<'a>(&self, everything: bool, names: impl ExactSizeIterator<Item = &'a str>) {
        let mut words = [if everything || names.len() > MANY_NAMES { u64::MAX } else { 0 }; WORDS];
        if words[0] == 0 {
            for bit in names.flat_map(bits) {
                words[bit / 64] |= 1 << (bit % 64);
            }
        }
        for (word, value) in self.0.iter().zip(words) {
            word.store(value, Relaxed);
        }
    }

    /// Whether the stream may follow one of these names: no is certain.
    pub fn meets(&self, names: &[Bits]) -> bool {
        let set = |bit: &usize| self.0[bit / 64].load(Relaxed) & (1 << (bit % 64)) != 0;
        names.iter().any(|bits| bits.iter().all(set))
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
        let mut streams = names.iter().fold(0, |found, [a, b]| found | self.0[*a] & self.0[*b]);
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

    fn interest(names: &[String]) -> Interest {
        let interest = Interest::default();
        interest.set(false, names.iter().map(String::as_str));
        interest
    }

    #[test]
    fn everything_is_met() {
        let (all, many, none) = (Interest::default(), Interest::default(), Interest::default());
        all.set(true, [].into_iter());
        many.set(false, (0..MANY_NAMES + 1).map(|_| "x"));
        none.set(false, [].into_iter());
        let found = [&all, &many, &none].map(|interest| interest.meets(&[bits("a")]));
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
            let mut streams: Vec<_> = before.iter().map(|names| interest(names)).collect();
            let mut block = Block::of(streams.iter());
            for (place, names) in &renewed {
                streams[*place] = interest(names);
                block.put(*place, &streams[*place]);
            }
            let names: Vec<_> = changed.iter().map(|name| bits(name)).collect();
            let expected: Vec<_> = (0..BLOCK).filter(|place| streams[*place].meets(&names)).collect();
            prop_assert_eq!(block.meeting(&names).collect::<Vec<_>>(), expected);
        }
    }
}
