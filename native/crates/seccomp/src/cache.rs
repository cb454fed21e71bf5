//! Compiled filters kept by what they were compiled from: in memory for a resident process, on disk for one that lives for one command.
//!
//! The key is a SHA-256 of everything that the program depends on. A program is trusted as far as its directory is: one that others
//! may write to is not used, as no checksum would tell their program from ours.

use crate::arch::Arch;
use crate::compile::compile;
use crate::program::{INSTRUCTIONS_MAX, Program};
use sha2::{Digest, Sha256};
use shoal_protocol::Failure;
use shoal_protocol::oci::Seccomp;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts up whenever the compiler gives another program for the same profile.
const COMPILER_VERSION: u32 = 1;
/// Most programs kept in memory: a node runs few different profiles; past that, all are dropped and made anew as needed.
const PROGRAMS_MAX: usize = 64;
/// Most programs kept on disk, as bytes 64 * 32 KiB at the very most.
const FILES_MAX: usize = 64;
const MAGIC: &[u8; 8] = b"shoalbpf";
const HEADER_BYTES: usize = 16;
const INSTRUCTION_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;
const FILE_BYTES_MAX: u64 =
    (HEADER_BYTES + INSTRUCTIONS_MAX * INSTRUCTION_BYTES + DIGEST_BYTES) as u64;

type Key = [u8; DIGEST_BYTES];

/// What a program depends on: profile, architecture, compiler.
fn key(profile: &Seccomp) -> Key {
    struct Hashing(Sha256);
    impl Write for Hashing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hashing = Hashing(Sha256::new_with_prefix(MAGIC));
    hashing.0.update(COMPILER_VERSION.to_le_bytes());
    hashing.0.update(Arch::NATIVE.name());
    // Through a buffer: the serializer writes a few bytes at a time.
    let mut buffered = io::BufWriter::with_capacity(4096, &mut hashing);
    serde_json::to_writer(&mut buffered, profile).expect("a profile is plain data");
    buffered.flush().expect("hashing cannot fail");
    drop(buffered);
    hashing.0.finalize().into()
}

/// Programs in memory, for threads that share it.
#[derive(Debug, Default)]
pub struct Memory {
    programs: Mutex<HashMap<Key, Arc<Program>>>,
}

impl Memory {
    /// The program of a profile, compiled at most once while it is kept.
    pub fn compile(&self, profile: &Seccomp) -> Result<Arc<Program>, Failure> {
        let key = key(profile);
        let programs = || self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs().get(&key) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(compile(profile)?);
        let mut programs = programs();
        if programs.len() >= PROGRAMS_MAX {
            programs.clear();
        }
        programs.insert(key, Arc::clone(&program));
        Ok(program)
    }
}

/// The program of a profile, from `directory` (made when missing) or compiled and left there. A cache that cannot be used is none.
pub fn compile_on_disk(directory: &Path, profile: &Seccomp) -> Result<Program, Failure> {
    if !is_ours(directory) {
        return compile(profile);
    }
    let key = key(profile);
    let path = directory.join(hex(&key));
    if let Some(program) = read(&path, &key) {
        return Ok(program);
    }
    let program = compile(profile)?;
    // A full disk or a lost race costs the next command a compilation and this one nothing.
    drop(keep(directory, &path, &write(&key, &program)));
    Ok(program)
}

/// Whether nobody else can write into the directory. It is made, with its parent, when it is missing.
fn is_ours(directory: &Path) -> bool {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    let looked = made.and_then(|()| fs::symlink_metadata(directory));
    // SAFETY: geteuid takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    looked.is_ok_and(|is| is.is_dir() && is.uid() == user && is.mode() & 0o022 == 0)
}

fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Header, instructions, and a digest over both and the key, so that a file under a wrong name is none.
fn write(key: &Key, program: &Program) -> Vec<u8> {
    let count = u32::try_from(program.instructions.len()).expect("at most 4096 instructions");
    let mut bytes = Vec::with_capacity(
        HEADER_BYTES + program.instructions.len() * INSTRUCTION_BYTES + DIGEST_BYTES,
    );
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&program.flags.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for one in &program.instructions {
        bytes.extend_from_slice(&one.code.to_le_bytes());
        bytes.extend_from_slice(&[one.jt, one.jf]);
        bytes.extend_from_slice(&one.k.to_le_bytes());
    }
    bytes.extend_from_slice(&digest(key, &bytes));
    bytes
}

fn digest(key: &Key, bytes: &[u8]) -> Key {
    Sha256::new_with_prefix(key)
        .chain_update(bytes)
        .finalize()
        .into()
}

/// A program from disk; whatever is wrong with the file, there is none.
fn read(path: &Path, key: &Key) -> Option<Program> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let mut bytes = Vec::with_capacity(8192);
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    parse(&bytes, key)
}

fn parse(bytes: &[u8], key: &Key) -> Option<Program> {
    let (body, told) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    let (header, instructions) = body.split_first_chunk::<HEADER_BYTES>()?;
    let word = |from: &[u8]| Some(u32::from_le_bytes(from.try_into().ok()?));
    let count = word(&header[12..])? as usize;
    if header[..8] != *MAGIC
        || count > INSTRUCTIONS_MAX
        || instructions.len() != count * INSTRUCTION_BYTES
        || digest(key, body) != *told
    {
        return None;
    }
    let instruction = |from: &[u8]| {
        Some(libc::sock_filter {
            code: u16::from_le_bytes([from[0], from[1]]),
            jt: from[2],
            jf: from[3],
            k: word(&from[4..])?,
        })
    };
    Some(Program {
        flags: word(&header[8..12])?,
        instructions: instructions
            .chunks_exact(INSTRUCTION_BYTES)
            .map(instruction)
            .collect::<Option<_>>()?,
    })
}

/// Writes beside and renames, so that no reader sees half a file; the oldest go when there are too many.
fn keep(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_room(directory)?;
    let beside = path.with_extension(std::process::id().to_string());
    let written = new_file(&beside).and_then(|mut file| file.write_all(bytes));
    let kept = written.and_then(|()| fs::rename(&beside, path));
    if kept.is_err() {
        drop(fs::remove_file(&beside));
    }
    kept
}

fn new_file(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    };
    match open() {
        // Left by a process of our number that was killed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()
        }
        other => other,
    }
}

fn make_room(directory: &Path) -> io::Result<()> {
    let mut files: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // One that another process removes meanwhile needs no removing.
        if let Ok(modified) = entry.metadata().and_then(|is| is.modified()) {
            files.push((modified, entry.path()));
        }
    }
    files.sort_unstable();
    let over = (files.len() + 1).saturating_sub(FILES_MAX);
    for (_, path) in &files[..over.min(files.len())] {
        drop(fs::remove_file(path));
    }
    Ok(())
}
