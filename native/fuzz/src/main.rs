//! One libFuzzer program for all targets: SHOAL_FUZZ_TARGET says which one it drives.
#![no_main]

use shoal_fuzz_targets::{TARGETS, Target};
use std::sync::LazyLock;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("SHOAL_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names = || TARGETS.map(|(name, _)| name).join(" ");
    found
        .unwrap_or_else(|| panic!("SHOAL_FUZZ_TARGET is {wanted:?}, none of: {}", names()))
        .1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
