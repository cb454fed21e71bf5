//! Logs in docker's json-file format: cut into records, written, rotated and read again.

pub mod beside;
pub mod compress;
pub mod file;
pub mod follow;
pub mod framer;
pub mod read;
pub mod record;
pub mod sink;
