//! Archives that are made to do harm: refused by name, nothing left, nothing outside touched.

mod common;

use common::{Builder, World, checked, is_root};
use shoal_protocol::FailureCode;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    if !is_root("hostile_archives_are_refused_and_leave_nothing") {
        return;
    }
    let world = World::new();
    let outside = world.directory.join("outside");
    let outside = outside.to_str().unwrap();
    let good = || Builder::default().file("before", b"x");
    let deep = |count: usize| "d/".repeat(count) + "f";
    let deep_by_links = {
        let mut tar = Builder::default();
        // Each link leads 40 directories further down than the one before.
        for level in 0..20 {
            let from = if level == 0 {
                String::new()
            } else {
                format!("l{}/", level - 1)
            };
            tar = tar
                .file(&format!("{from}{}", deep(40)), b"")
                .link(&format!("l{level}"), &format!("{from}{}", "d/".repeat(40)));
        }
        tar.end()
    };
    let mut wrong_sum = good().file("x", b"y").end();
    wrong_sum[512 * 2 + 10] ^= 1;
    let sized = |field: &[u8]| {
        let mut bytes = Builder::default().file("sized", b"").end();
        bytes[124..124 + field.len()].copy_from_slice(field);
        let block: [u8; 512] = bytes[..512].try_into().unwrap();
        bytes[..512].copy_from_slice(&checked(block));
        bytes
    };
    let sparse = |parts: &[(u64, u64)], real: u64, stored: usize| {
        let mut bytes = Builder::default()
            .header(b"s", b'S', b"", 0o644, stored)
            .content(&vec![b'x'; stored])
            .end();
        for (at, (offset, length)) in parts.iter().enumerate() {
            let map = format!("{offset:011o} {length:011o} ");
            bytes[386 + 24 * at..386 + 24 * (at + 1)].copy_from_slice(map.as_bytes());
        }
        // Base 256, as what is beyond eleven digits is written.
        bytes[483] = 0x80;
        bytes[487..495].copy_from_slice(&real.to_be_bytes());
        let block: [u8; 512] = bytes[..512].try_into().unwrap();
        bytes[..512].copy_from_slice(&checked(block));
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "climbing name",
            good().file("../outside", b"owned").end(),
            "leaves the root",
        ),
        (
            "climbing from inside",
            good().file("a/b/../../../outside", b"owned").end(),
            "leaves the root",
        ),
        (
            "climbing rooted name",
            good().file("/../outside", b"owned").end(),
            "leaves the root",
        ),
        (
            "climbing PAX name",
            good()
                .pax(&[("path", b"../outside")])
                .file("x", b"owned")
                .end(),
            "leaves the root",
        ),
        (
            "climbing directory",
            good().directory("../x").end(),
            "leaves the root",
        ),
        (
            "climbing whiteout",
            good().file("../.wh.outside", b"").end(),
            "leaves the root",
        ),
        (
            "whiteout of nothing",
            good().file("a/.wh.", b"").end(),
            "whiteout of no name",
        ),
        (
            "whiteout of the parent",
            good().file("a/.wh...", b"").end(),
            "whiteout of no name",
        ),
        (
            "hard link out",
            good().hard_link("h", "../outside").end(),
            "leaves the root",
        ),
        (
            "hard link to a rooted path",
            good().hard_link("h", outside).end(),
            "no earlier entry",
        ),
        (
            "hard link by a link out",
            good()
                .link("up", "../..")
                .hard_link("h", "up/outside")
                .end(),
            "no earlier entry",
        ),
        (
            "hard link to a directory",
            good().directory("d").hard_link("h", "d").end(),
            "to the directory",
        ),
        (
            "hard link to the root",
            good().hard_link("h", "/").end(),
            "to the root",
        ),
        ("file as the root", good().file("./", b"").end(), ""),
        (
            "link as the root",
            good().link(".", "/etc").end(),
            "replace the root",
        ),
        (
            "file in a file",
            good().file("before/in", b"").end(),
            "no directory",
        ),
        (
            "file by a link round and round",
            good().link("a", "b").link("b", "a").file("a/f", b"").end(),
            "no directory",
        ),
        (
            "NUL in a PAX path",
            good().pax(&[("path", b"a\0b")]).file("x", b"").end(),
            "NUL",
        ),
        (
            "long component",
            good()
                .pax(&[("path", "x".repeat(300).as_bytes())])
                .file("x", b"")
                .end(),
            "255",
        ),
        (
            "long path",
            good()
                .pax(&[("path", "x/".repeat(3000).as_bytes())])
                .file("x", b"")
                .end(),
            "4096",
        ),
        (
            "deep path",
            good()
                .pax(&[("path", deep(300).as_bytes())])
                .file("x", b"")
                .end(),
            "deep",
        ),
        ("deep by links", deep_by_links, "deep"),
        (
            "endless PAX header",
            good().header(b"p", b'x', b"", 0, 2 << 20).end(),
            "over the limit",
        ),
        (
            "malformed PAX header",
            good()
                .header(b"p", b'x', b"", 0, 9)
                .content(b"99 path=x")
                .end(),
            "PAX header is malformed",
        ),
        ("sparse file", sparse(&[(0, 4), (2, 2)], 10, 6), "overlaps"),
        (
            "sparse file that ends before its part",
            sparse(&[(8, 4)], 10, 4),
            "lies outside",
        ),
        (
            "sparse file of more than there is",
            sparse(&[(0, 4)], 10, 8),
            "parts have 4 bytes",
        ),
        (
            "sparse file beyond all bounds",
            sparse(&[], 1 << 37, 0),
            "over the limit",
        ),
        (
            "PAX sparse map that claims a million parts",
            good()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")])
                .file("x", b"1000000\n1\n")
                .end(),
            "its map is malformed",
        ),
        (
            "PAX sparse file without a size",
            good()
                .pax(&[("GNU.sparse.map", b"0,1")])
                .file("x", b"y")
                .end(),
            "its map is malformed",
        ),
        (
            "block device",
            good().header(b"sda", b'4', b"", 0o666, 0).end(),
            "device node",
        ),
        (
            "character device",
            good().header(b"mem", b'3', b"", 0o666, 0).end(),
            "device node",
        ),
        (
            "PAX sparse file",
            good()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")])
                .file("x", b"")
                .end(),
            "its map is malformed",
        ),
        (
            "unknown type",
            good().header(b"v", b'V', b"", 0o644, 0).end(),
            "unknown type",
        ),
        ("wrong checksum", wrong_sum, "checksum"),
        (
            "size that is no number",
            sized(b"0000000000x"),
            "size that cannot be",
        ),
        ("negative size", sized(&[0xff; 12]), "size that cannot be"),
        (
            "size beyond all bounds",
            sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            "truncated",
        ),
        (
            "cut in a header",
            good().file("x", b"y").bytes[..1024 + 100].to_vec(),
            "truncated",
        ),
        (
            "cut in content",
            good().file("x", &[1; 5000]).bytes[..4000].to_vec(),
            "truncated",
        ),
        ("cut between entries", good().bytes, "truncated"),
    ];
    for (name, archive, words) in cases {
        match world.unpack_as("bad", &archive, None) {
            Ok(_) if words.is_empty() => fs::remove_dir_all(world.layer("bad")).unwrap(),
            Ok(_) => panic!("{name} was unpacked"),
            Err(failure) => {
                assert_eq!(failure.code, FailureCode::Invalid, "{name}: {failure}");
                assert!(failure.message.contains(words), "{name}: {failure}");
            }
        }
        assert_eq!(world.left(), Vec::<String>::new(), "{name} left something");
        assert_eq!(fs::read_to_string(outside).unwrap(), "untouched", "{name}");
        assert_eq!(fs::metadata(outside).unwrap().nlink(), 1, "{name}");
    }
    // Links that lead out are only links: what is written through them lands inside.
    let tar = good()
        .link("up", "../..")
        .file("up/outside", b"inside")
        .link("abs", "/etc")
        .directory("etc")
        .file("abs/passwd", b"mine")
        .end();
    let layer = world.unpack(&tar);
    assert_eq!(
        (
            fs::read_to_string(layer.join("outside")).unwrap(),
            fs::read_to_string(layer.join("etc/passwd")).unwrap()
        ),
        ("inside".into(), "mine".into())
    );
    assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
}

