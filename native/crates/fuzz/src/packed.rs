//! What a sandbox is told of its container.

use shoal_protocol::packed;
use shoal_runtime::own::Own;

/// What is read is read again the same from what is written, which is no longer than what was read; anything else is refused.
pub fn packed(bytes: &[u8]) {
    let Ok(own) = Own::read(bytes) else { return };
    let written = packed::pack(&own);
    assert_eq!(Own::read(&written).expect("what was written"), own);
    assert!(written.len() <= bytes.len());
}
