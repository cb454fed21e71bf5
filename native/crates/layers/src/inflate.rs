//! DEFLATE (RFC 1951), for speed: input by whole words, codes by tables of 2,048 entries, matches in pieces of 16 bytes.
//!
//! Layers are mostly gzip, and undoing it is most of the work of unpacking one. All of it is checked code: no byte of an archive is
//! trusted, and none is read or written outside of its buffer.

use std::io::{self, BufRead, Read};

/// How far back a match may reach.
const WINDOW_BYTES: usize = 32 * 1024;
/// What is decoded at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// The longest match, and what copying in pieces may write behind it.
const SLACK_BYTES: usize = 258 + 32;
/// Input that one round of the fast loop may look at.
const LOOK_BYTES: usize = 16;
const CODE_BITS_MAX: usize = 15;
const LITERAL_BITS: u32 = 11;
const DISTANCE_BITS: u32 = 9;
const LENGTHS_BITS: u32 = 7;

/// Entries of tables. The lowest byte is how many bits the entry takes; from bit 8 on, of lengths and distances, how many of them are the
/// code and not extra bits; from bit 16 on the value.
const LITERAL: u32 = 1 << 31;
/// The entry is none of the usual: end, subtable, or (with neither) a code that there is not.
const ODD: u32 = 1 << 15;
const SUBTABLE: u32 = 1 << 14;
const END: u32 = 1 << 13;

/// Base and extra bits of the length codes from 257 on.
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// The same of the distance codes.
const DISTANCES: [(u16, u8); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];
/// In which order the lengths of the code of lengths come.
const LENGTHS_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// Reads bits, the lowest of each byte first.
pub struct Bits<R> {
    source: R,
    /// Bits that were read and not used, and how many. Above them are zeros.
    held: u64,
    count: u32,
}

impl<R: BufRead> Bits<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            held: 0,
            count: 0,
        }
    }

    /// Has at least `wanted` bits (at most 56) unless the input ends before.
    fn want(&mut self, wanted: u32) -> io::Result<()> {
        while self.count < wanted {
            let Some(byte) = self.source.fill_buf()?.first().copied() else {
                return Ok(());
            };
            self.source.consume(1);
            self.held |= u64::from(byte) << self.count;
            self.count += 8;
        }
        Ok(())
    }

    fn take(&mut self, count: u32) -> io::Result<u32> {
        self.want(count)?;
        if self.count < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let value = self.held & ((1 << count) - 1);
        self.held >>= count;
        self.count -= count;
        Ok(u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// Drops the rest of a byte that was begun.
    pub fn align(&mut self) {
        let rest = self.count % 8;
        self.held >>= rest;
        self.count -= rest;
    }

    /// The next byte, after `align`.
    pub fn byte(&mut self) -> io::Result<u8> {
        self.take(8).map(|byte| byte.to_le_bytes()[0])
    }

    /// Whether the input has ended, after `align`.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.count < 8 && self.source.fill_buf()?.is_empty())
    }

    /// Some bytes as they are, after `align`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.count >= 8 {
            buffer[0] = self.byte()?;
            return Ok(1);
        }
        match self.source.read(buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BlockStart,
    Stored(usize),
    Codes,
    Ended,
}

/// One stream after the other; what comes between them is read from `bits`.
pub struct Inflate<R> {
    pub bits: Bits<R>,
    out: Vec<u8>,
    /// In `out`: where the stream begins, or the window; what was given out; what is decoded.
    start: usize,
    given: usize,
    to: usize,
    state: State,
    is_last: bool,
    literals: Table,
    distances: Table,
    lengths: Table,
}

impl<R: BufRead> Inflate<R> {
    pub fn new(source: R) -> Self {
        Self {
            bits: Bits::new(source),
            out: vec![0; WINDOW_BYTES + CHUNK_BYTES + SLACK_BYTES],
            start: 0,
            given: 0,
            to: 0,
            state: State::BlockStart,
            is_last: false,
            literals: Table::new(LITERAL_BITS),
            distances: Table::new(DISTANCE_BITS),
            lengths: Table::new(LENGTHS_BITS),
        }
    }

    /// A new stream begins, which has nothing before it.
    pub fn restart(&mut self) {
        self.start = self.to;
        self.state = State::BlockStart;
        self.is_last = false;
    }