#[test]
fn no_bytes_make_the_reader_panic_or_leave_anything() {
    let world = World::new();
    let seed = Builder::default()
        .directory("d")
        .pax(&[("path", b"d/x"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", b"content")
        .link("l", "d")
        .hard_link("h", "d/x")
        .file("l/.wh.y", b"")
        .end();
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for _ in 0..200 {
        let mut archive = seed.clone();
        for _ in 0..1 + random() % 3 {
            let at = (random() % (archive.len() as u64 - 1024)) as usize;
            archive[at] = random() as u8;
        }
        // With right checksums the fields themselves are reached.
        for at in (0..archive.len() - 1024).step_by(512) {
            let block: [u8; 512] = archive[at..at + 512].try_into().unwrap();
            if block[257..262] == *b"ustar" {
                archive[at..at + 512].copy_from_slice(&checked(block));
            }
        }
        match world.unpack_as("fuzz", &archive, None) {
            Ok(_) => fs::remove_dir_all(world.layer("fuzz")).unwrap(),
            Err(_) => refused += 1,
        }
        assert_eq!(world.left(), Vec::<String>::new());
    }
    assert!(refused > 20, "only {refused} were refused");
    assert_eq!(
        fs::read_to_string(world.directory.join("outside")).unwrap(),
        "untouched"
    );
}
