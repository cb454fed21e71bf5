//! Layers unpacked for real: what they become, what is refused, and that nothing is left of what failed.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shoal_layers::unpack;
use shoal_protocol::{Failure, FailureCode};
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory with an archive, a place for layers, and a file outside that no layer may touch.
struct World {
    directory: PathBuf,
}

impl World {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("shlt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(directory.join("layers")).unwrap();
        fs::write(directory.join("outside"), "untouched").unwrap();
        Self { directory }
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.directory.join("layers").join(name)
    }

    fn unpack_as(&self, name: &str, archive: &[u8], diff_id: Option<&str>) -> Result<Value, Failure> {
        let path = self.directory.join("archive");
        fs::write(&path, archive).unwrap();
        unpack(&json!({"call": "unpack", "archive": path, "diffId": diff_id, "destination": self.layer(name)}))
    }

    fn unpack(&self, archive: &[u8]) -> PathBuf {
        self.unpack_as("one", archive, Some(&digest(archive))).unwrap();
        self.layer("one")
    }

    fn left(&self) -> Vec<String> {
        fs::read_dir(self.directory.join("layers")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).expect("a test removes what it made");
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn is_root(test: &str) -> bool {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("\n!!! SKIPPED {test}: it needs root !!!\n");
    }
    root
}

/// Writes tars by hand, wrong ones too.
#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    fn header(mut self, name: &[u8], flag: u8, link: &[u8], mode: u32, size: usize) -> Self {
        let mut block = [0u8; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(format!("{:011o}", 1_000_000_000).as_bytes());
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        self.bytes.extend_from_slice(&checked(block));
        self
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.header(name.as_bytes(), b'0', b"", 0o644, content.len()).content(content)
    }

