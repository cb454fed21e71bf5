//! Output of a program as records of its log.

use shoal_logs::framer::{Framer, PIECE_BYTES_MAX};
use shoal_logs::record::{Stream, Timestamp, append_record, ending};

/// However the bytes come, the pieces are the same, none is over the limit and none is lost; every record is one line of JSON with them.
pub fn log_framing(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let step = usize::from(*first) + 1;
    // Long lines are what matters, and fuzzers make short inputs.
    let text = bytes.repeat(if first % 64 == 8 {
        1 + (1 << 16) / (bytes.len() + 1)
    } else {
        1
    });
    let whole = frame([&text[..]].into_iter());
    assert_eq!(
        frame(text.chunks(step * if text.len() > bytes.len() { 997 } else { 7 })),
        whole
    );
    assert_eq!(whole.concat(), text);
    let end = ending(
        Stream::Stdout,
        Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        },
    );
    for (at, piece) in whole.iter().enumerate() {
        assert!(piece.len() <= PIECE_BYTES_MAX && !piece.is_empty());
        let inner = &piece[..piece.len() - 1];
        assert!(!inner.contains(&b'\n'));
        assert!(
            piece.ends_with(b"\n") || piece.len() + 3 >= PIECE_BYTES_MAX || at + 1 == whole.len()
        );
        let mut record = Vec::new();
        append_record(&mut record, piece, &end);
        assert_eq!(record.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: serde_json::Value = serde_json::from_slice(&record).expect("a record is JSON");
        if let Ok(text) = std::str::from_utf8(piece) {
            assert_eq!(read["log"], text);
        }
    }
}

fn frame<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    let mut got = Vec::new();
    let mut write = |pieces: &[&[u8]]| got.extend(pieces.iter().map(|piece| piece.to_vec()));
    for part in parts {
        framer.push(part, &mut write);
    }
    framer.finish(&mut write);
    got
}
