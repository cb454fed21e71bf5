//! Compressed archives: gzip and zstd, whole and damaged.

/// More than what any input of the fuzzer can become.
const BYTES_MAX: u64 = 64 << 20;

/// Any archive is undone or refused.
pub fn compression(bytes: &[u8]) {
    if let Err(failure) = shoal_layers::decompress(bytes, BYTES_MAX) {
        crate::is_one_line(&failure);
    }
}