    fn directory(self, name: &str) -> Self {
        self.header(name.as_bytes(), b'5', b"", 0o755, 0)
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.header(name.as_bytes(), b'2', target.as_bytes(), 0o777, 0)
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.header(name.as_bytes(), b'1', target.as_bytes(), 0o644, 0)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            bytes.extend(format!("{length} {key}=").bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.header(b"pax", b'x', b"", 0o644, bytes.len()).content(&bytes)
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

fn checked(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn xattr(path: &Path, key: &str) -> Option<Vec<u8>> {
    let (path, key) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(key).unwrap());
    let mut value = vec![0u8; 1024];
    // SAFETY: both strings are NUL-terminated and the buffer is writable for its length.
    let got = unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    usize::try_from(got).ok().map(|got| value[..got].to_vec())
}

#[test]
fn every_kind_of_entry_becomes_what_it_says() {
    if !is_root("every_kind_of_entry_becomes_what_it_says") {
        return;
    }
    let world = World::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = "long/".repeat(40) + "name";
    let tar = Builder::default()
        .header(b"./", b'5', b"", 0o750, 0)
        .directory("bin")
        .file("bin/tool", b"#!/bin/sh\n")
        .header(b"bin/set-id", b'0', b"", 0o4755, 3)
        .content(b"abc")
        .pax(&[
            ("path", b"bin/unicode-\xc3\xa9"),
            ("mtime", b"1234567890.123456789"),
            ("uid", b"4000000000"),
            ("gid", b"12345"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.note", b"a=b\nc"),
        ])
        .file("ignored", b"x")
        .header(b"././@LongLink", b'L', b"", 0o644, long.len() + 1)
        .content(format!("{long}\0").as_bytes())
        .file("cut", b"long")
        .link("sbin", "/bin")
        .link("dangling", "../../../../nowhere")
        .hard_link("hard", "./bin/tool")
        .header(b"pipe", b'6', b"", 0o600, 0)
        .file("implied/parent/file", b"")
        .link("lib", "implied/lib64")
        .directory("implied/lib64")
        .file("lib/through-a-link", b"y")
        .file("/rooted", b"z")
        .header(b"old-style-directory/", 0, b"", 0o711, 0)
        .end();
    let world_layer = world.unpack(&tar);
    let status = |name: &str| fs::symlink_metadata(world_layer.join(name)).unwrap();
    let text = |name: &str| fs::read_to_string(world_layer.join(name)).unwrap();
    assert_eq!((status("").mode() & 0o7777, status("").mtime()), (0o750, 1_000_000_000));
    assert_eq!((text("bin/tool").as_str(), status("bin/tool").mode() & 0o7777, status("bin/tool").nlink()), ("#!/bin/sh\n", 0o644, 2));
    assert_eq!((status("bin").mtime(), status("bin/tool").mtime()), (1_000_000_000, 1_000_000_000));
    assert_eq!(status("bin/set-id").mode() & 0o7777, 0o4755);
    let odd = status("bin/unicode-é");
    assert_eq!((odd.uid(), odd.gid(), odd.mtime(), odd.mtime_nsec()), (4_000_000_000, 12345, 1_234_567_890, 123_456_789));
    let path = world_layer.join("bin/unicode-é");
    assert_eq!(xattr(&path, "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&path, "trusted.overlay.redirect"), None, "no attribute of overlayfs comes from an image");
    assert_eq!(xattr(&path, "user.note").as_deref(), Some(&b"a=b\nc"[..]));
    assert_eq!(text(&long), "long");
    assert_eq!(fs::read_link(world_layer.join("sbin")).unwrap(), Path::new("/bin"));
    assert_eq!(fs::read_link(world_layer.join("dangling")).unwrap(), Path::new("../../../../nowhere"));
    assert_eq!(status("hard").ino(), status("bin/tool").ino());
    assert!(status("pipe").file_type().is_fifo());
    assert_eq!((text("implied/parent/file").as_str(), status("implied").mode() & 0o7777), ("", 0o755));
    assert_eq!(text("implied/lib64/through-a-link"), "y");
    assert_eq!(text("rooted"), "z");
    assert_eq!(status("old-style-directory").mode() & 0o7777, 0o711);
    assert_eq!(world.left(), ["one"]);
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !is_root("later_entries_replace_earlier_ones") {
        return;
    }
    let world = World::new();
    let tar = Builder::default()
        .file("a", b"1")
        .file("a", b"2")
        .directory("d")
        .file("d/kept", b"k")
        .directory("d")
        .directory("gone/sub")
        .file("gone/sub/file", b"x")
        .file("gone", b"now a file")
        .link("l", "../outside")
        .file("l", b"now a file, and outside is as it was")
        .file("f", b"x")
        .directory("f")
        .file("f/in", b"in")
        .link("x", "d")
        .directory("x")
        .file("x/own", b"not in d")
        .end();
    let layer = world.unpack(&tar);
    let text = |name: &str| fs::read_to_string(layer.join(name)).unwrap();
    assert_eq!([text("a"), text("d/kept"), text("gone"), text("f/in"), text("x/own")], ["2", "k", "now a file", "in", "not in d"]);
    assert!(!layer.join("d/own").exists());
    assert_eq!(fs::read_to_string(world.directory.join("outside")).unwrap(), "untouched");
}

#[test]
fn whiteouts_hide_lower_layers_in_a_real_overlay() {
    if !is_root("whiteouts_hide_lower_layers_in_a_real_overlay") {
        return;
    }
    let world = World::new();
    let lower = Builder::default()
        .file("gone", b"")
        .file("kept", b"")
        .file("emptied/a", b"")
        .file("emptied/b", b"")
        .file("replaced/old", b"")
        .file("anew/old", b"")
        .file("after/old", b"")
        .file("same", b"lower")
        .end();
    let upper = Builder::default()
        .file(".wh.gone", b"")
        .file("emptied/.wh..wh..opq", b"")
        .file("emptied/c", b"")
        // A whiteout and then a directory of the same name, and the other way round.
        .file(".wh.anew", b"")
        .directory("anew")
        .file("anew/new", b"")
        .directory("after")
        .file("after/new", b"")
        .file(".wh.after", b"")
        .file("same", b"upper")
        .file(".wh.same", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh..wh.aufs", b"")
        .end();
    world.unpack_as("lower", &lower, None).unwrap();
    let answer = world.unpack_as("upper", &upper, None).unwrap();
    assert_eq!(answer, json!({"diffId": digest(&upper), "bytes": upper.len(), "files": 13}));
    let gone = fs::symlink_metadata(world.layer("upper").join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr(&world.layer("upper").join("emptied"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));

    let merged = world.directory.join("merged");
    fs::create_dir(&merged).unwrap();
    let options = format!("lowerdir={}:{}", world.layer("upper").display(), world.layer("lower").display());
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).output().unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    let names = |name: &str| {
        let mut names: Vec<_> = fs::read_dir(merged.join(name)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    let seen = (names(""), names("emptied"), names("anew"), names("after"), fs::read_to_string(merged.join("same")).unwrap());
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    let expected = ("after anew emptied kept replaced same", "c", "new", "new", "upper");
    assert_eq!((seen.0.as_str(), seen.1.as_str(), seen.2.as_str(), seen.3.as_str(), seen.4.as_str()), expected);
}

#[test]
fn compressions_are_told_from_the_bytes() {
    let world = World::new();
    let content: Vec<u8> = (0..3_000_000u32).map(|at| (at / 7 % 251) as u8).collect();
    let tar = Builder::default().file("big", &content).end();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
    let (front, back) = tar.split_at(1_000_001);
    for (name, archive) in [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip of two members", [gzip(front), gzip(back)].concat()),
        ("zstd", zstd(&tar)),
        ("zstd of two frames and two to skip", [&skippable[..], &zstd(front), &skippable, &zstd(back)].concat()),
    ] {
        let answer = world.unpack_as(name, &archive, Some(&digest(&tar))).unwrap();
        assert_eq!(answer, json!({"diffId": digest(&tar), "bytes": tar.len(), "files": 1}), "{name}");
        assert!(fs::read(world.layer(name).join("big")).unwrap() == content, "{name}");
    }
    let made = world.left().len();
    for (name, archive, words) in [
        ("cut gzip", gzip(&tar)[..5000].to_vec(), "truncated"),
        ("cut zstd", zstd(&tar)[..5000].to_vec(), "damaged"),
        ("cut zstd header", zstd(&tar)[..5].to_vec(), "damaged"),
        ("cut second frame", [&zstd(&tar)[..], &[0x28, 0xb5]].concat(), "truncated"),
        ("xz", b"\xfd7zXZ\0rest".to_vec(), "xz"),
        ("bzip2", b"BZh9rest".to_vec(), "bzip2"),
        ("empty", Vec::new(), "empty"),
        ("text", b"this is no archive at all ".repeat(100), "not a tar archive"),
        ("flipped bit in gzip", { let mut bytes = gzip(&tar); let at = bytes.len() - 6; bytes[at] ^= 1; bytes }, "damaged"),
    ] {
        let failure = world.unpack_as("failed", &archive, None).unwrap_err();
        assert_eq!(failure.code, FailureCode::Invalid, "{name}: {failure}");
        assert!(failure.message.contains(words), "{name}: {failure}");
        assert_eq!(world.left().len(), made, "{name} left something");
    }
}

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
            let from = if level == 0 { String::new() } else { format!("l{}/", level - 1) };
            tar = tar.file(&format!("{from}{}", deep(40)), b"").link(&format!("l{level}"), &format!("{from}{}", "d/".repeat(40)));
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
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("climbing name", good().file("../outside", b"owned").end(), "leaves the root"),
        ("climbing from inside", good().file("a/b/../../../outside", b"owned").end(), "leaves the root"),
        ("climbing rooted name", good().file("/../outside", b"owned").end(), "leaves the root"),
        ("climbing PAX name", good().pax(&[("path", b"../outside")]).file("x", b"owned").end(), "leaves the root"),
        ("climbing directory", good().directory("../x").end(), "leaves the root"),
        ("climbing whiteout", good().file("../.wh.outside", b"").end(), "leaves the root"),
        ("whiteout of nothing", good().file("a/.wh.", b"").end(), "whiteout of no name"),
        ("whiteout of the parent", good().file("a/.wh...", b"").end(), "whiteout of no name"),
        ("hard link out", good().hard_link("h", "../outside").end(), "leaves the root"),
        ("hard link to a rooted path", good().hard_link("h", outside).end(), "no earlier entry"),
        ("hard link by a link out", good().link("up", "../..").hard_link("h", "up/outside").end(), "no earlier entry"),
        ("hard link to a directory", good().directory("d").hard_link("h", "d").end(), "to the directory"),
        ("hard link to the root", good().hard_link("h", "/").end(), "to the root"),
        ("file as the root", good().file("./", b"").end(), ""),
        ("link as the root", good().link(".", "/etc").end(), "replace the root"),
        ("file in a file", good().file("before/in", b"").end(), "no directory"),
        ("file by a link round and round", good().link("a", "b").link("b", "a").file("a/f", b"").end(), "no directory"),
        ("NUL in a PAX path", good().pax(&[("path", b"a\0b")]).file("x", b"").end(), "NUL"),
        ("long component", good().pax(&[("path", "x".repeat(300).as_bytes())]).file("x", b"").end(), "255"),
        ("long path", good().pax(&[("path", "x/".repeat(3000).as_bytes())]).file("x", b"").end(), "4096"),
        ("deep path", good().pax(&[("path", deep(300).as_bytes())]).file("x", b"").end(), "deep"),
        ("deep by links", deep_by_links, "deep"),
        ("endless PAX header", good().header(b"p", b'x', b"", 0, 2 << 20).end(), "over the limit"),
        ("malformed PAX header", good().header(b"p", b'x', b"", 0, 9).content(b"99 path=x").end(), "PAX header is malformed"),
        ("sparse file", good().header(b"s", b'S', b"", 0o644, 0).end(), "sparse"),
        ("PAX sparse file", good().pax(&[("GNU.sparse.major", b"1")]).file("x", b"").end(), "sparse"),
        ("unknown type", good().header(b"v", b'V', b"", 0o644, 0).end(), "unknown type"),
        ("wrong checksum", wrong_sum, "checksum"),
        ("size that is no number", sized(b"0000000000x"), "size that cannot be"),
        ("negative size", sized(&[0xff; 12]), "size that cannot be"),
        ("size beyond all bounds", sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), "truncated"),
        ("cut in a header", good().file("x", b"y").bytes[..1024 + 100].to_vec(), "truncated"),
        ("cut in content", good().file("x", &[1; 5000]).bytes[..4000].to_vec(), "truncated"),
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
    let tar = good().link("up", "../..").file("up/outside", b"inside").link("abs", "/etc").directory("etc").file("abs/passwd", b"mine").end();
    let layer = world.unpack(&tar);
    assert_eq!((fs::read_to_string(layer.join("outside")).unwrap(), fs::read_to_string(layer.join("etc/passwd")).unwrap()), ("inside".into(), "mine".into()));
    assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
}

#[test]
fn calls_that_cannot_work_say_why() {
    let world = World::new();
    let tar = Builder::default().file("a", b"1").end();
    let other = digest(b"other");
    let failure = world.unpack_as("one", &tar, Some(&other)).unwrap_err();
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(failure.message.contains(&digest(&tar)) && failure.message.contains(&other), "{failure}");
    assert_eq!(world.left(), Vec::<String>::new());
    assert_eq!(world.unpack_as("one", &tar, Some("sha256:ABC")).unwrap_err().code, FailureCode::Invalid);
    // A known digest proves an archive without its end marks whole.
    let open_end = Builder::default().file("a", b"1").bytes;
    world.unpack_as("open", &open_end, Some(&digest(&open_end))).unwrap();

    world.unpack_as("one", &tar, None).unwrap();
    assert_eq!(world.unpack_as("one", &tar, None).unwrap_err().code, FailureCode::AlreadyExists);
    assert_eq!(fs::read_to_string(world.layer("one").join("a")).unwrap(), "1", "the one that is there stays");
    let body = |archive: &Path, destination: &Path| json!({"archive": archive, "diffId": null, "destination": destination});
    assert_eq!(unpack(&body(Path::new("/nonexistent/archive"), &world.layer("two"))).unwrap_err().code, FailureCode::NotFound);
    assert_eq!(unpack(&body(&world.directory, &world.layer("two"))).unwrap_err().code, FailureCode::Invalid);
    assert_eq!(unpack(&body(&world.directory.join("archive"), Path::new("relative"))).unwrap_err().code, FailureCode::Invalid);
    assert_eq!(unpack(&json!({})).unwrap_err().code, FailureCode::Invalid);

    // What a killed core has left is removed by the next.
    let stale = world.directory.join("layers/two.unpacking-1-0");
    fs::create_dir_all(stale.join("etc")).unwrap();
    fs::write(stale.join("etc/x"), "").unwrap();
    world.unpack_as("two", &tar, None).unwrap();
    assert!(!stale.exists());
}

#[test]
fn archives_of_gnu_tar_are_read() {
    if !is_root("archives_of_gnu_tar_are_read") {
        return;
    }
    let world = World::new();
    let source = world.directory.join("source");
    let long = "very-long-directory-name/".repeat(12);
    fs::create_dir_all(source.join(&long)).unwrap();
    fs::write(source.join(&long).join("file"), "deep").unwrap();
    fs::write(source.join("plain"), vec![7; 100_000]).unwrap();
    fs::hard_link(source.join("plain"), source.join("second")).unwrap();
    std::os::unix::fs::symlink(format!("/{long}"), source.join("link")).unwrap();
    fs::set_permissions(source.join("plain"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::write(source.join(OsStr::from_bytes(b"not-utf8-\xff")), "odd").unwrap();
    std::os::unix::fs::chown(source.join("plain"), Some(3_000_000), Some(5)).unwrap();
    for format in ["gnu", "pax"] {
        let archive = world.directory.join("gnu.tar");
        let made = Command::new("tar").args(["--format", format, "-cf"]).arg(&archive).arg("-C").arg(&source).arg(".").output().unwrap();
        assert!(made.status.success(), "{made:?}");
        world.unpack_as(format, &fs::read(&archive).unwrap(), None).unwrap();
        let same = Command::new("diff").arg("-r").arg("--no-dereference").arg(&source).arg(world.layer(format)).output().unwrap();
        assert!(same.status.success(), "{format}: {}", String::from_utf8_lossy(&same.stdout));
        for name in ["plain", "second", "link", "", &long] {
            let (from, to) = (fs::symlink_metadata(source.join(name)).unwrap(), fs::symlink_metadata(world.layer(format).join(name)).unwrap());
            assert_eq!((from.mode(), from.uid(), from.gid(), from.mtime(), from.nlink()), (to.mode(), to.uid(), to.gid(), to.mtime(), to.nlink()), "{format} {name}");
        }
    }
}

#[test]
fn no_bytes_make_the_reader_panic_or_leave_anything() {
    let world = World::new();
    let seed = Builder::default().directory("d").pax(&[("path", b"d/x"), ("SCHILY.xattr.user.a", b"b")]).file("x", b"content").link("l", "d").hard_link("h", "d/x").file("l/.wh.y", b"").end();
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for _ in 0..600 {
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
    assert!(refused > 50, "only {refused} were refused");
    assert_eq!(fs::read_to_string(world.directory.join("outside")).unwrap(), "untouched");
}
