//! System call filters: an OCI seccomp section compiled to classic BPF without libseccomp, Docker's default profile, a cache, and the load itself.
//!
//! The meaning is libseccomp's, as runc and crun use it, so that a profile does here what it does there; where this crate is stricter it says so.

pub mod arch;
pub mod cache;
mod code;
mod compile;
mod conditions;
pub mod default;
mod load;
pub mod notify;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod profile;
mod program;
mod syscalls;
#[cfg(test)]
mod tests;
pub mod words;

pub use arch::Arch;
pub use compile::{compile, compile_for};
pub use load::load;
pub use program::{INSTRUCTIONS_MAX, Program};
