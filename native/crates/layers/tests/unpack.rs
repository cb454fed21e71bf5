//! Layers unpacked for real: what they become, and what calls that cannot work say.

mod common;

use common::{Builder, World, digest, is_root, xattr};
use serde_json::json;
use shoal_layers::unpack;
use shoal_protocol::FailureCode;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

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
    assert_eq!(
        (status("").mode() & 0o7777, status("").mtime()),
        (0o750, 1_000_000_000)
    );
    assert_eq!(
        (
            text("bin/tool").as_str(),
            status("bin/tool").mode() & 0o7777,
            status("bin/tool").nlink()
        ),
        ("#!/bin/sh\n", 0o644, 2)
    );
    assert_eq!(
        (status("bin").mtime(), status("bin/tool").mtime()),
        (1_000_000_000, 1_000_000_000)
    );
    assert_eq!(status("bin/set-id").mode() & 0o7777, 0o4755);
    let odd = status("bin/unicode-é");
    assert_eq!(
        (odd.uid(), odd.gid(), odd.mtime(), odd.mtime_nsec()),
        (4_000_000_000, 12345, 1_234_567_890, 123_456_789)
    );
    let path = world_layer.join("bin/unicode-é");
    assert_eq!(
        xattr(&path, "security.capability").as_deref(),
        Some(&capability[..])
    );
    assert_eq!(
        xattr(&path, "trusted.overlay.redirect"),
        None,
        "no attribute of overlayfs comes from an image"
    );
    assert_eq!(xattr(&path, "user.note").as_deref(), Some(&b"a=b\nc"[..]));
    assert_eq!(text(&long), "long");
    assert_eq!(
        fs::read_link(world_layer.join("sbin")).unwrap(),
        Path::new("/bin")
    );
    assert_eq!(
        fs::read_link(world_layer.join("dangling")).unwrap(),
        Path::new("../../../../nowhere")
    );
    assert_eq!(status("hard").ino(), status("bin/tool").ino());
    assert!(status("pipe").file_type().is_fifo());
    assert_eq!(
        (
            text("implied/parent/file").as_str(),
            status("implied").mode() & 0o7777
        ),
        ("", 0o755)
    );
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
    assert_eq!(
        [
            text("a"),
            text("d/kept"),
            text("gone"),
            text("f/in"),
            text("x/own")
        ],
        ["2", "k", "now a file", "in", "not in d"]
    );
    assert!(!layer.join("d/own").exists());
    assert_eq!(
        fs::read_to_string(world.directory.join("outside")).unwrap(),
        "untouched"
    );
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
    assert_eq!(
        answer,
        json!({"digest": digest(&upper), "diffId": digest(&upper), "bytes": upper.len(), "files": 13})
    );
    let gone = fs::symlink_metadata(world.layer("upper").join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(
        xattr(
            &world.layer("upper").join("emptied"),
            "trusted.overlay.opaque"
        )
        .as_deref(),
        Some(&b"y"[..])
    );

    let merged = world.directory.join("merged");
    fs::create_dir(&merged).unwrap();
    let options = format!(
        "lowerdir={}:{}",
        world.layer("upper").display(),
        world.layer("lower").display()
    );
    let mounted = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&merged)
        .output()
        .unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    let names = |name: &str| {
        let mut names: Vec<_> = fs::read_dir(merged.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    let seen = (
        names(""),
        names("emptied"),
        names("anew"),
        names("after"),
        fs::read_to_string(merged.join("same")).unwrap(),
    );
    assert!(
        Command::new("umount")
            .arg(&merged)
            .status()
            .unwrap()
            .success()
    );
    let expected = (
        "after anew emptied kept replaced same",
        "c",
        "new",
        "new",
        "upper",
    );
    assert_eq!(
        (
            seen.0.as_str(),
            seen.1.as_str(),
            seen.2.as_str(),
            seen.3.as_str(),
            seen.4.as_str()
        ),
        expected
    );
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
    let zstd = |bytes: &[u8]| {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    };
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
    let (front, back) = tar.split_at(1_000_001);
    for (name, archive) in [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip of two members", [gzip(front), gzip(back)].concat()),
        ("zstd", zstd(&tar)),
        (
            "zstd of two frames and two to skip",
            [&skippable[..], &zstd(front), &skippable, &zstd(back)].concat(),
        ),
    ] {
        let answer = world
            .unpack_as(name, &archive, Some(&digest(&tar)))
            .unwrap();
        assert_eq!(
            answer,
            json!({"digest": digest(&archive), "diffId": digest(&tar), "bytes": tar.len(), "files": 1}),
            "{name}"
        );
        assert!(
            fs::read(world.layer(name).join("big")).unwrap() == content,
            "{name}"
        );
    }
    let made = world.left().len();
    for (name, archive, words) in [
        ("cut gzip", gzip(&tar)[..5000].to_vec(), "truncated"),
        ("cut zstd", zstd(&tar)[..5000].to_vec(), "damaged"),
        ("cut zstd header", zstd(&tar)[..5].to_vec(), "damaged"),
        (
            "cut second frame",
            [&zstd(&tar)[..], &[0x28, 0xb5]].concat(),
            "truncated",
        ),
        ("xz", b"\xfd7zXZ\0rest".to_vec(), "xz"),
        ("bzip2", b"BZh9rest".to_vec(), "bzip2"),
        ("empty", Vec::new(), "empty"),
        (
            "text",
            b"this is no archive at all ".repeat(100),
            "not a tar archive",
        ),
        (
            "flipped bit in gzip",
            {
                let mut bytes = gzip(&tar);
                let at = bytes.len() - 6;
                bytes[at] ^= 1;
                bytes
            },
            "damaged",
        ),
    ] {
        let failure = world.unpack_as("failed", &archive, None).unwrap_err();
        assert_eq!(failure.code, FailureCode::Invalid, "{name}: {failure}");
        assert!(failure.message.contains(words), "{name}: {failure}");
        assert_eq!(world.left().len(), made, "{name} left something");
    }
}

#[test]
fn calls_that_cannot_work_say_why() {
    let world = World::new();
    let tar = Builder::default().file("a", b"1").end();
    let other = digest(b"other");
    let failure = world.unpack_as("one", &tar, Some(&other)).unwrap_err();
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(
        failure.message.contains(&digest(&tar)) && failure.message.contains(&other),
        "{failure}"
    );
    assert_eq!(world.left(), Vec::<String>::new());
    assert_eq!(
        world
            .unpack_as("one", &tar, Some("sha256:ABC"))
            .unwrap_err()
            .code,
        FailureCode::Invalid
    );
    // A known digest proves an archive without its end marks whole.
    let open_end = Builder::default().file("a", b"1").bytes;
    world
        .unpack_as("open", &open_end, Some(&digest(&open_end)))
        .unwrap();

    world.unpack_as("one", &tar, None).unwrap();
    assert_eq!(
        world.unpack_as("one", &tar, None).unwrap_err().code,
        FailureCode::AlreadyExists
    );
    assert_eq!(
        fs::read_to_string(world.layer("one").join("a")).unwrap(),
        "1",
        "the one that is there stays"
    );
    let body = |archive: &Path, destination: &Path| json!({"archive": archive, "diffId": null, "destination": destination});
    assert_eq!(
        unpack(&body(
            Path::new("/nonexistent/archive"),
            &world.layer("two")
        ))
        .unwrap_err()
        .code,
        FailureCode::NotFound
    );
    assert_eq!(
        unpack(&body(&world.directory, &world.layer("two")))
            .unwrap_err()
            .code,
        FailureCode::Invalid
    );
    assert_eq!(
        unpack(&body(
            &world.directory.join("archive"),
            Path::new("relative")
        ))
        .unwrap_err()
        .code,
        FailureCode::Invalid
    );
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
        let made = Command::new("tar")
            .args(["--format", format, "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&source)
            .arg(".")
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        world
            .unpack_as(format, &fs::read(&archive).unwrap(), None)
            .unwrap();
        let same = Command::new("diff")
            .arg("-r")
            .arg("--no-dereference")
            .arg(&source)
            .arg(world.layer(format))
            .output()
            .unwrap();
        assert!(
            same.status.success(),
            "{format}: {}",
            String::from_utf8_lossy(&same.stdout)
        );
        for name in ["plain", "second", "link", "", &long] {
            let (from, to) = (
                fs::symlink_metadata(source.join(name)).unwrap(),
                fs::symlink_metadata(world.layer(format).join(name)).unwrap(),
            );
            assert_eq!(
                (
                    from.mode(),
                    from.uid(),
                    from.gid(),
                    from.mtime(),
                    from.nlink()
                ),
                (to.mode(), to.uid(), to.gid(), to.mtime(), to.nlink()),
                "{format} {name}"
            );
        }
    }
}

#[test]
fn sparse_files_of_every_format_get_their_holes_back() {
    let world = World::new();
    let source = world.directory.join("source");
    fs::create_dir(&source).unwrap();
    let file = fs::File::create(source.join("holes")).unwrap();
    file.set_len(9 << 20).unwrap();
    // More parts than GNU tar's header and its first block have room for.
    for part in 0..60u64 {
        file.write_all_at(&[part as u8 + 1; 4096], part * 128 * 1024)
            .unwrap();
    }
    file.write_all_at(b"last", (9 << 20) - 4).unwrap();
    fs::File::create(source.join("all-hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    for (at, format) in [
        "--format=gnu",
        "--format=pax --sparse-version=0.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=1.0",
    ]
    .into_iter()
    .enumerate()
    {
        let archive = world.directory.join("sparse.tar");
        let made = Command::new("tar")
            .args(format.split(' '))
            .arg("--sparse")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&source)
            .arg(".")
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let bytes = fs::read(&archive).unwrap();
        assert!(bytes.len() < 1 << 20, "tar kept the holes out of {format}");
        let name = at.to_string();
        world
            .unpack_as(&name, &bytes, None)
            .unwrap_or_else(|failure| panic!("{format}: {failure}"));
        for file in ["holes", "all-hole"] {
            let unpacked = world.layer(&name).join(file);
            assert!(
                fs::read(source.join(file)).unwrap() == fs::read(&unpacked).unwrap(),
                "{format}: {file}"
            );
            assert!(
                fs::metadata(&unpacked).unwrap().blocks() * 512 < 2 << 20,
                "{format}: {file} has no holes"
            );
        }
    }
}

#[test]
fn device_nodes_are_made_only_where_it_is_said() {
    if !is_root("device_nodes_are_made_only_where_it_is_said") {
        return;
    }
    let world = World::new();
    let archive = world.directory.join("archive");
    let mut node = Builder::default()
        .header(b"null", b'3', b"", 0o666, 0)
        .bytes;
    node[329..336].copy_from_slice(b"0000001");
    node[337..344].copy_from_slice(b"0000003");
    let mut tar = common::checked(node[..512].try_into().unwrap()).to_vec();
    tar.extend(Builder::default().file("after", b"x").end());
    fs::write(&archive, &tar).unwrap();
    let call = |devices: &str| {
        let destination = world.layer(devices);
        unpack(
            &json!({"archive": archive, "diffId": null, "destination": destination, "devices": devices}),
        )
    };
    let failure = call("refuse").unwrap_err();
    assert!(
        failure.message.contains("\"null\" is a device node"),
        "{failure}"
    );
    call("skip").unwrap();
    assert!(!world.layer("skip").join("null").exists());
    assert!(world.layer("skip").join("after").exists());
    call("make").unwrap();
    let made = fs::metadata(world.layer("make").join("null")).unwrap();
    assert!(made.file_type().is_char_device());
    assert_eq!(
        (made.rdev(), made.mode() & 0o7777),
        (libc::makedev(1, 3), 0o666)
    );
    assert_eq!(call("some").unwrap_err().code, FailureCode::Invalid);
}

#[test]
fn the_digest_of_the_archive_itself_is_checked() {
    let world = World::new();
    let tar = Builder::default().file("a", b"1").end();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let archive = encoder.finish().unwrap();
    let path = world.directory.join("archive");
    fs::write(&path, &archive).unwrap();
    let call = |wanted: &str| {
        unpack(
            &json!({"archive": path, "digest": wanted, "diffId": digest(&tar), "destination": world.layer("one")}),
        )
    };
    let failure = call(&digest(&tar)).unwrap_err();
    assert!(
        failure.message.contains("the archive has digest"),
        "{failure}"
    );
    assert_eq!(world.left(), Vec::<String>::new());
    assert_eq!(call("sha256:1").unwrap_err().code, FailureCode::Invalid);
    let answer = call(&digest(&archive)).unwrap();
    assert_eq!(answer["digest"], digest(&archive));
}
