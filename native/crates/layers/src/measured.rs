//! A stream that is counted and hashed as it is read.

use crate::LayerError;
use crate::limits::{COPY_BYTES, TAR_BYTES_MAX};
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// The uncompressed tar on its way to the extractor.
pub struct Measured<R> {
    source: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Measured<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Reads what follows the end of the archive, which counts for the digest, and gives `sha256:…` and the length.
    pub fn finish(mut self) -> Result<(String, u64), LayerError> {
        let mut rest = vec![0; COPY_BYTES];
        loop {
            match self.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        let digits: String = self
            .hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok((format!("sha256:{digits}"), self.bytes))
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        if self.bytes > TAR_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it unpacks to more than {TAR_BYTES_MAX} bytes, the limit of one layer"),
            ));
        }
        Ok(count)
    }
}
