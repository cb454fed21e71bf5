//! Logs in docker's json-file format: cut into records, written, rotated and read again.

pub mod file;
pub mod framer;
pub mod record;
