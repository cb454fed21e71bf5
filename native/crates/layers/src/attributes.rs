//! Extended attributes: which of a layer are kept, and how they are set.

use crate::limits::XATTR_BYTES_MAX;
use crate::tar::{Entry, Kind};
use crate::{LayerError, Shown};
use std::io;

/// How overlayfs says that nothing of the layers below shows in a directory.
pub const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
const CAPABILITY: &[u8] = b"security.capability";

/// Attributes that mean the same on every machine. Above all none of overlayfs's own, by which a layer could lead it astray.
pub fn is_kept(key: &[u8], kind: Kind) -> bool {
    let on_user_data = matches!(kind, Kind::File | Kind::Directory);
    match key {
        CAPABILITY => kind == Kind::File,
        b"system.posix_acl_access" | b"system.posix_acl_default" => kind != Kind::SymbolicLink,
        _ => on_user_data && key.starts_with(b"user.") && !key.starts_with(b"user.overlay."),
    }
}

/// Sets the attributes that are kept.
pub fn set_xattrs(
    entry: &Entry,
    set: impl Fn(&[u8], &[u8]) -> io::Result<()>,
) -> Result<(), LayerError> {
    for (key, value) in &entry.xattrs {
        if !is_kept(key, entry.kind) {
            continue;
        }
        if value.len() > XATTR_BYTES_MAX {
            return Err(LayerError::Broken(format!(
                "entry {}: its attribute {} is longer than {XATTR_BYTES_MAX} bytes",
                Shown(&entry.path),
                Shown(key)
            )));
        }
        match set(key, value) {
            // The file system has none of them. A capability that is lost would be a program that does not work, so that one is told.
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) && key != CAPABILITY => {}
            other => other.map_err(|error| {
                LayerError::Write(
                    format!("setting attribute {} of {}", Shown(key), Shown(&entry.path)),
                    error,
                )
            })?,
        }
    }
    Ok(())
}

/// Whether an access list comes with the entry: it changes the mode.
pub fn has_access_list(entry: &Entry) -> bool {
    entry
        .xattrs
        .iter()
        .any(|(key, _)| key.starts_with(b"system.posix_acl_"))
}
