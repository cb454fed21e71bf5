//! Reading tar: ustar, PAX, GNU long names and sparse files, entry by entry from a stream that is read once.

use crate::limits::{EXTENDED_HEADER_BYTES_MAX, PATH_BYTES_MAX};
use crate::pax::{self, Records};
use crate::sparse::{self, Map, Sparse};
use crate::{LayerError, Shown};
use std::io::{self, BufRead, Read};

pub const BLOCK_BYTES: usize = 512;

/// When an entry was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    pub seconds: i64,
    /// 0 to 999,999,999, always upwards from the seconds.
    pub nanoseconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Directory,
    Fifo,
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// One entry; its content, of `size` bytes, is read from the reader before the next entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
    /// The lowest twelve bits: permissions, set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Time,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content belongs, of a file with holes.
    pub sparse: Option<Sparse>,
}

/// Reads entries. Content that is not read is passed over.
pub struct Tar<R> {
    source: R,
    /// Content of the entry at hand that is still to come, and what fills its last block.
    content: u64,
    padding: u64,
    /// Whether the archive may end without the two zero blocks: its digest will tell whether it is whole.
    open_end: bool,
}

impl<R: BufRead> Tar<R> {
    pub fn new(source: R, open_end: bool) -> Self {
        Self {
            source,
            content: 0,
            padding: 0,
            open_end,
        }
    }

