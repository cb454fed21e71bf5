//! Connections that become streams: one request, its answer, then bytes. They never said hello and get no events.

use crate::containers::Containers;
use crate::hub::Peer;
use crate::layers;
use crate::logs::follow;
use crate::serve::parse;
use shoal_protocol::calls::{self, Attach, CallName, Exec, Head, Logs};
use shoal_protocol::{Failure, FailureCode};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Answers the only request of a connection and lets the stream follow. `ahead`: the client has sent more already.
pub fn begin(
    containers: &Arc<Containers>,
    peer: &Peer,
    head: &Head,
    body: &[u8],
    stream: UnixStream,
    ahead: bool,
) {
    let begun = if ahead {
        Err(Failure::invalid(
            "reading a request",
            "bytes came after it before it was answered; wait for the answer",
        ))
    } else {
        hand_over(containers, peer, head, body, &stream)
    };
    if let Err(failure) = begun {
        peer.send(&calls::reply(head.id, &Err(failure)));
    }
}

/// On success the answer has been sent: by the monitor, which has the connection from then on, or before the log's records.
fn hand_over(
    containers: &Arc<Containers>,
    peer: &Peer,
    head: &Head,
    body: &[u8],
    stream: &UnixStream,
) -> Result<(), Failure> {
    match head.call {
        CallName::Attach => {
            let attach: Attach = parse("attach", body)?;
            containers.attach(head.id, &attach, stream.as_fd())
        }
        CallName::Exec => {
            let exec: Exec = parse("exec", body)?;
            if !exec.attached() {
                return Err(Failure::invalid(
                    "reading the call exec",
                    "no stream of it is wanted; call it on a connection that said hello",
                ));
            }
            containers
                .exec(&exec, Some((head.id, stream.as_fd())))
                .map(drop)
        }
        CallName::Logs => {
            let logs: Logs = parse("logs", body)?;
            let source = containers.log_source(&logs.container_id)?;
            let query = follow::Query::new(&logs)?;
            peer.send(&calls::reply(head.id, &Ok(serde_json::json!({}))));
            // The client has gone, or the log cannot be read any more: either way the stream ends here.
            drop(follow::send(&source, &query, stream));
            Ok(())
        }
        CallName::Unpack => layers::unpack(peer, head.id, &parse("unpack", body)?, stream),
        CallName::Diff => layers::send(peer, head.id, stream, |ready, out| {
            shoal_layers::diff(&parse("diff", body)?, ready, out)
        }),
        CallName::Export => layers::send(peer, head.id, stream, |ready, out| {
            shoal_layers::export(&parse("export", body)?, ready, out)
        }),
        _ => Err(misplaced("this call")),
    }
}

/// The refusal of a call that needs a connection of its own.
pub fn misplaced(call: &str) -> Failure {
    Failure::new(
        FailureCode::Conflict,
        "reading a request",
        format!("{call} makes a stream of its connection; open one for it and say nothing before"),
    )
}
