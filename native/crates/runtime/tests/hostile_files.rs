//! Images and configurations that would lead mounts, devices and settings out of the container (spec: native.md B5), on the real kernel.

mod place;

use place::{OWNED, Place, mount_points, possible, proc_mount, run, with_proc};
use serde_json::json;
use shoal_runtime::mounts::Surroundings;
use shoal_runtime::sys::{Kernel, file, process};
use shoal_runtime::sysctl;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Makes a device node.
fn make_node(path: &Path, major: u32, minor: u32) {
    let name = CString::new(path.to_str().expect("text")).expect("no NUL");
    let device = libc::makedev(major, minor);
    // SAFETY: the path is NUL-terminated and lives over the call.
    let made = unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, device) };
    assert_eq!(
        made,
        0,
        "{}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
}

/// Unmounts a place of the host, with all that lies on it.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let path = CString::new(self.0.to_str().expect("text")).expect("no NUL");
        // SAFETY: the path is NUL-terminated and lives over the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// The old root lies on the new one after pivot_root(2), where `..` of the root would lead to it.
#[test]
fn nothing_of_the_host_is_left_in_the_namespace() {
    if !possible() {
        return;
    }
    let place = Place::new();
    fs::write(place.image("etc/mark"), "image").expect("mark");
    place
        .inside(with_proc(vec![]), || {
            let points = mount_points("/proc/thread-self/mountinfo");
            assert!(points == ["/", "/proc"], "{} mounts are left", points.len());
            for way in ["/../etc/mark", "../etc/mark", "/proc/../../etc/mark"] {
                assert_eq!(fs::read(way).expect(way), b"image");
            }
        })
        .expect("built");
}

/// A tree that was copied in the host's mount namespace is a peer of the host's, until it is made private.
#[test]
fn a_volume_that_was_opened_outside_tells_the_host_nothing() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let volume = place.path("volume");
    fs::create_dir(place.dir.join("volume/sub")).expect("dir");
    run("mount", &["--bind", &volume, &volume]);
    let mounted = Unmount(place.dir.join("volume"));
    run("mount", &["--make-shared", &volume]);
    let spec = json!({
        "mounts": [{"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"]}],
        "linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}
    });
    // Its sources are opened before its mount namespace is cut off, as with a user namespace.
    let owned = OWNED | libc::CLONE_NEWUSER;
    let looked = place.inside_of(
        spec,
        owned,
        &Surroundings::default(),
        || {},
        || {
            let (kind, at) = (c"tmpfs", c"/v/sub");
            // SAFETY: the strings are NUL-terminated; there is no data.
            let mounted = unsafe {
                libc::mount(
                    kind.as_ptr(),
                    at.as_ptr(),
                    kind.as_ptr(),
                    0,
                    std::ptr::null(),
                )
            };
            assert_eq!(mounted, 0);
            fs::write("/v/sub/inside", "").expect("a file");
        },
    );
    let seen = place.dir.join("volume/sub/inside").exists();
    drop(mounted);
    looked.expect("built");
    assert!(!seen);
}

#[test]
fn a_mount_below_a_read_only_path_takes_nothing() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let mut spec = with_proc(vec![
        json!({"destination": "/data", "type": "tmpfs"}),
        json!({"destination": "/data/sub", "type": "tmpfs"}),
    ]);
    spec["linux"] = json!({"readonlyPaths": ["/data"]});
    place
        .inside(spec, || {
            for path in ["/data/x", "/data/sub/x"] {
                let error = fs::write(path, "x").expect_err(path);
                assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{path}");
            }
        })
        .expect("built");
}

/// CVE-2025-52881: an image whose /proc is files of its own. The setting reaches the kernel, and the files stay as they are.
#[test]
fn settings_are_made_by_a_procfs_of_our_own() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let fake = place.image("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).expect("dirs");
    fs::write(fake.join("ip_forward"), "image").expect("file");
    let spec = json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}});
    let seen = place.inside(spec, || {
        let proc_root = sysctl::private_proc(&Kernel).expect("procfs");
        let path = "sys/net/ipv4/ip_forward";
        let setting = file::open_at(proc_root.as_fd(), path, libc::O_RDONLY, 0).expect(path);
        let mut text = String::new();
        fs::File::from(setting)
            .read_to_string(&mut text)
            .expect("text");
        text
    });
    assert_eq!(seen.expect("built"), "1\n");
    let left = fs::read_to_string(fake.join("ip_forward")).expect("file");
    assert_eq!(left, "image");
}