    /// The next entry; None at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut records = Records::default();
        let mut long_path = None;
        let mut long_link = None;
        loop {
            let rest = self.content + self.padding;
            self.skip(rest)?;
            (self.content, self.padding) = (0, 0);
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let header = Header(&block);
            header.check()?;
            let size = header.number(124, 12, "size")?;
            // PAX sizes are of the entry, never of the headers before it.
            let mut set = |size: u64| {
                self.content = size;
                self.padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
            };
            match header.0[156] {
                b'x' => {
                    set(size);
                    pax::read(&self.extended(size)?, &mut records)?;
                }
                // Of all entries that follow; writers put comments here, and readers of layers pass it over.
                b'g' => set(size),
                b'L' => {
                    set(size);
                    long_path = Some(until_nul(&self.extended(size)?).to_vec());
                }
                b'K' => {
                    set(size);
                    long_link = Some(until_nul(&self.extended(size)?).to_vec());
                }
                flag => {
                    let pax_sparse = records.sparse.take();
                    let path = pax_sparse
                        .as_ref()
                        .and_then(|sparse| sparse.name.clone())
                        .or(records.path.take())
                        .or(long_path)
                        .unwrap_or_else(|| header.path());
                    let kind = header.kind(flag, &path)?;
                    // Only files have content, whatever the size field of another entry says.
                    let size = if kind == Kind::File {
                        records.size.unwrap_or(size)
                    } else {
                        0
                    };
                    set(size);
                    let sparse = match (flag, pax_sparse) {
                        (b'S', _) => Some(self.old_sparse(&block, &path)?),
                        (_, Some(told)) if kind == Kind::File => {
                            Some(self.pax_sparse(told, &path)?)
                        }
                        _ => None,
                    };
                    let entry = Entry {
                        link: records
                            .link
                            .take()
                            .or(long_link)
                            .unwrap_or_else(|| until_nul(&block[157..257]).to_vec()),
                        kind,
                        size,
                        mode: header.small(100, 8, "mode")? & 0o7777,
                        uid: records
                            .uid
                            .map_or_else(|| header.small(108, 8, "uid"), Ok)?,
                        gid: records
                            .gid
                            .map_or_else(|| header.small(116, 8, "gid"), Ok)?,
                        modified: match records.modified {
                            Some(time) => time,
                            None => Time {
                                seconds: header.signed(136, 12, "mtime")?,
                                nanoseconds: 0,
                            },
                        },
                        xattrs: records.xattrs,
                        sparse,
                        path,
                    };
                    if entry.path.len() > PATH_BYTES_MAX || entry.link.len() > PATH_BYTES_MAX {
                        return Err(LayerError::Broken(format!(
                            "entry {}…: a path is longer than {PATH_BYTES_MAX} bytes",
                            Shown(&entry.path[..entry.path.len().min(64)])
                        )));
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Content of the entry at hand as it lies there, at most `most` bytes; none at its end. Then `used` tells how much of it was taken.
    pub fn content(&mut self, most: u64) -> Result<&[u8], LayerError> {
        let want = usize::try_from(self.content.min(most)).unwrap_or(usize::MAX);
        if want == 0 {
            return Ok(&[]);
        }
        let there = self.source.fill_buf().map_err(LayerError::Read)?;
        if there.is_empty() {
            return Err(LayerError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(&there[..there.len().min(want)])
    }

    /// Takes what `content` has shown.
    pub fn used(&mut self, count: usize) {
        self.source.consume(count);
        self.content -= count as u64;
    }

    /// The map of GNU tar's own format: four parts in the header, and 21 in each block that follows.
    fn old_sparse(&mut self, block: &[u8; BLOCK_BYTES], path: &[u8]) -> Result<Sparse, LayerError> {
        let mut map = Map::default();
        let header = Header(block);
        let size = header.number(483, 12, "real size")?;
        header.sparse_parts(386, 4, &mut map)?;
        let mut more = block[482] != 0;
        while more {
            let mut next = [0; BLOCK_BYTES];
            self.source
                .read_exact(&mut next)
                .map_err(LayerError::Read)?;
            Header(&next).sparse_parts(0, 21, &mut map)?;
            more = next[504] != 0;
        }
        Sparse::new(path, size, map.finish().unwrap_or_default(), self.content)
    }

    /// The map of PAX: in its records, or in version 1 in front of the content, as lines of digits that fill whole blocks.
    fn pax_sparse(&mut self, told: sparse::Records, path: &[u8]) -> Result<Sparse, LayerError> {
        let broken = || {
            LayerError::Broken(format!(
                "sparse entry {}: its map is malformed",
                Shown(path)
            ))
        };
        let mut map = told.map;
        if told.major.is_some_and(|major| major > 0) {
            let (mut block, mut at) = ([0; BLOCK_BYTES], BLOCK_BYTES);
            let mut number = || -> Result<u64, LayerError> {
                let mut value: Option<u64> = None;
                loop {
                    if at == BLOCK_BYTES {
                        self.content = self
                            .content
                            .checked_sub(BLOCK_BYTES as u64)
                            .ok_or_else(broken)?;
                        self.source
                            .read_exact(&mut block)
                            .map_err(LayerError::Read)?;
                        at = 0;
                    }
                    let byte = block[at];
                    at += 1;
                    match (byte, value) {
                        (b'\n', Some(value)) => return Ok(value),
                        (b'0'..=b'9', _) => {
                            value = value
                                .unwrap_or(0)
                                .checked_mul(10)
                                .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                                .map(Some)
                                .ok_or_else(broken)?;
                        }
                        _ => return Err(broken()),
                    }
                }
            };
            let count = number()?;
            for _ in 0..count {
                map.push(number()?)?;
                map.push(number()?)?;
            }
        }
        let size = told.size.ok_or_else(broken)?;
        Sparse::new(path, size, map.finish().ok_or_else(broken)?, self.content)
    }

    /// The next header block; None at a zero block, or at the end where that is allowed.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, LayerError> {
        let mut block = [0; BLOCK_BYTES];
        let mut got = 0;
        while got < BLOCK_BYTES {
            match self.source.read(&mut block[got..]) {
                Ok(0) if got == 0 && self.open_end => return Ok(None),
                Ok(0) => return Err(LayerError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > EXTENDED_HEADER_BYTES_MAX {
            return Err(LayerError::Broken(format!(
                "an extended header of {size} bytes is over the limit of {EXTENDED_HEADER_BYTES_MAX}"
            )));
        }
        let mut bytes = vec![0; usize::try_from(size).expect("under the limit")];
        self.source
            .read_exact(&mut bytes)
            .map_err(LayerError::Read)?;
        self.content -= size;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), LayerError> {
        let skipped = io::copy(&mut self.source.by_ref().take(count), &mut io::sink())
            .map_err(LayerError::Read)?;
        if skipped == count {
            Ok(())
        } else {
            Err(LayerError::Read(io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

/// A header block.
struct Header<'a>(&'a [u8; BLOCK_BYTES]);

impl Header<'_> {
    /// Checks the checksum: of all bytes, its own field counted as blanks. Some old writers summed signed bytes.
    fn check(&self) -> Result<(), LayerError> {
        let wanted = octal(&self.0[148..156]);
        let bytes = || {
            self.0.iter().enumerate().map(|(at, byte)| {
                if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                }
            })
        };
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if wanted == Some(unsigned)
            || wanted.and_then(|sum| i64::try_from(sum).ok()) == Some(signed)
        {
            return Ok(());
        }
        Err(LayerError::Broken(
            "it is not a tar archive, or it is damaged: a header's checksum is wrong".into(),
        ))
    }

    fn kind(&self, flag: u8, path: &[u8]) -> Result<Kind, LayerError> {
        let device = |this: &Self| {
            Ok::<_, LayerError>((
                this.small(329, 8, "device major")?,
                this.small(337, 8, "device minor")?,
            ))
        };
        Ok(match flag {
            // Before ustar a directory was told by its name.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => device(self).map(|(major, minor)| Kind::CharacterDevice { major, minor })?,
            b'4' => device(self).map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(LayerError::Broken(format!(
                    "entry {} is of an unknown type {:?}",
                    Shown(path),
                    char::from(other)
                )));
            }
        })
    }

    /// Parts of a sparse file: offset and length in twelve digits each, as many as there are.
    fn sparse_parts(&self, at: usize, most: usize, map: &mut Map) -> Result<(), LayerError> {
        for at in (0..most).map(|index| at + 24 * index) {
            if self.0[at] == 0 {
                break;
            }
            map.push(self.number(at, 12, "sparse offset")?)?;
            map.push(self.number(at + 12, 12, "sparse length")?)?;
        }
        Ok(())
    }

    /// Prefix and name of ustar; the name alone of every other format.
    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = until_nul(&self.0[345..500]);
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn number(&self, at: usize, length: usize, what: &str) -> Result<u64, LayerError> {
        u64::try_from(self.signed(at, length, what)?).map_err(|_| self.bad(what))
    }

    fn small(&self, at: usize, length: usize, what: &str) -> Result<u32, LayerError> {
        u32::try_from(self.signed(at, length, what)?).map_err(|_| self.bad(what))
    }

    /// A number in octal digits, or, with the first bit set, in base 256.
    fn signed(&self, at: usize, length: usize, what: &str) -> Result<i64, LayerError> {
        let field = &self.0[at..at + length];
        let value = if field[0] & 0x80 != 0 {
            // The bit after the mark is the sign.
            let negative = field[0] & 0x40 != 0;
            let mut value: i128 = if negative { -1 } else { 0 };
            for (index, byte) in field.iter().enumerate() {
                let byte = if index == 0 {
                    if negative { byte | 0x80 } else { byte & 0x7f }
                } else {
                    *byte
                };
                value = (value << 8) | i128::from(byte);
            }
            i64::try_from(value).ok()
        } else {
            octal(field).and_then(|value| i64::try_from(value).ok())
        };
        value.ok_or_else(|| self.bad(what))
    }

    fn bad(&self, what: &str) -> LayerError {
        LayerError::Broken(format!(
            "the header of entry {} has a {what} that cannot be",
            Shown(&self.path())
        ))
    }
}

/// Octal digits between blanks and NULs; none at all is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field
        .iter()
        .position(|byte| *byte != b' ')
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits
        .iter()
        .position(|byte| matches!(byte, b' ' | 0))
        .unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len())]
}
