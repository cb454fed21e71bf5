//! Frames from a peer, and the calls in them.

use shoal_protocol::calls;
use shoal_protocol::{read_frame, write_frame};

/// No frame is read that would not be written the same; every call's arguments are read or refused.
pub fn frames(mut bytes: &[u8]) {
    let whole = bytes;
    let mut written = Vec::new();
    while let Ok(Some(body)) = read_frame(&mut bytes) {
        write_frame(&mut written, &body).expect("what was read is not too long");
        drop(serde_json::from_slice::<calls::Head>(&body));
        drop(serde_json::from_slice::<calls::Hello>(&body));
        drop(serde_json::from_slice::<calls::Create>(&body));
        drop(serde_json::from_slice::<calls::Exec>(&body));
        drop(serde_json::from_slice::<calls::Update>(&body));
        drop(serde_json::from_slice::<calls::Logs>(&body));
        drop(serde_json::from_slice::<calls::Kill>(&body));
    }
    assert!(whole.starts_with(&written));
}
