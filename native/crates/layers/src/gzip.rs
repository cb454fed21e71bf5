//! gzip (RFC 1952): members one after the other, each with its checksum.

use crate::inflate::Inflate;
use flate2::Crc;
use std::io::{self, BufRead, Read};

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const DEFLATE: u8 = 8;
const HAS_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// The uncompressed bytes of all members.
pub struct Gzip<R> {
    inflate: Inflate<R>,
    sum: Crc,
    /// Whether a member is under way.
    inside: bool,
    /// Whether there was one.
    any: bool,
}

impl<R: BufRead> Gzip<R> {
    pub fn new(source: R) -> Self {
        Self {
            inflate: Inflate::new(source),
            sum: Crc::new(),
            inside: false,
            any: false,
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let mut header = [0; 10];
        for byte in &mut header {
            *byte = self.inflate.bits.byte()?;
        }
        let flags = header[3];
        if header[..2] != MAGIC || header[2] != DEFLATE || flags & RESERVED != 0 {
            return Err(damaged(if self.any {
                "what follows the end is no gzip"
            } else {
                "the header is wrong"
            }));
        }
        let mut sum = Crc::new();
        sum.update(&header);
        if flags & HAS_EXTRA != 0 {
            let length = [self.inflate.bits.byte()?, self.inflate.bits.byte()?];
            sum.update(&length);
            for _ in 0..u16::from_le_bytes(length) {
                sum.update(&[self.inflate.bits.byte()?]);
            }
        }
        for flag in [HAS_NAME, HAS_COMMENT] {
            let mut inside = flags & flag != 0;
            while inside {
                let byte = self.inflate.bits.byte()?;
                sum.update(&[byte]);
                inside = byte != 0;
            }
        }
        if flags & HAS_CRC != 0 {
            let told = [self.inflate.bits.byte()?, self.inflate.bits.byte()?];
            if told != sum.sum().to_le_bytes()[..2] {
                return Err(damaged("the header's checksum is wrong"));
            }
        }
        (self.inside, self.any) = (true, true);
        self.sum.reset();
        self.inflate.restart();
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        self.inflate.bits.align();
        let mut number = || -> io::Result<u32> {
            let mut bytes = [0; 4];
            for byte in &mut bytes {
                *byte = self.inflate.bits.byte()?;
            }
            Ok(u32::from_le_bytes(bytes))
        };
        if number()? != self.sum.sum() {
            return Err(damaged("the checksum is wrong"));
        }
        if number()? != self.sum.amount() {
            return Err(damaged("the length is wrong"));
        }
        self.inside = false;
        Ok(())
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if self.any && self.inflate.bits.is_at_end()? {
                    return Ok(0);
                }
                self.header()?;
            }
            let count = self.inflate.read(buffer)?;
            if count > 0 {
                self.sum.update(&buffer[..count]);
                return Ok(count);
            }
            self.trailer()?;
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("gzip: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::bufread::MultiGzDecoder;
    use flate2::write::GzEncoder;
    use std::io::{BufReader, Write};

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// Text of many kinds: noise, runs, repetitions near and far, few symbols.
    fn text(kind: u64, length: usize, state: &mut u64) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        while bytes.len() < length {
            match kind {
                0 => bytes.push(random(state) as u8),
                1 => {
                    let byte = random(state) as u8;
                    bytes.extend(std::iter::repeat_n(byte, 1 + random(state) as usize % 600));
                }
                2 => bytes.push(b"aab"[random(state) as usize % 3]),
                3 if bytes.len() > 40 => {
                    let back = 1 + random(state) as usize % bytes.len().min(32768);
                    for _ in 0..3 + random(state) % 300 {
                        bytes.push(bytes[bytes.len() - back]);
                    }
                    bytes.push(random(state) as u8);
                }
                4 => bytes.extend_from_slice(format!("{} ", random(state) % 100_000).as_bytes()),
                // Very uneven frequencies make the longest codes.
                5 => bytes.push(
                    (random(state).trailing_zeros() * 7 + random(state).leading_zeros()) as u8,
                ),
                _ => bytes.push(random(state) as u8 & 0x3f),
            }
        }
        bytes.truncate(length);
        bytes
    }

    fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn ours(archive: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Gzip::new(BufReader::with_capacity(piece, archive)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_any_level_packs_is_undone_in_pieces_of_any_size() {
        let mut state = 0x0123_4567_89ab_cdef;
        for round in 0..84 {
            let length = [0, 1, 5, 300, 40_000, 262_144 + 17, 900_000][round as usize % 7];
            let wanted = text(round / 7 % 7, length, &mut state);
            let level = (random(&mut state) % 10) as u32;
            let archive = gzip(&wanted, level);
            for piece in [1 << 18, 7, 1 + random(&mut state) as usize % 70_000] {
                assert!(
                    ours(&archive, piece).unwrap() == wanted,
                    "round {round}, level {level}, pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn members_follow_each_other_and_know_nothing_of_each_other() {
        let (first, second) = (b"abcdefgh".repeat(10_000), b"abcdefgh".repeat(3));
        let all = [gzip(&first, 6), gzip(b"", 6), gzip(&second, 9)].concat();
        assert!(ours(&all, 1000).unwrap() == [&first[..], &second].concat());
        // A stream that begins with a match: into the member before it, if that were not over.
        let bits = [0x4b, 0x04, 0x11, 0x00];
        let reaching = [
            &gzip(b"abcdefgh", 6)[..],
            &gzip(b"", 6)[..10],
            &bits,
            &[0; 8],
        ]
        .concat();
        assert!(ours(&reaching, 1000).is_err());
        let mut all = gzip(b"x", 6);
        all.extend_from_slice(b"garbage behind it");
        assert!(ours(&all, 1000).is_err());
    }

    #[test]
    fn headers_with_everything_are_read() {
        let plain = gzip(b"content", 6);
        let mut header = plain[..10].to_vec();
        header[3] = HAS_CRC | HAS_EXTRA | HAS_NAME | HAS_COMMENT;
        header.extend_from_slice(b"\x03\0abcname\0comment\0");
        let mut sum = Crc::new();
        sum.update(&header);
        header.extend_from_slice(&sum.sum().to_le_bytes()[..2]);
        let archive = [&header[..], &plain[10..]].concat();
        assert_eq!(ours(&archive, 5).unwrap(), b"content");
        let mut wrong = archive.clone();
        wrong[13] ^= 1;
        assert!(ours(&wrong, 5).is_err());
    }

    #[test]
    fn damage_is_found_where_another_decoder_finds_it() {
        let mut state = 0xfeed_f00d_dead_beef;
        let (mut refused, mut taken) = (0, 0);
        for round in 0..3000 {
            let length = 200 + random(&mut state) as usize % 3000;
            let content = text(round % 7, length, &mut state);
            let mut archive = gzip(&content, (round % 10) as u32);
            match random(&mut state) % 4 {
                0 => archive.truncate(random(&mut state) as usize % archive.len()),
                _ => {
                    let at = 10 + random(&mut state) as usize % (archive.len() - 10);
                    archive[at] = random(&mut state) as u8;
                }
            }
            let mut wanted = Vec::new();
            let theirs = MultiGzDecoder::new(&archive[..]).read_to_end(&mut wanted);
            match (ours(&archive, 64), theirs) {
                (Ok(bytes), Ok(_)) => {
                    assert!(bytes == wanted, "round {round}");
                    taken += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (ours, theirs) => {
                    panic!(
                        "round {round}: {:?} and {theirs:?}",
                        ours.map(|bytes| bytes.len())
                    );
                }
            }
        }
        assert!(refused > 2000 && taken > 5, "{refused} {taken}");
    }
}
