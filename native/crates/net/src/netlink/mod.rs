//! rtnetlink in small: messages with attributes, one socket per network namespace, batches, dumps.

pub mod attributes;
pub mod constants;
pub mod message;
pub mod socket;
