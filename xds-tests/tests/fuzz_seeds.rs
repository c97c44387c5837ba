//! The committed seeds of every fuzz target, each whole, cut short at every length and with every bit flipped.

use std::{fs, path::Path};

use xds_tests::fuzz::TARGETS;

/// Mutations of one seed; more would only cost time.
const MAX_MUTATIONS: usize = 1_500;

#[test]
fn no_seed_and_no_mutation_panics() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, target) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds.join(name)).expect("each target has seeds") {
            let seed = fs::read(entry.expect("seeds can be listed").path()).expect("seeds can be read");
            target(&seed);
            count += 1;
            let step = (seed.len() * 9 / MAX_MUTATIONS).max(1);
            for at in (0..seed.len()).step_by(step) {
                target(&seed[..at]);
                for bit in 0..8 {
                    let mut mutated = seed.clone();
                    mutated[at] ^= 1 << bit;
                    target(&mutated);
                }
            }
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
