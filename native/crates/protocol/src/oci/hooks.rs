//! Programs of the host that are run at points of a container's life (config.md "POSIX-platform Hooks").

use super::field::part;

part! {
    /// In the order of the container's life; each list in its own order.
    pub struct Hooks {
        /// Deprecated by the specification, still used; run just before `create_runtime`.
        pub prestart: Vec<Hook>,
        pub create_runtime: Vec<Hook>,
        pub create_container: Vec<Hook>,
        pub start_container: Vec<Hook>,
        pub poststart: Vec<Hook>,
        pub poststop: Vec<Hook>,
    }
}

part! {
    /// One program; `args` includes its own name, `env` is all of its environment.
    pub struct Hook {
        pub path: String,
        pub args: Vec<String>,
        pub env: Vec<String>,
        /// Seconds after which it is killed and counts as failed.
        pub timeout: Option<i64>,
    }
}
