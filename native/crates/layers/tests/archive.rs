//! Directories back into archives: what is packed and unpacked again is the same, and what no archive can say is refused.

mod common;

use common::{World, digest, is_root, set_xattr, xattr};
use serde_json::{Value, json};
use shoal_layers::{commit, diff, export, unpack, unpack_stream};
use shoal_protocol::FailureCode;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything that a tree says, path by path; of files with several names, which they are.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    let mut names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    while let Some(path) = open.pop() {
        let status = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let content = if status.is_file() {
            digest(&fs::read(&path).unwrap())
        } else if status.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        let attributes: Vec<_> = [
            "user.note",
            "security.capability",
            "trusted.overlay.opaque",
            "system.posix_acl_access",
        ]
        .into_iter()
        .map(|key| xattr(&path, key))
        .collect();
        if status.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                open.push(entry.unwrap().path());
            }
        } else if status.nlink() > 1 {
            let first = names
                .entry(status.ino())
                .or_insert_with(|| relative.clone());
            *first = first.clone().min(relative.clone());
        }
        // A whiteout says that a name is gone, and nothing else.
        if status.rdev() == 0 && status.file_type().is_char_device() {
            found.insert(relative, "whiteout".into());
            continue;
        }
        found.insert(
            relative,
            format!(
                "{:o} {}:{} {}.{:09} {:x} {content} {attributes:?} {}",
                status.mode(),
                status.uid(),
                status.gid(),
                status.mtime(),
                status.mtime_nsec(),
                status.rdev(),
                if status.is_dir() { 0 } else { status.nlink() },
            ),
        );
    }
    found.insert(
        "names".into(),
        format!(
            "{:?}",
            names.values().collect::<std::collections::BTreeSet<_>>()
        ),
    );
    found
}

/// Compares listings; tells only what differs.
fn assert_same(got: &BTreeMap<PathBuf, String>, wanted: &BTreeMap<PathBuf, String>, what: &str) {
    let only = |these: &BTreeMap<PathBuf, String>, those: &BTreeMap<PathBuf, String>| {
        these
            .iter()
            .filter(|(path, line)| those.get(*path) != Some(*line))
            .map(|(path, line)| format!("{}: {line}", path.display()))
            .collect::<Vec<_>>()
    };
    assert_eq!(only(got, wanted), only(wanted, got), "{what}");
}

fn node(path: &Path, mode: u32, device: u64) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is NUL-terminated and lives over the call.
    assert_eq!(unsafe { libc::mknod(path.as_ptr(), mode, device) }, 0);
}

/// A tree with one of everything.
fn upper(root: &Path) {
    fs::create_dir_all(root.join("etc/deep/er")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0").unwrap();
    fs::write(root.join("etc/deep/er/big"), vec![7; 1_234_567]).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("tool"), "#!").unwrap();
    fs::set_permissions(root.join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    chown(root.join("etc/passwd"), Some(3_000_000_000), Some(42)).unwrap();
    chown(root.join("etc/deep"), Some(7), Some(8)).unwrap();
    fs::set_permissions(root.join("etc/deep"), fs::Permissions::from_mode(0o2771)).unwrap();
    fs::write(root.join("etc/deep/grouped"), "inherits nothing").unwrap();
    chown(root.join("etc/deep/grouped"), Some(0), Some(0)).unwrap();
    fs::hard_link(root.join("etc/passwd"), root.join("a-second-name")).unwrap();
    fs::hard_link(root.join("etc/passwd"), root.join("etc/zz")).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    fs::hard_link(root.join("link"), root.join("link-again")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"odd-\xff\xfe\n\"name")), "odd").unwrap();
    let deep = root.join("directory-of-a-long-name/".repeat(20));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(200)), "far").unwrap();
    node(&root.join("pipe"), libc::S_IFIFO | 0o620, 0);
    node(
        &root.join("null"),
        libc::S_IFCHR | 0o666,
        libc::makedev(1, 3),
    );
    node(&root.join("gone"), libc::S_IFCHR, 0);
    node(&root.join("etc/gone-too"), libc::S_IFCHR, 0);
    fs::create_dir(root.join("opaque")).unwrap();
    fs::write(root.join("opaque/only"), "this").unwrap();
    set_xattr(&root.join("opaque"), "trusted.overlay.opaque", b"y");
    set_xattr(&root.join("opaque"), "trusted.overlay.origin", b"\0\xfb");
    set_xattr(&root.join("tool"), "user.note", b"a=b\n\0");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&root.join("empty"), "security.capability", &capability);
    let touched = Command::new("touch")
        .args(["-h", "-d", "1969-12-31T23:59:58.25Z"])
        .arg(root.join("link"))
        .arg(root.join("etc"))
        .status()
        .unwrap();
    assert!(touched.success());
}

