//! One pass over a layer on several cores: read and decompressed by one thread, hashed by the next, written by a third.
//!
//! Blocks of bytes go round: from the reader over the hasher to the writer, and empty back to the reader, so that nothing is copied
//! and a slow stage holds the others up instead of filling the memory.

use crate::LayerError;
use crate::compression::Archive;
use crate::digest::{Hashed, Sha256Digest};
use crate::limits::{COPY_BYTES, TAR_BYTES_MAX};
use std::io::{self, BufRead, Read};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder, ScopedJoinHandle};

/// How many blocks go round: two for each stage, and some for their unevenness.
const BLOCKS: usize = 8;

/// What was read, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measures {
    /// `sha256:…` of the archive as it came.
    pub digest: String,
    /// `sha256:…` of the uncompressed tar.
    pub diff_id: String,
    /// Length of the uncompressed tar.
    pub bytes: u64,
}

/// Some uncompressed bytes: the first `length` of the buffer.
struct Block {
    buffer: Vec<u8>,
    length: usize,
}

/// Gives the uncompressed bytes of `source` to `write`, which runs on a thread of its own, reads what it leaves, and measures all.
///
/// `give_up` is called when `write` fails, so that a `source` that is waited for can be ended.
pub fn run<R: Read + Send, T: Send>(
    source: R,
    write: impl FnOnce(&mut Stream) -> Result<T, LayerError> + Send,
    give_up: &(dyn Fn() + Sync),
) -> Result<(T, Measures), LayerError> {
    let archive = Archive::new(Hashed::new(source))?;
    let compressed = archive.is_compressed();
    let (filled, to_hash) = sync_channel(BLOCKS);
    let (hashed, to_write) = sync_channel(BLOCKS);
    let (recycled, empty) = sync_channel(BLOCKS);
    for _ in 0..BLOCKS {
        let buffer = vec![0; COPY_BYTES];
        // There is room for all of them.
        drop(recycled.send(Block { buffer, length: 0 }));
    }
    thread::scope(|scope| {
        let start = |name: &str| Builder::new().name(name.into());
        let failed = |error| LayerError::Write("starting a thread".into(), error);
        let reading = start("layer-read")
            .spawn_scoped(scope, move || fill(archive, &empty, &filled))
            .map_err(failed)?;
        let hashing = start("layer-hash")
            .spawn_scoped(scope, move || hash(&to_hash, &hashed))
            .map_err(failed)?;
        let writing = start("layer-write")
            .spawn_scoped(scope, move || {
                let mut stream = Stream {
                    blocks: to_write,
                    recycled,
                    block: None,
                    at: 0,
                };
                let written = write(&mut stream).and_then(|value| {
                    stream.drain()?;
                    Ok(value)
                });
                drop(stream);
                if written.is_err() {
                    give_up();
                }
                written
            })
            .map_err(failed)?;
        let written = joined(writing);
        let digest = joined(reading);
        let (diff_id, bytes) = joined(hashing);
        let value = written?;
        let digest = if compressed { digest } else { diff_id.clone() };
        Ok((
            value,
            Measures {
                digest,
                diff_id,
                bytes,
            },
        ))
    })
}

fn joined<T>(handle: ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The first stage; answers the digest of what it has read.
fn fill<R: Read>(
    mut archive: Archive<Hashed<R>>,
    empty: &Receiver<Block>,
    filled: &SyncSender<io::Result<Block>>,
) -> String {
    let mut decoder = archive.decoder();
    // An error of a channel is the end of the stage behind, which tells why.
    while let Ok(mut block) = empty.recv() {
        match read_some(&mut decoder, &mut block.buffer) {
            Ok(0) => break,
            Ok(length) => {
                block.length = length;
                if filled.send(Ok(block)).is_err() {
                    break;
                }
            }
            Err(error) => {
                drop(filled.send(Err(error)));
                break;
            }
        }
    }
    drop(decoder);
    archive.into_source().digest()
}

/// The second stage; answers digest and length of the tar.
fn hash(
    to_hash: &Receiver<io::Result<Block>>,
    hashed: &SyncSender<io::Result<Block>>,
) -> (String, u64) {
    let mut sum = Sha256Digest::default();
    let mut bytes = 0;
    for block in to_hash {
        let block = block.and_then(|block| {
            sum.update(&block.buffer[..block.length]);
            bytes += block.length as u64;
            if bytes > TAR_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "it unpacks to more than {TAR_BYTES_MAX} bytes, the limit of one layer"
                    ),
                ));
            }
            Ok(block)
        });
        let ends = block.is_err();
        if hashed.send(block).is_err() || ends {
            break;
        }
    }
    (sum.finish(), bytes)
}

/// The uncompressed bytes, for the third stage.
pub struct Stream {
    blocks: Receiver<io::Result<Block>>,
    recycled: SyncSender<Block>,
    block: Option<Block>,
    /// How much of the block is used.
    at: usize,
}

impl Stream {
    /// What follows the end of the archive counts for the digest.
    fn drain(&mut self) -> Result<(), LayerError> {
        loop {
            let length = self.fill_buf().map_err(LayerError::Read)?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self
            .block
            .as_ref()
            .is_none_or(|block| self.at == block.length)
        {
            if let Some(block) = self.block.take() {
                // The reader may have ended.
                drop(self.recycled.send(block));
            }
            self.at = 0;
            self.block = self.blocks.recv().ok().transpose()?;
        }
        Ok(self
            .block
            .as_ref()
            .map_or(&[], |block| &block.buffer[self.at..block.length]))
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Fills as much of the buffer as there is.
pub fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match source.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