/// CVE-2025-52881: a setting's path that leads over a link, over a mount, or to a file that is no setting.
#[test]
fn settings_are_written_to_a_bare_procfs_only() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let settings = place.dir.join("volume/sys/net");
    fs::create_dir_all(&settings).expect("dirs");
    for name in ["plain", "covered"] {
        fs::write(settings.join(name), "as it was").expect("file");
    }
    let own = format!("/proc/{}/comm", std::process::id());
    let comm = fs::read_to_string(&own).expect("comm");
    let apply = |root: BorrowedFd<'_>, key: &str| {
        let settings = BTreeMap::from([(key.to_owned(), "led astray".to_owned())]);
        sysctl::apply(&Kernel, root, &settings)
            .expect_err(key)
            .errno
    };
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            process::unshare(libc::CLONE_NEWNS).expect("a mount namespace");
            run("mount", &["--make-rprivate", "/"]);
            let covered = settings.join("covered");
            run("mount", &["--bind", &own, covered.to_str().expect("text")]);
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let volume: OwnedFd = file::open(&place.path("volume"), flags).expect("volume");
            let proc_root = sysctl::private_proc(&Kernel).expect("procfs");
            [
                // `self` is a link of procfs itself.
                apply(proc_root.as_fd(), "net/../../self/comm"),
                apply(volume.as_fd(), "net/covered"),
                apply(volume.as_fd(), "net/plain"),
            ]
        });
        told.join().expect("no panic inside")
    });
    let left = fs::read_to_string(settings.join("plain")).expect("file");
    assert_eq!(fs::read_to_string(&own).expect("comm"), comm);
    assert_eq!(left, "as it was");
    assert_eq!(
        told,
        [Some(libc::ELOOP), Some(libc::EXDEV), Some(libc::EXDEV)]
    );
}

/// CVE-2021-30465: an absolute link of the image, on the way to a mount's target, means the image's own directories.
#[test]
fn a_link_of_the_image_leads_no_mount_out() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let outside = place.dir.join("outside");
    fs::create_dir_all(outside.join("x")).expect("dirs");
    symlink(&outside, place.image("away")).expect("link");
    fs::write(place.dir.join("volume/mark"), "volume").expect("mark");
    let mount = json!({"destination": "/away/x", "type": "bind", "source": place.path("volume"), "options": ["bind"]});
    place
        .inside(with_proc(vec![mount]), || {
            assert_eq!(fs::read("/away/x/mark").expect("mounted"), b"volume");
        })
        .expect("built");
    assert_eq!(fs::read_dir(outside.join("x")).expect("dir").count(), 0);
}

/// Where neither lists nor BPF programs can be had, nothing that the container can write lets a device be opened.
#[test]
fn without_device_rules_no_node_of_the_image_or_the_container_opens() {
    if !possible() {
        return;
    }
    let place = Place::new();
    // Harmless ones: zero.
    make_node(&place.image("etc/zero"), 1, 5);
    let around = Surroundings {
        nodev: true,
        ..Surroundings::default()
    };
    let spec = with_proc(vec![
        json!({"destination": "/dev", "type": "tmpfs", "options": ["mode=755"]}),
        json!({"destination": "/run", "type": "tmpfs"}),
    ]);
    let looked = place.inside_of(
        spec,
        OWNED,
        &around,
        || {},
        || {
            make_node(Path::new("/run/zero"), 1, 5);
            make_node(Path::new("/dev/own"), 1, 5);
            for node in ["/etc/zero", "/run/zero", "/dev/own"] {
                let error = fs::File::open(node).expect_err(node);
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{node}");
            }
            fs::File::open("/dev/zero").expect("the host's, bound");
        },
    );
    looked.expect("built");
}

/// An image whose /dev/ptmx is the device that opens the host's terminals.
#[test]
fn a_ptmx_of_the_image_is_replaced() {
    if !possible() {
        return;
    }
    let place = Place::new();
    make_node(&place.image("dev/ptmx"), 5, 2);
    place
        .inside(with_proc(vec![]), || {
            let link = fs::read_link("/dev/ptmx").expect("a link");
            assert_eq!(link, Path::new("pts/ptmx"));
        })
        .expect("built");
}

#[test]
fn links_of_an_image_lead_nowhere() {
    if !possible() {
        return;
    }
    for (name, target) in [
        ("proc", "/etc"),
        ("dev", "/etc"),
        ("sys", "../../../../etc"),
    ] {
        let place = Place::new();
        fs::remove_dir(place.image(name)).expect("dir");
        symlink(target, place.image(name)).expect("link");
        let spec = json!({"mounts": [
            proc_mount(),
            {"destination": "/dev", "type": "tmpfs"},
            {"destination": "/sys", "type": "sysfs", "options": ["ro"]}
        ]});
        let failure = place.inside(spec, || ()).expect_err(name);
        assert!(failure.message.contains("symlink"), "{name}: {failure}");
        assert_eq!(fs::read_dir(place.image("etc")).expect("etc").count(), 0);
    }
    let place = Place::new();
    symlink("/proc/sys", place.image("away")).expect("link");
    symlink("/proc/self/root/etc", place.image("magic")).expect("link");
    for destination in ["/away", "/magic/x"] {
        let spec = with_proc(vec![json!({"destination": destination, "type": "tmpfs"})]);
        let failure = place.inside(spec, || ()).expect_err(destination);
        assert!(failure.to_string().contains(destination), "{failure}");
    }
}
