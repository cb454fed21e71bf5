//! Headers of an archive.

use std::io::Read;

/// Archives of headers alone, with what they say of sizes limited by what comes: no input may take more than its own length of work.
pub fn tar_headers(bytes: &[u8]) {
    let (open_end, bytes) = match bytes.split_first() {
        Some((first, rest)) => (first % 2 == 1, rest),
        None => (false, bytes),
    };
    // A checksum is what fuzzers cannot guess: every block gets the right one, so that what it says is read.
    let mut archive = bytes.to_vec();
    for block in archive
        .chunks_exact_mut(512)
        .filter(|block| block[156] != b'!')
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    for archive in [bytes, &archive] {
        let mut source = archive.take(u64::MAX);
        match shoal_layers::survey(&mut source, open_end) {
            Ok(entries) => assert!(entries <= archive.len() as u64 / 512),
            Err(failure) => crate::is_one_line(&failure),
        }
    }
}
