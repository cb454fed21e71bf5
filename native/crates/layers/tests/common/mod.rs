//! Archives written by hand, wrong ones too, and a place to unpack them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shoal_layers::unpack;
use shoal_protocol::Failure;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory with an archive, a place for layers, and a file outside that no layer may touch.
pub struct World {
    pub directory: PathBuf,
}

impl World {
    pub fn new() -> Self {
        let directory = std::env::temp_dir().join(format!(
            "shlt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(directory.join("layers")).unwrap();
        fs::write(directory.join("outside"), "untouched").unwrap();
        Self { directory }
    }

    pub fn layer(&self, name: &str) -> PathBuf {
        self.directory.join("layers").join(name)
    }

    pub fn unpack_as(
        &self,
        name: &str,
        archive: &[u8],
        diff_id: Option<&str>,
    ) -> Result<Value, Failure> {
        let path = self.directory.join("archive");
        fs::write(&path, archive).unwrap();
        unpack(
            &json!({"call": "unpack", "archive": path, "diffId": diff_id, "destination": self.layer(name)}),
        )
    }

    pub fn unpack(&self, archive: &[u8]) -> PathBuf {
        self.unpack_as("one", archive, Some(&digest(archive)))
            .unwrap();
        self.layer("one")
    }

    pub fn left(&self) -> Vec<String> {
        fs::read_dir(self.directory.join("layers"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).expect("a test removes what it made");
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!(
        "sha256:{}",
        Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

pub fn is_root(test: &str) -> bool {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("\n!!! SKIPPED {test}: it needs root !!!\n");
    }
    root
}

/// Writes tars by hand, wrong ones too.
#[derive(Default)]
pub struct Builder {
    pub bytes: Vec<u8>,
}

impl Builder {
    pub fn header(mut self, name: &[u8], flag: u8, link: &[u8], mode: u32, size: usize) -> Self {
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

    pub fn content(mut self, content: &[u8]) -> Self {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.header(name.as_bytes(), b'0', b"", 0o644, content.len())
            .content(content)
    }

    pub fn directory(self, name: &str) -> Self {
        self.header(name.as_bytes(), b'5', b"", 0o755, 0)
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.header(name.as_bytes(), b'2', target.as_bytes(), 0o777, 0)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.header(name.as_bytes(), b'1', target.as_bytes(), 0o644, 0)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
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
        self.header(b"pax", b'x', b"", 0o644, bytes.len())
            .content(&bytes)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

pub fn checked(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub fn xattr(path: &Path, key: &str) -> Option<Vec<u8>> {
    let (path, key) = (
        CString::new(path.as_os_str().as_bytes()).unwrap(),
        CString::new(key).unwrap(),
    );
    let mut value = vec![0u8; 1024];
    // SAFETY: both strings are NUL-terminated and the buffer is writable for its length.
    let got = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    usize::try_from(got).ok().map(|got| value[..got].to_vec())
}

pub fn set_xattr(path: &Path, key: &str, value: &[u8]) {
    let (path, key) = (
        CString::new(path.as_os_str().as_bytes()).unwrap(),
        CString::new(key).unwrap(),
    );
    // SAFETY: both strings are NUL-terminated, pointer and length are of the same slice.
    let set = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
