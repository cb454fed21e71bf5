//! Opens an archive and undoes its compression, told from its first bytes.

use crate::LayerError;
use crate::limits::COPY_BYTES;
use crate::pipeline::read_some;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

/// How many bytes tell a compression.
const HEAD_BYTES: usize = 6;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Compressions that images may come in and that we do not undo.
const UNSUPPORTED: [(&[u8], &str); 3] = [
    (b"BZh", "bzip2"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
];
/// Magic numbers 0x184D2A50 to 0x184D2A5F begin zstd frames that carry no content.
const SKIPPABLE_MASK: u32 = 0xffff_fff0;
const SKIPPABLE: u32 = 0x184d_2a50;

/// Opens an archive file for reading.
pub fn open(path: &Path) -> Result<File, LayerError> {
    let failed = |error: io::Error| LayerError::of_archive(path, &error);
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LayerError::Broken(
            "the archive is not a regular file".into(),
        ));
    }
    File::open(path).map_err(failed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Gzip,
    Zstd,
}

/// An archive whose first bytes have told its compression.
pub struct Archive<R> {
    source: BufReader<R>,
    head: Vec<u8>,
    kind: Kind,
}

impl<R: Read> Archive<R> {
    /// Reads the first bytes; refuses what is empty or compressed in a way that is not known here.
    pub fn new(source: R) -> Result<Self, LayerError> {
        let mut source = BufReader::with_capacity(COPY_BYTES, source);
        let mut head = vec![0; HEAD_BYTES];
        let got = read_some(&mut source, &mut head).map_err(LayerError::Read)?;
        head.truncate(got);
        if head.is_empty() {
            return Err(LayerError::Broken("the archive is empty".into()));
        }
        if let Some((_, name)) = UNSUPPORTED
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
        {
            return Err(LayerError::Broken(format!(
                "the archive is compressed with {name}, which is not supported; use gzip, zstd or none"
            )));
        }
        let kind = if head.starts_with(GZIP) {
            Kind::Gzip
        } else if head.starts_with(ZSTD) || head.get(..4).is_some_and(is_skippable) {
            Kind::Zstd
        } else {
            Kind::Plain
        };
        Ok(Self { source, head, kind })
    }

    pub fn is_compressed(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// The uncompressed bytes; asked for once.
    pub fn decoder(&mut self) -> Box<dyn Read + '_> {
        let whole = io::Cursor::new(std::mem::take(&mut self.head)).chain(&mut self.source);
        match self.kind {
            Kind::Plain => Box::new(whole),
            Kind::Gzip => Box::new(MultiGzDecoder::new(whole)),
            Kind::Zstd => Box::new(ZstdFrames::new(whole)),
        }
    }

    pub fn into_source(self) -> R {
        self.source.into_inner()
    }
}

fn is_skippable(magic: &[u8]) -> bool {
    magic
        .try_into()
        .is_ok_and(|bytes| u32::from_le_bytes(bytes) & SKIPPABLE_MASK == SKIPPABLE)
}

/// Bytes that were read to look at, and then the rest.
struct Replayed<R> {
    head: [u8; 4],
    used: usize,
    inner: R,
}

impl<R: Read> Read for Replayed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.head.len() {
            return self.inner.read(buffer);
        }
        let count = buffer.len().min(self.head.len() - self.used);
        buffer[..count].copy_from_slice(&self.head[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

/// zstd frames one after the other, as parallel compressors write them, without those that are to be skipped.
struct ZstdFrames<R: Read> {
    /// Between frames the source; none once it has ended or failed.
    source: Option<R>,
    frame: Option<StreamingDecoder<Replayed<R>, FrameDecoder>>,
}

impl<R: Read> ZstdFrames<R> {
    fn new(source: R) -> Self {
        Self {
            source: Some(source),
            frame: None,
        }
    }

    /// Goes on to the next frame with content; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        while let Some(mut source) = self.source.take() {
            let mut head = [0; 4];
            let got = read_some(&mut source, &mut head)?;
            if got == 0 {
                return Ok(false);
            }
            if got < head.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if is_skippable(&head) {
                let mut length = [0; 4];
                source.read_exact(&mut length)?;
                let length = u64::from(u32::from_le_bytes(length));
                if io::copy(&mut source.by_ref().take(length), &mut io::sink())? != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.source = Some(source);
                continue;
            }
            let replayed = Replayed {
                head,
                used: 0,
                inner: source,
            };
            self.frame = Some(StreamingDecoder::new(replayed).map_err(|error| damaged(&error))?);
            return Ok(true);
        }
        Ok(false)
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(buffer).map_err(|error| damaged(&error))?;
                if count > 0 {
                    return Ok(count);
                }
                self.source = self.frame.take().map(|frame| frame.into_inner().inner);
            }
            if !self.next_frame()? {
                return Ok(0);
            }
        }
    }
}

fn damaged(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}