fn packed(body: &Value) -> (Vec<u8>, Value) {
    let mut bytes = Vec::new();
    let answer = diff(body, &|| {}, &mut bytes).unwrap();
    (bytes, answer)
}

#[test]
fn what_is_packed_and_unpacked_is_the_same() {
    if !is_root("what_is_packed_and_unpacked_is_the_same") {
        return;
    }
    let world = World::new();
    let from = world.directory.join("upper");
    upper(&from);
    let before = listing(&from);
    let (bytes, answer) = packed(&json!({"upper": from}));
    assert_eq!(answer["digest"], digest(&bytes));
    assert_eq!(answer["diffId"], digest(&bytes));
    assert_eq!(answer["size"], bytes.len());
    assert_eq!(
        packed(&json!({"upper": from})).0,
        bytes,
        "always the same bytes"
    );
    let (gzip, gzipped) = packed(&json!({"upper": from, "compression": "gzip"}));
    assert_eq!(gzipped["digest"], digest(&gzip));
    assert_eq!(gzipped["size"], gzip.len());
    assert_eq!(gzipped["diffId"], answer["diffId"]);
    for (name, archive, answer) in [("plain", &bytes, &answer), ("gzip", &gzip, &gzipped)] {
        let path = world.directory.join("archive");
        fs::write(&path, archive).unwrap();
        let unpacked = unpack(&json!({
            "archive": path,
            "digest": answer["digest"],
            "diffId": answer["diffId"],
            "destination": world.layer(name),
            "devices": "make",
        }))
        .unwrap();
        for key in ["digest", "diffId", "bytes", "files"] {
            assert_eq!(unpacked[key], answer[key], "{key}");
        }
        assert_same(&listing(&world.layer(name)), &before, name);
        assert_eq!(
            xattr(&world.layer(name).join("opaque"), "trusted.overlay.origin"),
            None
        );
    }
    let committed =
        commit(&json!({"upper": from, "destination": world.layer("committed")})).unwrap();
    assert_eq!(committed["diffId"], answer["diffId"]);
    assert_eq!(committed["bytes"], answer["bytes"]);
    assert_same(&listing(&world.layer("committed")), &before, "committed");
    assert_eq!(
        commit(&json!({"upper": from, "destination": world.layer("committed")}))
            .unwrap_err()
            .code,
        FailureCode::AlreadyExists
    );
    // The archive is one that others read, with the same content.
    let listed = Command::new("tar")
        .args(["--list", "--file"])
        .arg(world.directory.join("archive"))
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in [
        "./",
        "etc/",
        "etc/.wh.gone-too",
        ".wh.gone",
        "opaque/.wh..wh..opq",
        "opaque/only",
    ] {
        assert!(text.lines().any(|line| line == name), "{name} in {text}");
    }
}

