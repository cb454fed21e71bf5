//! The words of a profile: actions, operators and flags, as runtime-spec writes them, and what they are to the kernel.

/// Values of <linux/seccomp.h>.
pub mod ret {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0x0000_0000;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The part that says what happens.
    pub const ACTION: u32 = 0xffff_0000;
}

/// Largest errno that the kernel hands on (include/linux/err.h).
pub const ERRNO_MAX: u32 = 4095;
/// Largest message of TRACE: the value's lower half.
const TRACE_DATA_MAX: u32 = 0xffff;
const EPERM: u32 = 1;

/// Every action, as `features` tells them.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Every operator, as `features` tells them.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Every flag and its bit (SECCOMP_FILTER_FLAG_* of <linux/seccomp.h>).
pub const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];
pub const TSYNC: u32 = 1 << 0;
pub const SPEC_ALLOW: u32 = 1 << 2;
pub const NEW_LISTENER: u32 = 1 << 3;
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & value == valueTwo & value`
    MaskedEqual,
}

/// The operator of a name.
pub fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
        _ => return None,
    })
}

/// What a filter returns for an action; EPERM when it takes an errno and none is given. Err: why not.
pub fn action(name: &str, errno: Option<u32>) -> Result<u32, String> {
    let value = match name {
        "SCMP_ACT_ERRNO" => return with_data(name, ret::ERRNO, errno, ERRNO_MAX),
        "SCMP_ACT_TRACE" => return with_data(name, ret::TRACE, errno, TRACE_DATA_MAX),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ret::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => ret::KILL_PROCESS,
        "SCMP_ACT_TRAP" => ret::TRAP,
        "SCMP_ACT_NOTIFY" => ret::USER_NOTIF,
        "SCMP_ACT_LOG" => ret::LOG,
        "SCMP_ACT_ALLOW" => ret::ALLOW,
        _ => return Err(format!("action {name:?} is none of {}", ACTIONS.join(", "))),
    };
    match errno {
        // runtime-spec, "seccomp": an action that takes no errno MUST be refused with one.
        Some(errno) => Err(format!("action {name:?} takes no errno, {errno} is given")),
        None => Ok(value),
    }
}

fn with_data(name: &str, action: u32, errno: Option<u32>, most: u32) -> Result<u32, String> {
    match errno.unwrap_or(EPERM) {
        errno if errno <= most => Ok(action | errno),
        errno => Err(format!("errno {errno} of action {name:?} is over {most}")),
    }
}
