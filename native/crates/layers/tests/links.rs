//! Links of an archive that lead out of the layer: nothing that is said of them is done to what they lead to.

mod common;

use common::{Builder, World, is_root};
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn links_of_an_archive_are_never_followed() {
    if !is_root("links_of_an_archive_are_never_followed") {
        return;
    }
    let world = World::new();
    let outside = world.directory.join("outside");
    let target = outside.to_str().unwrap();
    let look = || {
        let found = fs::metadata(&outside).unwrap();
        let owner = (found.uid(), found.gid());
        (owner, found.mode(), found.nlink(), found.mtime())
    };
    let before = look();
    let owned: [(&str, &[u8]); 3] = [
        ("uid", b"4242"),
        ("gid", b"4243"),
        ("mtime", b"1234567890.5"),
    ];
    let archive = Builder::default()
        .pax(&owned)
        .header(b"link", b'2', target.as_bytes(), 0o4711, 0)
        .pax(&owned)
        .hard_link("hard", "link")
        .end();
    let layer = world.unpack(&archive);
    for name in ["link", "hard"] {
        let found = fs::symlink_metadata(layer.join(name)).unwrap();
        assert!(found.file_type().is_symlink(), "{name}");
        assert_eq!((found.uid(), found.gid()), (4242, 4243), "{name}");
        assert_eq!(found.mtime(), 1_234_567_890, "{name}");
    }
    assert_eq!(look(), before);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
}