#[test]
fn a_real_overlay_is_exported_as_it_shows() {
    if !is_root("a_real_overlay_is_exported_as_it_shows") {
        return;
    }
    let world = World::new();
    let dir = |name: &str| {
        let path = world.directory.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (low, middle, changes, work, merged) = (
        dir("low"),
        dir("middle"),
        dir("up"),
        dir("work"),
        dir("merged"),
    );
    upper(&low);
    for name in ["gone", "etc/gone-too"] {
        fs::remove_file(low.join(name)).unwrap();
    }
    fs::create_dir_all(middle.join("etc")).unwrap();
    fs::write(middle.join("etc/middle"), "m").unwrap();
    node(&middle.join("empty"), libc::S_IFCHR, 0);
    let mounted = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o"])
        .arg(format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            middle.display(),
            low.display(),
            changes.display(),
            work.display()
        ))
        .arg(&merged)
        .output()
        .unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    let changed = std::panic::catch_unwind(|| {
        // What programs do to a root.
        fs::remove_file(merged.join("tool")).unwrap();
        fs::remove_dir_all(merged.join("opaque")).unwrap();
        fs::create_dir(merged.join("opaque")).unwrap();
        fs::write(merged.join("opaque/new"), "n").unwrap();
        fs::remove_dir_all(merged.join("etc/deep")).unwrap();
        fs::write(merged.join("etc/deep"), "a file now").unwrap();
        fs::write(merged.join("etc/middle"), "changed").unwrap();
        fs::write(merged.join("fresh"), "f").unwrap();
        fs::hard_link(merged.join("fresh"), merged.join("fresh-too")).unwrap();
        listing(&merged)
    });
    let unmounted = Command::new("umount").arg(&merged).status().unwrap();
    assert!(unmounted.success());
    let mut shown = changed.unwrap();
    let mut bytes = Vec::new();
    let answer = export(
        &json!({"layers": [low, middle], "upper": changes}),
        &|| {},
        &mut bytes,
    )
    .unwrap();
    assert_eq!(answer["digest"], digest(&bytes));
    let path = world.directory.join("archive");
    fs::write(&path, &bytes).unwrap();
    unpack(&json!({"archive": path, "diffId": answer["diffId"], "destination": world.layer("root"), "devices": "make"})).unwrap();
    let mut unpacked = listing(&world.layer("root"));
    // overlayfs shows its own attribute to nobody, and the unpacked root has no such directory.
    for tree in [&mut shown, &mut unpacked] {
        for line in tree.values_mut() {
            *line = line.replace("Some([121])", "None");
        }
    }
    assert_same(&unpacked, &shown, "exported");

    // The difference on top of the same layers shows the same.
    commit(&json!({"upper": changes, "destination": world.layer("difference")})).unwrap();
    let mut again = Vec::new();
    export(
        &json!({"layers": [low, middle, world.layer("difference")], "upper": null}),
        &|| {},
        &mut again,
    )
    .unwrap();
    assert!(again == bytes, "the committed layer shows the same root");
}

