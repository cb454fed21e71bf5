//! SHA-256 as images write it, and streams that are hashed on their way.

use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// A digest in the making. The processor's SHA instructions are used where it has them.
#[derive(Default)]
pub struct Sha256Digest(Sha256);

impl Sha256Digest {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// `sha256:` and 64 digits.
    pub fn finish(self) -> String {
        let digits: String = self
            .0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{digits}")
    }
}

/// Hashes and counts what goes through it.
pub struct Hashed<S> {
    inner: S,
    sum: Sha256Digest,
    bytes: u64,
}

impl<S> Hashed<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            sum: Sha256Digest::default(),
            bytes: 0,
        }
    }

    pub fn digest(self) -> String {
        self.sum.finish()
    }

    /// How much went through so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stream, the digest and the length of what went through.
    pub fn into_parts(self) -> (S, String, u64) {
        (self.inner, self.sum.finish(), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sum.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Whether a text is `sha256:` and 64 hexadecimal digits, as `finish` writes them.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}
