//! Every input that the fuzzer has kept is replayed, and some that nobody has to keep.

use shoal_fuzz_targets::TARGETS;
use std::fs;
use std::path::PathBuf;

/// The corpus is meant to stay small in the repository.
const CORPUS_BYTES_MAX: u64 = 200 * 1024;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn the_corpus_holds_its_properties_and_is_small() {
    let mut bytes = 0;
    for (name, target) in TARGETS {
        let directory = corpus().join(name);
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
        let mut count = 0;
        for entry in entries {
            let input = fs::read(entry.expect("an entry").path()).expect("an input");
            bytes += input.len() as u64;
            count += 1;
            target(&input);
        }
        assert!(count > 0, "{directory:?} is empty");
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
    assert_eq!(
        fs::read_dir(corpus()).expect("the corpus").count(),
        TARGETS.len(),
        "a directory a target"
    );
}

/// Without the fuzzer: inputs of the corpus with bits turned, bytes left out and parts doubled.
#[test]
fn mutated_inputs_hold_the_properties_too() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).expect("31 bits") % below.max(1)
    };
    for (name, target) in TARGETS {
        for entry in fs::read_dir(corpus().join(name)).expect("the corpus") {
            let input = fs::read(entry.expect("an entry").path()).expect("an input");
            for _ in 0..20 {
                let mut input = input.clone();
                for _ in 0..=random(4) {
                    let at = random(input.len());
                    match random(3) {
                        0 if !input.is_empty() => input[at] ^= 1 << random(8),
                        1 if !input.is_empty() => drop(input.remove(at)),
                        _ => {
                            let part = input[at..(at + random(16)).min(input.len())].to_vec();
                            input.splice(at..at, part);
                        }
                    }
                }
                target(&input);
            }
        }
    }
}
