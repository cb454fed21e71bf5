//! Opens an archive and undoes its compression, told from its first bytes.

use crate::LayerError;
use crate::limits::COPY_BYTES;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

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

/// The uncompressed bytes of an archive file.
pub fn open(path: &Path) -> Result<Box<dyn Read>, LayerError> {
    let failed = |error: io::Error| LayerError::of_archive(path, &error);
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LayerError::Broken(
            "the archive is not a regular file".into(),
        ));
    }
    let mut file = BufReader::with_capacity(COPY_BYTES, File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    if start.is_empty() {
        return Err(LayerError::Broken("the archive is empty".into()));
    }
    if let Some((_, name)) = UNSUPPORTED
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
    {
        return Err(LayerError::Broken(format!(
            "the archive is compressed with {name}, which is not supported; use gzip, zstd or none"
        )));
    }
    Ok(if start.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(file))
    } else if start.starts_with(ZSTD) || start.get(..4).is_some_and(is_skippable) {
        Box::new(ZstdFrames::new(file))
    } else {
        Box::new(file)
    })
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

/// Fills as much of the buffer as there is.
fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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
