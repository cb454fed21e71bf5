//! Names in an archive as lists of components beneath the root.

use crate::limits::PATH_BYTES_MAX;
use crate::{LayerError, Shown};

/// Longest component, as in the kernel.
const COMPONENT_BYTES_MAX: usize = 255;

/// The components that a name means when the archive's root is `/`. A leading `/` is that root, and `..` inside it is taken by its letters;
/// a name that climbs out is refused, named.
pub fn components<'a>(entry: &[u8], name: &'a [u8]) -> Result<Vec<&'a [u8]>, LayerError> {
    let broken = |why: &str| {
        LayerError::Broken(format!(
            "entry {}: path {} {why}",
            Shown(entry),
            Shown(name)
        ))
    };
    if name.len() > PATH_BYTES_MAX {
        return Err(LayerError::Broken(format!(
            "entry {}: its path is longer than {PATH_BYTES_MAX} bytes",
            Shown(&entry[..entry.len().min(64)])
        )));
    }
    if name.contains(&0) {
        return Err(broken("holds a NUL byte"));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(broken("leaves the root"));
                }
            }
            part if part.len() > COMPONENT_BYTES_MAX => {
                return Err(broken("has a component longer than 255 bytes"));
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// What a last component says about the layers below (OCI image-spec, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub enum Marker<'a> {
    /// An entry of its own.
    None,
    /// The named entry of the layers below is gone.
    Whiteout(&'a [u8]),
    /// All entries of the layers below in this directory are gone.
    Opaque,
    /// Bookkeeping of aufs, which means nothing here.
    Ignored,
}

const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Reads the marker in a path.
pub fn marker<'a>(parts: &[&'a [u8]]) -> Marker<'a> {
    let Some((&last, above)) = parts.split_last() else {
        return Marker::None;
    };
    if above.iter().any(|part| part.starts_with(AUFS)) {
        return Marker::Ignored;
    }
    match last.strip_prefix(WHITEOUT) {
        _ if last == OPAQUE => Marker::Opaque,
        _ if last.starts_with(AUFS) => Marker::Ignored,
        Some(name) => Marker::Whiteout(name),
        None => Marker::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_components() {
        for (name, parts) in [
            ("./a/b", Some("a b")),
            ("/a//b/", Some("a b")),
            ("a/../b", Some("b")),
            (".", Some("")),
            ("/", Some("")),
            ("..", None),
            ("a/../../b", None),
            ("/../b", None),
            ("a\0b", None),
        ] {
            let got = components(name.as_bytes(), name.as_bytes()).ok();
            let text = got.map(|parts| {
                parts
                    .iter()
                    .map(|part| String::from_utf8_lossy(part))
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            assert_eq!(text.as_deref(), parts, "{name:?}");
        }
        let long = "x".repeat(256);
        assert!(components(b"", long.as_bytes()).is_err());
        assert!(components(b"", "x/".repeat(2049).as_bytes()).is_err());
    }

    #[test]
    fn markers_are_told_apart() {
        let read =
            |path: &'static str| marker(&path.split('/').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(read("a/b"), Marker::None);
        assert_eq!(read("a/.wh.b"), Marker::Whiteout(b"b"));
        assert_eq!(read("a/.wh."), Marker::Whiteout(b""));
        assert_eq!(read("a/.wh..wh..opq"), Marker::Opaque);
        assert_eq!(read(".wh..wh.plnk"), Marker::Ignored);
        assert_eq!(read(".wh..wh.plnk/1.2"), Marker::Ignored);
        assert_eq!(read("a/.who"), Marker::None);
    }
}
