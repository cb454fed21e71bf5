//! Why a command ends early: one line for the user, and the exit code.

use shoal_protocol::Failure;

/// The end of a command that did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub message: String,
    pub exit_code: u8,
    /// The message is whole as it is, without the command's name before it.
    pub bare: bool,
}

impl Stop {
    /// An ordinary failure: exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 1,
            bare: false,
        }
    }

    /// As `new`, with a message that nothing is put before.
    pub fn bare(message: impl Into<String>) -> Self {
        Self {
            bare: true,
            ..Self::new(message)
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::new(failure.to_string())
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Stop {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}
