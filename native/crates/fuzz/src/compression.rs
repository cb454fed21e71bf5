//! Compressed archives: gzip by our own decoder, zstd by the crate's.

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use std::io::Read;

/// More than what any input of the fuzzer can become.
const BYTES_MAX: u64 = 64 << 20;
/// A header without anything.
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Any archive is undone or refused; and what another decoder makes of the same bytes as DEFLATE, ours makes, too.
pub fn compression(bytes: &[u8]) {
    if let Err(failure) = shoal_layers::decompress(bytes, BYTES_MAX) {
        crate::is_one_line(&failure);
    }
    let mut decoder = DeflateDecoder::new(bytes);
    let mut wanted = Vec::new();
    let theirs = decoder.read_to_end(&mut wanted);
    let used = usize::try_from(decoder.total_in()).unwrap_or(bytes.len());
    // A checksum is what fuzzers cannot guess.
    let mut sum = Crc::new();
    sum.update(&wanted);
    let (sum, length) = (sum.sum().to_le_bytes(), sum.amount().to_le_bytes());
    let archive = [&GZIP[..], &bytes[..used], &sum, &length].concat();
    match (shoal_layers::decompress(&archive, BYTES_MAX), theirs) {
        (Ok(bytes), Ok(_)) => assert!(bytes == wanted, "another content"),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) => panic!("refused by the other: {error}"),
        (Err(failure), Ok(_)) => panic!("taken by the other: {failure}"),
    }
}
