//! The frames of native/testdata, which the TypeScript side checks too, read by this side's types.

use serde_json::{Value, from_value, json, to_value};
use shoal_protocol::calls::{
    Attach, ById, CallName, Container, Create, Delete, Event, Exec, ExecKill, ExecState, Head,
    Hello, Kill, Logs, Resize, Update, reply,
};
use shoal_protocol::stats::Stats;
use shoal_protocol::{Failure, read_frame, write_frame};

fn frames(name: &str) -> Vec<Value> {
    let path = format!("{}/../../testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the fixture is in the repository");
    serde_json::from_str(&text).expect("a list of frames")
}

/// A value without the fields that say nothing: null, empty, zero and false are what an absent field is.
fn saying(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, field)| (key, saying(field)))
            .filter(|(_, field)| {
                ![
                    Value::Null,
                    json!(false),
                    json!(0),
                    json!(""),
                    json!([]),
                    json!({}),
                ]
                .contains(field)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(saying).collect(),
        other => other,
    }
}

#[test]
fn every_request_is_read_whole() {
    let requests = frames("requests.json");
    assert_eq!(requests.len(), 27, "one for each call");
    for request in requests {
        let head: Head = from_value(request.clone()).expect("head");
        let read = match head.call {
            CallName::Hello => from_value::<Hello>(request.clone()).map(drop),
            CallName::Create | CallName::Run => {
                let create: Create = from_value(request.clone()).expect("create");
                let mut back = to_value(&create).expect("json");
                back["id"] = request["id"].clone();
                back["call"] = request["call"].clone();
                assert_eq!(
                    saying(back),
                    saying(request.clone()),
                    "nothing of a create is lost"
                );
                Ok(())
            }
            CallName::Start | CallName::State | CallName::Pids => {
                from_value::<ById>(request.clone()).map(drop)
            }
            CallName::Kill => from_value::<Kill>(request.clone()).map(drop),
            CallName::Delete => from_value::<Delete>(request.clone()).map(drop),
            CallName::Execs | CallName::Pause | CallName::Resume | CallName::Stats => {
                from_value::<ById>(request.clone()).map(drop)
            }
            CallName::Exec => from_value::<Exec>(request.clone()).map(drop),
            CallName::ExecKill => from_value::<ExecKill>(request.clone()).map(drop),
            CallName::Attach => from_value::<Attach>(request.clone()).map(drop),
            CallName::Resize => from_value::<Resize>(request.clone()).map(drop),
            CallName::Update => from_value::<Update>(request.clone()).map(drop),
            CallName::Logs => from_value::<Logs>(request.clone()).map(drop),
            _ => Ok(()),
        };
        assert!(read.is_ok(), "{request}: {read:?}");
    }
}

#[test]
fn every_reply_is_written_as_the_fixture_has_it() {
    for wanted in frames("replies.json") {
        let id = wanted["id"].as_u64().expect("id");
        let answer = if wanted["ok"] == true {
            if wanted["value"].get("status").is_some() {
                let container: Container = from_value(wanted["value"].clone()).expect("container");
                Ok(to_value(container).expect("json"))
            } else if let Some(execs) = wanted["value"].get("execs") {
                let execs: Vec<ExecState> = from_value(execs.clone()).expect("execs");
                Ok(serde_json::json!({"execs": execs}))
            } else if wanted["value"].get("systemCpuNs").is_some() {
                let stats: Stats = from_value(wanted["value"].clone()).expect("stats");
                Ok(to_value(stats).expect("json"))
            } else {
                Ok(wanted["value"].clone())
            }
        } else {
            Err(from_value::<Failure>(wanted.clone()).expect("failure"))
        };
        let written: Value = serde_json::from_slice(&reply(id, &answer)).expect("json");
        assert_eq!(written, wanted);
    }
}

#[test]
fn every_event_goes_there_and_back() {
    for wanted in frames("events.json") {
        let event: Event = from_value(wanted.clone()).expect("event");
        assert_eq!(to_value(event).expect("json"), wanted);
    }
}

#[test]
fn frames_keep_their_borders_and_refuse_what_is_too_long() {
    let mut wire = Vec::new();
    for body in [&b"{}"[..], b"", b"[1]"] {
        write_frame(&mut wire, body).expect("written");
    }
    let mut from = wire.as_slice();
    for body in [&b"{}"[..], b"", b"[1]"] {
        assert_eq!(read_frame(&mut from).expect("read"), Some(body.to_vec()));
    }
    assert_eq!(read_frame(&mut from).expect("end"), None);
    assert!(read_frame(&mut &b"\xff\xff\xff\xff"[..]).is_err());
    assert!(read_frame(&mut &b"\0\0\0\x05ab"[..]).is_err());
}
