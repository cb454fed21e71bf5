//! Logs in docker's json-file format: cut into records, written, rotated and read again.

pub mod beside;
pub mod compress;
pub mod file;
pub mod follow;
pub mod read;
pub mod sink;

pub use shoal_logs::{framer, record};
