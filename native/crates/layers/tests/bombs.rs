//! Small archives that would become much: refused at a limit, with nothing left.

mod common;

use common::{Builder, World};
use flate2::{Compression, write::GzEncoder};
use shoal_layers::ENTRIES_MAX;
use shoal_protocol::FailureCode;
use std::io::Write;

/// A million entries in a few megabytes.
#[test]
fn entries_end_at_the_limit_of_one_layer() {
    const MEMBER_ENTRIES: u64 = 1000;
    let world = World::new();
    // aufs's bookkeeping, which makes no file.
    let one = Builder::default()
        .file(".wh..wh.plnk/1.2", b"")
        .bytes
        .repeat(usize::try_from(MEMBER_ENTRIES).unwrap());
    let packed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut archive = packed(&one).repeat(usize::try_from(ENTRIES_MAX / MEMBER_ENTRIES).unwrap());
    archive.extend(packed(&Builder::default().file("last", b"").end()));
    assert!(archive.len() < 16 << 20, "{} bytes", archive.len());
    let failure = world.unpack_as("bomb", &archive, None).unwrap_err();
    assert_eq!(failure.code, FailureCode::Invalid);
    let words = format!("more than {ENTRIES_MAX} entries");
    assert!(failure.message.contains(&words), "{failure}");
    assert_eq!(world.left(), Vec::<String>::new());
}
