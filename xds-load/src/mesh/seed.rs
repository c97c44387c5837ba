//! Choices that look random and are the same everywhere: functions of the seed, of what is chosen, and of a number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A number that follows from the seed, the question and `n`.
pub fn hash(seed: u64, question: &str, n: u64) -> u64 {
    xxh3_64_with_seed(question.as_bytes(), seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Below `bound`, which is not 0.
pub fn below(seed: u64, question: &str, n: u64, bound: usize) -> usize {
    // Both fit: a bound is a length.
    (hash(seed, question, n) % bound as u64) as usize
}

/// Whether the `n`th is one of the given share. Each is decided for itself, so that a share and another one, or the number of
/// namespaces, have no pattern in common.
pub fn chosen(seed: u64, question: &str, n: u64, share: f64) -> bool {
    share >= 1.0 || (hash(seed, question, n) as f64) < share * u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_met_and_depends_on_the_seed() {
        let pick = |seed| (0..1000).filter(|n| chosen(seed, "headless", *n, 0.1)).collect::<Vec<_>>();
        assert!((80..=120).contains(&pick(1).len()), "{}", pick(1).len());
        assert_ne!(pick(1), pick(2));
        assert_eq!(pick(1), pick(1));
        assert!((0..100).all(|n| chosen(3, "all", n, 1.0) && !chosen(3, "none", n, 0.0)));
    }
}
