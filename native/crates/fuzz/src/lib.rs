//! What the fuzzer drives: one function a parser, each with the properties that must hold whatever the bytes are.
//!
//! native/fuzz makes libFuzzer programs of them (script/fuzz); `cargo test` here replays the corpus that those have left.

mod compression;
mod config;
mod fill;
mod frames;
mod identity;
mod logs;
mod packed;
mod paths;
mod seccomp;
mod tar;
mod usual;

use shoal_protocol::Failure;

/// A target: it panics when a property does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its directory in native/fuzz/corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("config_json", config::config_json),
    ("process_json", config::process_json),
    ("packed", packed::packed),
    ("usual_calls", usual::usual_calls),
    ("fill", fill::fill),
    ("frames", frames::frames),
    ("seccomp_json", seccomp::seccomp_json),
    ("seccomp_rules", seccomp::seccomp_rules),
    ("tar_headers", tar::tar_headers),
    ("compression", compression::compression),
    ("passwd", identity::passwd),
    ("exec_user", identity::exec_user),
    ("options_and_paths", paths::options_and_paths),
    ("log_framing", logs::log_framing),
];

/// Longest line of a refusal: it quotes what it refuses, and no more.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A refusal is one line that says what was being done.
fn is_one_line(failure: &Failure) {
    let told = failure.to_string();
    assert_eq!(told.lines().count(), 1, "{told:?}");
    assert!(
        !failure.doing.is_empty() && !failure.message.is_empty(),
        "{told:?}"
    );
    assert!(told.len() <= REFUSAL_BYTES_MAX, "{} bytes", told.len());
}

/// The parts of an input: separated by 0xff, which is in no UTF-8 text.
fn parts<const COUNT: usize>(bytes: &[u8]) -> [&[u8]; COUNT] {
    let mut split = bytes.splitn(COUNT, |byte| *byte == 0xff);
    std::array::from_fn(|_| split.next().unwrap_or_default())
}
