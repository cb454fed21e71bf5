//! Cuts one output stream into records: a line each, or 16 KiB pieces of a longer line.

use shoal_runtime::sys::memory;

/// Longest piece of one record, in bytes of the program's output; docker's figure.
pub const PIECE_BYTES_MAX: usize = 16 * 1024;

/// What is held of a stream between two reads: the beginning of a line.
#[derive(Default)]
pub struct Framer {
    held: Vec<u8>,
}

impl Framer {
    /// Adds output; calls `write` once with all pieces that are complete, in order.
    pub fn push(&mut self, mut bytes: &[u8], write: &mut dyn FnMut(&[&[u8]])) {
        let mut first = Vec::new();
        if !self.held.is_empty() {
            // Only what completes the held line is copied to it.
            let newline = memory::find(b'\n', bytes);
            let end = newline.map_or(bytes.len(), |at| at + 1);
            self.held.extend_from_slice(&bytes[..end]);
            if newline.is_none() && self.held.len() < PIECE_BYTES_MAX {
                // Still the beginning of a line: a program that writes byte by byte has it neither searched nor copied again.
                return;
            }
            bytes = &bytes[end..];
            first = std::mem::take(&mut self.held);
        }
        let mut pieces: Vec<&[u8]> = Vec::new();
        let rest = cut(&first, &mut pieces);
        // What is left of the held line means that it is not complete, and then nothing follows it.
        let rest = if rest.is_empty() {
            cut(bytes, &mut pieces)
        } else {
            rest
        };
        if !pieces.is_empty() {
            write(&pieces);
        }
        self.held.extend_from_slice(rest);
    }

    /// The stream has ended: what is held is the last record, without a newline.
    pub fn finish(&mut self, write: &mut dyn FnMut(&[&[u8]])) {
        if !self.held.is_empty() {
            write(&[&self.held]);
            self.held = Vec::new();
        }
    }
}

/// Adds the complete pieces of `rest` and gives what comes after them.
fn cut<'a>(mut rest: &'a [u8], pieces: &mut Vec<&'a [u8]>) -> &'a [u8] {
    loop {
        let window = &rest[..rest.len().min(PIECE_BYTES_MAX)];
        let end = match memory::find(b'\n', window) {
            Some(at) => at + 1,
            None if rest.len() >= PIECE_BYTES_MAX => whole_characters(window),
            None => return rest,
        };
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
}

/// Where to cut a full piece so that no character of up to 4 bytes is cut in two.
fn whole_characters(piece: &[u8]) -> usize {
    let tail = piece.len().saturating_sub(3);
    for at in (tail..piece.len()).rev() {
        let width = match piece[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 1,
        };
        return if at + width > piece.len() {
            at
        } else {
            piece.len()
        };
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut framer = Framer::default();
        let mut got = Vec::new();
        let mut write = |pieces: &[&[u8]]| got.extend(pieces.iter().map(|piece| piece.to_vec()));
        for part in parts {
            framer.push(part, &mut write);
        }
        framer.finish(&mut write);
        got
    }

    #[test]
    fn framer_gives_lines_and_pieces_and_loses_nothing() {
        assert_eq!(
            frame(&[b"a\nb", b"c\n", b"tail"]),
            [b"a\n".to_vec(), b"bc\n".to_vec(), b"tail".to_vec()]
        );
        let long = vec![b'x'; PIECE_BYTES_MAX * 2 + 5];
        let pieces = frame(&[&long, b"\n"]);
        assert_eq!(
            pieces.iter().map(Vec::len).collect::<Vec<_>>(),
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 6]
        );
        let mut euro = vec![b'x'; PIECE_BYTES_MAX - 1];
        euro.extend_from_slice("€\n".as_bytes());
        let pieces = frame(&[&euro]);
        assert_eq!(pieces[0].len(), PIECE_BYTES_MAX - 1);
        assert_eq!(pieces.concat(), euro);
    }

    /// The same bytes in parts of every size give the same records.
    #[test]
    fn framer_does_not_depend_on_how_the_bytes_come() {
        let mut text = b"one\n\ntwo\n".to_vec();
        text.extend_from_slice(&vec![b'y'; PIECE_BYTES_MAX + 100]);
        text.extend_from_slice("\n€€€\nend".as_bytes());
        let whole = frame(&[&text]);
        assert_eq!(whole.concat(), text);
        for size in [1, 2, 3, 7, 1000, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX + 1] {
            let parts: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(frame(&parts), whole, "parts of {size}");
        }
    }
}