#[test]
fn what_no_layer_can_say_is_refused() {
    if !is_root("what_no_layer_can_say_is_refused") {
        return;
    }
    let world = World::new();
    let refused = |name: &str, words: &str, make: &dyn Fn(&Path)| {
        let from = world.directory.join(name);
        fs::create_dir(&from).unwrap();
        make(&from);
        let mut bytes = Vec::new();
        let failure = diff(&json!({"upper": from}), &|| {}, &mut bytes).unwrap_err();
        assert_eq!(failure.code, FailureCode::Invalid, "{name}: {failure}");
        assert!(failure.message.contains(words), "{name}: {failure}");
        let failure =
            commit(&json!({"upper": from, "destination": world.layer("bad")})).unwrap_err();
        assert!(failure.message.contains(words), "{name}: {failure}");
        assert_eq!(world.left(), Vec::<String>::new(), "{name} left something");
    };
    refused("wh", "\".wh.x\"", &|from| {
        fs::write(from.join(".wh.x"), "").unwrap()
    });
    refused("redirect", "trusted.overlay.redirect", &|from| {
        fs::create_dir(from.join("moved")).unwrap();
        set_xattr(&from.join("moved"), "trusted.overlay.redirect", b"/old");
    });
    refused("metacopy", "trusted.overlay.metacopy", &|from| {
        fs::write(from.join("half"), "").unwrap();
        set_xattr(&from.join("half"), "trusted.overlay.metacopy", b"");
    });
    refused("deep", "directories deep", &|from| {
        fs::create_dir_all(from.join("d/".repeat(300))).unwrap();
    });
    refused("attribute", "no archive can hold", &|from| {
        fs::write(from.join("file"), "").unwrap();
        set_xattr(&from.join("file"), "user.a=b", b"1");
    });
    let code = |body: &Value| diff(body, &|| {}, &mut Vec::new()).unwrap_err().code;
    assert_eq!(
        code(&json!({"upper": "/nonexistent"})),
        FailureCode::NotFound
    );
    assert_eq!(
        code(&json!({"upper": world.directory.join("outside")})),
        FailureCode::Invalid
    );
    assert_eq!(
        code(&json!({"upper": world.directory, "compression": "rar"})),
        FailureCode::Invalid
    );
    let link = world.directory.join("a-link");
    symlink("/etc", &link).unwrap();
    assert_eq!(
        code(&json!({"upper": link})),
        FailureCode::Invalid,
        "a link is not followed"
    );
    assert_eq!(
        export(
            &json!({"layers": [], "upper": null}),
            &|| {},
            &mut Vec::new()
        )
        .unwrap_err()
        .code,
        FailureCode::Invalid
    );
    // Links out of the tree are links, and their targets are not read.
    let from = world.directory.join("links");
    fs::create_dir(&from).unwrap();
    symlink(world.directory.join("outside"), from.join("out")).unwrap();
    let (bytes, _) = packed(&json!({"upper": from}));
    assert!(!bytes.windows(9).any(|window| window == b"untouched"));
}

#[test]
fn a_stream_is_unpacked_as_it_comes_and_given_up_at_the_first_error() {
    let world = World::new();
    let from = world.directory.join("source");
    fs::create_dir(&from).unwrap();
    let file = fs::File::create(from.join("file")).unwrap();
    file.write_all_at(&[5; 3_000_000], 0).unwrap();
    let (bytes, answer) = packed(&json!({"upper": from, "compression": "gzip"}));
    let body =
        json!({"archive": null, "diffId": answer["diffId"], "destination": world.layer("one")});
    let (mut source, sink) = std::io::pipe().unwrap();
    let unpacked = std::thread::scope(|scope| {
        let body = &body;
        let (say, heard) = std::sync::mpsc::channel();
        let unpacking = scope
            .spawn(move || unpack_stream(body, &mut source, &|| say.send(()).unwrap(), &|| {}));
        heard.recv().unwrap();
        let mut sink = sink;
        for piece in bytes.chunks(3) {
            std::io::Write::write_all(&mut sink, piece).unwrap();
        }
        drop(sink);
        unpacking.join().unwrap()
    })
    .unwrap();
    assert_eq!(unpacked["digest"], digest(&bytes));
    assert!(fs::read(world.layer("one").join("file")).unwrap() == [5; 3_000_000]);

    // What is no archive is refused though the stream goes on for ever.
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let other = theirs.try_clone().unwrap();
    let body = json!({"archive": null, "diffId": null, "destination": world.layer("two")});
    let failure = std::thread::scope(|scope| {
        scope.spawn(move || {
            let zeros = [1; 4096];
            while std::io::Write::write_all(&mut ours, &zeros).is_ok() {}
        });
        unpack_stream(&body, &mut theirs, &|| {}, &|| {
            other.shutdown(std::net::Shutdown::Both).unwrap();
        })
    })
    .unwrap_err();
    assert_eq!(failure.code, FailureCode::Invalid, "{failure}");
    assert_eq!(world.left(), ["one"]);
    let mut nothing = std::io::empty();
    let failure = unpack_stream(&body, &mut nothing, &|| {}, &|| {}).unwrap_err();
    assert!(failure.message.contains("empty"), "{failure}");
}
