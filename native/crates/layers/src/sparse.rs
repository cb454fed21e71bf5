//! Files with holes, as GNU tar writes them: which parts of the file the archive holds (GNU tar manual, "Storing Sparse Files").

use crate::limits::{SPARSE_PARTS_MAX, TAR_BYTES_MAX};
use crate::{LayerError, Shown};

/// A part of the file that is in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub length: u64,
}

/// The file that a sparse entry means: its length, and the parts of it, which lie in the archive one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    pub size: u64,
    pub parts: Vec<Part>,
}

impl Sparse {
    /// Checks a map: ascending, inside the file, and as long as what the archive holds of it.
    pub fn new(path: &[u8], size: u64, parts: Vec<Part>, stored: u64) -> Result<Self, LayerError> {
        let broken =
            |why: String| LayerError::Broken(format!("sparse entry {}: {why}", Shown(path)));
        if size > TAR_BYTES_MAX {
            return Err(broken(format!(
                "its {size} bytes are over the limit of {TAR_BYTES_MAX}"
            )));
        }
        let (mut end, mut held) = (0, 0);
        for part in &parts {
            let next = part.offset.checked_add(part.length);
            match next {
                Some(next) if part.offset >= end && next <= size => end = next,
                _ => {
                    return Err(broken(format!(
                        "its part of {} bytes at {} overlaps or lies outside",
                        part.length, part.offset
                    )));
                }
            }
            held += part.length;
        }
        if held != stored {
            return Err(broken(format!(
                "its parts have {held} bytes, but the archive holds {stored}"
            )));
        }
        Ok(Self { size, parts })
    }
}

/// A map that comes number by number, bounded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Map {
    parts: Vec<Part>,
    offset: Option<u64>,
}

impl Map {
    /// The next number: an offset, then a length.
    pub fn push(&mut self, number: u64) -> Result<(), LayerError> {
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => {
                if self.parts.len() >= SPARSE_PARTS_MAX {
                    return Err(LayerError::Broken(format!(
                        "a sparse file has more than {SPARSE_PARTS_MAX} parts"
                    )));
                }
                self.parts.push(Part {
                    offset,
                    length: number,
                });
            }
        }
        Ok(())
    }

    /// All parts; None when a length is missing.
    pub fn finish(self) -> Option<Vec<Part>> {
        self.offset.is_none().then_some(self.parts)
    }
}

/// What PAX records say about a sparse file, in any of the four versions of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Version 1: the map is in front of the content.
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub map: Map,
}

impl Records {
    /// Takes the record `GNU.sparse.KEY`; false when its value cannot be.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<bool, LayerError> {
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            "name" => self.name = Some(value.to_vec()),
            "map" => {
                for word in value.split(|byte| *byte == b',') {
                    let Some(number) = std::str::from_utf8(word)
                        .ok()
                        .and_then(|word| word.parse().ok())
                    else {
                        return Ok(false);
                    };
                    self.map.push(number)?;
                }
            }
            "major" | "minor" | "size" | "realsize" | "offset" | "numbytes" | "numblocks" => {
                let Some(number) = number() else {
                    return Ok(false);
                };
                match key {
                    "major" => self.major = Some(number),
                    "size" | "realsize" => self.size = Some(number),
                    "offset" | "numbytes" => self.map.push(number)?,
                    // The minor version changes nothing for us, and the map's length tells itself.
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(offset: u64, length: u64) -> Part {
        Part { offset, length }
    }

    #[test]
    fn maps_that_cannot_be_are_refused() {
        assert!(Sparse::new(b"a", 10, vec![part(0, 3), part(5, 5)], 8).is_ok());
        assert!(Sparse::new(b"a", 10, vec![part(10, 0)], 0).is_ok());
        for (size, parts, stored) in [
            (10, vec![part(0, 3), part(2, 1)], 4),
            (10, vec![part(8, 3)], 3),
            (10, vec![part(u64::MAX, 2)], 2),
            (10, vec![part(0, 3)], 4),
            (TAR_BYTES_MAX + 1, vec![], 0),
        ] {
            assert!(Sparse::new(b"a", size, parts, stored).is_err());
        }
    }
}
