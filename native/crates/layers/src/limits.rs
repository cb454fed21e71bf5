//! How much one layer may be. Each is far over what real images have and far under what would fill a node before anybody noticed.

/// Most entries of one layer.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Most bytes of one uncompressed tar: 64 GiB.
pub const TAR_BYTES_MAX: u64 = 64 << 30;
/// Longest path in an archive, as in the kernel.
pub const PATH_BYTES_MAX: usize = 4096;
/// Most directories above an entry, symbolic links followed: what removes a layer holds a descriptor for each.
pub const DEPTH_MAX: usize = 256;
/// Most bytes of one extended header (PAX records or a GNU long name).
pub const EXTENDED_HEADER_BYTES_MAX: u64 = 1 << 20;
/// Longest value of an extended attribute, as in the kernel.
pub const XATTR_BYTES_MAX: usize = 64 * 1024;
/// How much is read and written at once.
pub const COPY_BYTES: usize = 256 * 1024;
/// Most parts of one file with holes.
pub const SPARSE_PARTS_MAX: usize = 1 << 20;
/// Attributes of one entry, as the kernel bounds the list of their names.
pub const XATTRS_MAX: usize = 1024;