    fn decode(&mut self) -> io::Result<()> {
        if self.to > WINDOW_BYTES {
            let from = self.to - WINDOW_BYTES;
            self.out.copy_within(from..self.to, 0);
            self.start = self.start.saturating_sub(from);
            self.to = WINDOW_BYTES;
            self.given = WINDOW_BYTES;
        }
        let limit = self.out.len() - SLACK_BYTES;
        while self.to < limit {
            match self.state {
                State::BlockStart if self.is_last => self.state = State::Ended,
                State::BlockStart => self.block()?,
                State::Stored(0) => self.state = State::BlockStart,
                State::Stored(left) => {
                    let end = limit.min(self.to + left);
                    let count = self.bits.read(&mut self.out[self.to..end])?;
                    self.to += count;
                    self.state = State::Stored(left - count);
                }
                State::Codes => {
                    if self.codes(limit)? {
                        self.state = State::BlockStart;
                    }
                }
                State::Ended => break,
            }
        }
        Ok(())
    }

    fn block(&mut self) -> io::Result<()> {
        self.is_last = self.bits.take(1)? == 1;
        self.state = match self.bits.take(2)? {
            0 => {
                self.bits.align();
                let length = self.bits.take(16)?;
                if self.bits.take(16)? != !length & 0xffff {
                    return Err(damaged("the length of a stored block"));
                }
                State::Stored(length as usize)
            }
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                self.literals.build(&lengths, literal)?;
                self.distances.build(&[5; 32], distance)?;
                State::Codes
            }
            2 => {
                self.codes_of_block()?;
                State::Codes
            }
            _ => return Err(damaged("the kind of a block")),
        };
        Ok(())
    }

    /// Reads the codes that a block brings along.
    fn codes_of_block(&mut self) -> io::Result<()> {
        let literals = 257 + self.bits.take(5)? as usize;
        let distances = 1 + self.bits.take(5)? as usize;
        let count = 4 + self.bits.take(4)? as usize;
        if literals > 286 || distances > 30 {
            return Err(damaged("the number of codes"));
        }
        let mut lengths = [0; 19];
        for at in &LENGTHS_ORDER[..count] {
            lengths[*at] = self.bits.take(3)?.to_le_bytes()[0];
        }
        self.lengths.build(&lengths, |symbol, bits| {
            u32::try_from(symbol).unwrap_or(0) << 16 | bits
        })?;
        let mut lengths = [0u8; 286 + 30];
        let all = literals + distances;
        let mut at = 0;
        while at < all {
            self.bits.want(LENGTHS_BITS)?;
            let entry = self.lengths.entry(self.bits.held);
            if entry & ODD != 0 {
                return Err(self.odd("a code of lengths"));
            }
            self.bits.take(entry & 0xff)?;
            let (value, times) = match entry >> 16 {
                16 if at == 0 => return Err(damaged("a repetition of nothing")),
                16 => (lengths[at - 1], 3 + self.bits.take(2)?),
                17 => (0, 3 + self.bits.take(3)?),
                18 => (0, 11 + self.bits.take(7)?),
                length => (length.to_le_bytes()[0], 1),
            };
            let end = at + times as usize;
            if end > all {
                return Err(damaged("a repetition of lengths"));
            }
            lengths[at..end].fill(value);
            at = end;
        }
        if lengths[256] == 0 {
            return Err(damaged("a block without an end"));
        }
        self.literals.build(&lengths[..literals], literal)?;
        self.distances.build(&lengths[literals..all], distance)
    }

    /// Decodes until the block ends (true) or `limit` is reached.
    fn codes(&mut self, limit: usize) -> io::Result<bool> {
        while self.to < limit {
            if self.fast(limit)? {
                return Ok(true);
            }
            // A match may have gone beyond the limit: there is room for one.
            if self.to < limit && self.slow()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Decodes while there is enough input and room that neither needs to be looked after; true at the end of the block.
    fn fast(&mut self, limit: usize) -> io::Result<bool> {
        let input = self.bits.source.fill_buf()?;
        let (mut held, mut count) = (self.bits.held, self.bits.count);
        let (mut at, mut to) = (0, self.to);
        let out = &mut self.out[..];
        let literals = &self.literals.entries[..];
        let distances = &self.distances.entries[..];
        let mut ended = false;
        while at + LOOK_BYTES <= input.len() && to < limit {
            // At least 56 bits: two literals and a length, or what is left after them of it.
            held |= word(input, at) << count;
            at += (63 - count as usize) >> 3;
            count |= 56;
            let mut entry = literals[(held & ((1 << LITERAL_BITS) - 1)) as usize];
            if entry & LITERAL != 0 {
                held >>= entry & 0xff;
                count -= entry & 0xff;
                out[to] = (entry >> 16) as u8;
                to += 1;
                entry = literals[(held & ((1 << LITERAL_BITS) - 1)) as usize];
                if entry & LITERAL != 0 {
                    held >>= entry & 0xff;
                    count -= entry & 0xff;
                    out[to] = (entry >> 16) as u8;
                    to += 1;
                    entry = literals[(held & ((1 << LITERAL_BITS) - 1)) as usize];
                }
            }
            if entry & ODD != 0 {
                if entry & SUBTABLE != 0 {
                    held >>= entry & 0xff;
                    count -= entry & 0xff;
                    entry = literals[below(entry, held)];
                }
                if entry & ODD != 0 {
                    if entry & END == 0 {
                        return Err(damaged("a code"));
                    }
                    held >>= entry & 0xff;
                    count -= entry & 0xff;
                    ended = true;
                    break;
                }
            }
            let before = held;
            held >>= entry & 0xff;
            count -= entry & 0xff;
            if entry & LITERAL != 0 {
                out[to] = (entry >> 16) as u8;
                to += 1;
                continue;
            }
            let length = value(entry, before);
            // Up to 28 bits of a distance.
            held |= word(input, at) << count;
            at += (63 - count as usize) >> 3;
            count |= 56;
            entry = distances[(held & ((1 << DISTANCE_BITS) - 1)) as usize];
            if entry & ODD != 0 {
                if entry & SUBTABLE != 0 {
                    held >>= entry & 0xff;
                    count -= entry & 0xff;
                    entry = distances[below(entry, held)];
                }
                if entry & ODD != 0 {
                    return Err(damaged("a distance"));
                }
            }
            let back = value(entry, held);
            held >>= entry & 0xff;
            count -= entry & 0xff;
            if back > to - self.start {
                return Err(damaged("a distance, which leads before the beginning"));
            }
            copy(out, to, back, length);
            to += length;
        }
        self.to = to;
        // What was looked at beyond the bits that count is read again.
        self.bits.held = held & ((1u64 << count) - 1);
        self.bits.count = count;
        self.bits.source.consume(at);
        Ok(ended)
    }

    /// Decodes one literal or match near the end of a piece of input; true at the end of the block.
    fn slow(&mut self) -> io::Result<bool> {
        self.bits.want(48)?;
        let entry = self.symbol(false)?;
        if entry & END != 0 && entry & LITERAL == 0 {
            return Ok(true);
        }
        if entry & LITERAL != 0 {
            self.out[self.to] = (entry >> 16) as u8;
            self.to += 1;
            return Ok(false);
        }
        let length = self.extra(entry)?;
        let entry = self.symbol(true)?;
        let back = self.extra(entry)?;
        if back > self.to - self.start {
            return Err(damaged("a distance, which leads before the beginning"));
        }
        copy(&mut self.out, self.to, back, length);
        self.to += length;
        Ok(false)
    }

    /// The entry of the next code. Of a literal and the end the bits are taken, of others those of a table above theirs.
    fn symbol(&mut self, is_distance: bool) -> io::Result<u32> {
        let table = if is_distance {
            &self.distances
        } else {
            &self.literals
        };
        let mut entry = table.entry(self.bits.held);
        if entry & ODD != 0 && entry & SUBTABLE != 0 {
            let Some(count) = self.bits.count.checked_sub(entry & 0xff) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            self.bits.count = count;
            self.bits.held >>= entry & 0xff;
            entry = table.entries[below(entry, self.bits.held)];
        }
        if entry & LITERAL == 0 && entry & ODD != 0 && entry & END == 0 {
            return Err(self.odd(if is_distance { "a distance" } else { "a code" }));
        }
        if entry & LITERAL != 0 || entry & ODD != 0 {
            self.bits.take(entry & 0xff)?;
        }
        Ok(entry)
    }

    /// Length or distance of an entry with its extra bits, which are taken.
    fn extra(&mut self, entry: u32) -> io::Result<usize> {
        let before = self.bits.held;
        if self.bits.count < entry & 0xff {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bits.take(entry & 0xff)?;
        Ok(value(entry, before))
    }

    /// A code that there is not: where the input ends in it, that is why.
    fn odd(&self, what: &str) -> io::Error {
        if self.bits.count < CODE_BITS_MAX as u32 {
            return io::ErrorKind::UnexpectedEof.into();
        }
        damaged(what)
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.to {
            self.decode()?;
        }
        let count = buffer.len().min(self.to - self.given);
        buffer[..count].copy_from_slice(&self.out[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// Codes by their bits: entries for the first so many bits of them, and behind those subtables for longer ones.
struct Table {
    bits: u32,
    entries: Vec<u32>,
}

impl Table {
    fn new(bits: u32) -> Self {
        Self {
            bits,
            entries: vec![ODD; 1 << bits],
        }
    }

    fn entry(&self, held: u64) -> u32 {
        self.entries[(held & ((1 << self.bits) - 1)) as usize]
    }

    /// Makes the table of a canonical code by the lengths of its symbols; `entry` gives value and bits of a symbol.
    fn build(&mut self, lengths: &[u8], entry: impl Fn(usize, u32) -> u32) -> io::Result<()> {
        let mut counts = [0u32; CODE_BITS_MAX + 1];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        let longest = (0..=CODE_BITS_MAX)
            .rev()
            .find(|length| counts[*length] > 0)
            .unwrap_or(0);
        let mut next = [0u32; CODE_BITS_MAX + 1];
        let mut code = 0;
        let mut left = 1i32;
        for length in 1..=CODE_BITS_MAX {
            code = (code + counts[length - 1]) << 1;
            next[length] = code;
            left = (left << 1) - counts[length].cast_signed();
            if left < 0 {
                return Err(damaged("a code with too many symbols"));
            }
        }
        // As zlib has it: a code may have holes only when it is one of a single bit, or empty.
        if left > 0 && longest > 1 {
            return Err(damaged("a code with holes"));
        }
        let main = self.bits;
        let below = u32::try_from(longest).unwrap_or(0).saturating_sub(main);
        self.entries.clear();
        self.entries.resize(1 << main, ODD);
        for (symbol, length) in lengths.iter().enumerate() {
            let length = u32::from(*length);
            if length == 0 {
                continue;
            }
            let code = &mut next[length as usize];
            let reversed = (code.reverse_bits() >> (32 - length)) as usize;
            *code += 1;
            if length <= main {
                for at in (reversed..1 << main).step_by(1 << length) {
                    self.entries[at] = entry(symbol, length);
                }
                continue;
            }
            let first = reversed & ((1 << main) - 1);
            if self.entries[first] & SUBTABLE == 0 {
                let start = self.entries.len();
                self.entries[first] =
                    u32::try_from(start).unwrap_or(0) << 16 | ODD | SUBTABLE | below << 8 | main;
                self.entries.resize(start + (1 << below), ODD);
            }
            let start = (self.entries[first] >> 16) as usize;
            for at in (reversed >> main..1 << below).step_by(1 << (length - main)) {
                self.entries[start + at] = entry(symbol, length - main);
            }
        }
        Ok(())
    }
}

fn literal(symbol: usize, bits: u32) -> u32 {
    match symbol {
        0..256 => LITERAL | u32::try_from(symbol).unwrap_or(0) << 16 | bits,
        256 => ODD | END | bits,
        _ => of_pair(LENGTHS.get(symbol - 257), bits),
    }
}

fn distance(symbol: usize, bits: u32) -> u32 {
    of_pair(DISTANCES.get(symbol), bits)
}

fn of_pair(pair: Option<&(u16, u8)>, bits: u32) -> u32 {
    pair.map_or(ODD, |(base, extra)| {
        u32::from(*base) << 16 | bits << 8 | (bits + u32::from(*extra))
    })
}

/// Base and extra bits.
fn value(entry: u32, held: u64) -> usize {
    let all = held & ((1 << (entry & 0xff)) - 1);
    ((entry >> 16) as usize) + (all >> (entry >> 8 & 0xf)) as usize
}

/// Where in a subtable the next bits lead.
fn below(entry: u32, held: u64) -> usize {
    (entry >> 16) as usize + (held & ((1 << (entry >> 8 & 0xf)) - 1)) as usize
}

fn word(input: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(piece(input, at))
}

fn piece<const COUNT: usize>(bytes: &[u8], at: usize) -> [u8; COUNT] {
    let mut piece = [0; COUNT];
    piece.copy_from_slice(&bytes[at..at + COUNT]);
    piece
}

/// Repeats what is `back` bytes before; up to 15 bytes behind the end may be changed, too.
#[inline(always)]
fn copy(out: &mut [u8], to: usize, back: usize, length: usize) {
    let from = to - back;
    if back >= 16 {
        let mut done = 0;
        while done < length {
            let piece: [u8; 16] = piece(out, from + done);
            out[to + done..to + done + 16].copy_from_slice(&piece);
            done += 16;
        }
    } else if back >= 8 {
        let mut done = 0;
        while done < length {
            let piece: [u8; 8] = piece(out, from + done);
            out[to + done..to + done + 8].copy_from_slice(&piece);
            done += 8;
        }
    } else if back == 1 {
        let byte = out[from];
        out[to..to + length].fill(byte);
    } else {
        for at in 0..length {
            out[to + at] = out[from + at];
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("gzip: {what} is wrong"))
}
