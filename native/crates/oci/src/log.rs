//! Where errors, warnings and debug lines go: standard error, a file in the formats that podman, containerd and docker parse, syslog or the journal.

use crate::time::rfc3339;
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::SystemTime;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Debug,
    Warning,
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The priority of syslog(3).
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Debug => 7,
        }
    }
}

/// User-level messages of syslog(3).
const FACILITY_USER: u8 = 1 << 3;

enum Sink {
    Stderr,
    File(RefCell<File>),
    Syslog(UnixDatagram, String),
    Journal(UnixDatagram, String),
}

/// One log for the life of the command.
pub struct Log {
    sink: Sink,
    json: bool,
    debug: bool,
}

impl Log {
    /// The log before its flags are known.
    pub fn stderr() -> Self {
        Self {
            sink: Sink::Stderr,
            json: false,
            debug: false,
        }
    }

    /// The log that `--log`, `--log-format` and `--debug` ask for. `to` is a path, `file:PATH`, `syslog:NAME` or `journald:NAME`.
    pub fn open(to: Option<&str>, format: Option<&str>, debug: bool) -> Result<Self, String> {
        let json = match format {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(other) => {
                return Err(format!(
                    "invalid --log-format {other:?}: it is text or json"
                ));
            }
        };
        let sink = match to {
            None | Some("") => Sink::Stderr,
            Some(to) => sink(to)?,
        };
        Ok(Self { sink, json, debug })
    }

    /// Says why the command failed; always on standard error too, as one line.
    pub fn error(&self, message: &str) {
        self.line(Level::Error, message);
        if !matches!(self.sink, Sink::Stderr) {
            to_stderr(&format!("{}\n", one_line(message)));
        }
    }

    /// Says what was not as asked and does not stop the command.
    pub fn warning(&self, message: &str) {
        self.line(Level::Warning, message);
    }

    /// Says what is being done, when `--debug` asks for it; `message` is made only then.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.line(Level::Debug, &message());
        }
    }

    fn line(&self, level: Level, message: &str) {
        let message = one_line(message);
        match &self.sink {
            Sink::Stderr if !self.json && level == Level::Error => {
                to_stderr(&format!("{message}\n"));
            }
            Sink::Stderr => to_stderr(&self.formatted(level, &message)),
            // A log that cannot be written to must not fail the command.
            Sink::File(file) => drop(
                file.borrow_mut()
                    .write_all(self.formatted(level, &message).as_bytes()),
            ),
            Sink::Syslog(socket, name) => {
                let text = format!("<{}>{name}: {message}", FACILITY_USER | level.priority());
                drop(socket.send(text.as_bytes()));
            }
            Sink::Journal(socket, name) => {
                let text = format!(
                    "PRIORITY={}\nSYSLOG_IDENTIFIER={name}\nMESSAGE={message}\n",
                    level.priority()
                );
                drop(socket.send(text.as_bytes()));
            }
        }
    }

    fn formatted(&self, level: Level, message: &str) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            level: Level,
            msg: &'a str,
            time: String,
        }
        let time = rfc3339(SystemTime::now(), false);
        if self.json {
            let line = Line {
                level,
                msg: message,
                time,
            };
            let mut text = serde_json::to_string(&line).expect("a line is plain data");
            text.push('\n');
            return text;
        }
        let mut quoted = String::with_capacity(message.len() + 2);
        for letter in message.chars() {
            match letter {
                '"' | '\\' => {
                    quoted.push('\\');
                    quoted.push(letter);
                }
                _ => quoted.push(letter),
            }
        }
        format!("time=\"{time}\" level={} msg=\"{quoted}\"\n", level.word())
    }
}

fn sink(to: &str) -> Result<Sink, String> {
    let (kind, value) = match to.split_once(':') {
        Some((kind, value)) if !to.starts_with(['/', '.']) => (kind, value),
        _ => ("file", to),
    };
    let datagram = |path: &str| -> Result<UnixDatagram, String> {
        let socket = UnixDatagram::unbound().map_err(|error| format!("--log {to:?}: {error}"))?;
        // Nobody listening means that nobody wants to know.
        drop(socket.connect(path));
        Ok(socket)
    };
    match kind {
        "file" => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(value)
            .map(|file| Sink::File(RefCell::new(file)))
            .map_err(|error| format!("opening --log {value:?}: {error}")),
        "syslog" => Ok(Sink::Syslog(datagram("/dev/log")?, value.to_owned())),
        "journald" => Ok(Sink::Journal(
            datagram("/run/systemd/journal/socket")?,
            value.to_owned(),
        )),
        other => Err(format!(
            "invalid --log {to:?}: {other:?} is not one of file, syslog and journald"
        )),
    }
}

/// Control characters would make two lines of one, or talk to the reader's terminal.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for letter in message.trim_end().chars() {
        if letter.is_control() {
            write!(line, "{}", letter.escape_default()).expect("writing to a string");
        } else {
            line.push(letter);
        }
    }
    line
}

fn to_stderr(text: &str) {
    // There is nowhere left to complain to.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_what_callers_parse() {
        let json = Log {
            sink: Sink::Stderr,
            json: true,
            debug: false,
        };
        let line = json.formatted(Level::Error, "a \"b\"");
        let read: serde_json::Value = serde_json::from_str(&line).expect("json");
        assert_eq!(
            (read["level"].as_str(), read["msg"].as_str()),
            (Some("error"), Some("a \"b\""))
        );
        assert!(
            read["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        let text = Log::stderr().formatted(Level::Warning, "a \"b\"");
        assert!(
            text.ends_with("level=warning msg=\"a \\\"b\\\"\"\n"),
            "{text}"
        );
    }

    #[test]
    fn one_line_has_no_control_characters() {
        assert_eq!(one_line("a\nb\u{1b}[1m\n"), "a\\nb\\u{1b}[1m");
    }

    #[test]
    fn open_refuses_what_it_does_not_know() {
        assert!(Log::open(None, Some("xml"), false).is_err());
        assert!(Log::open(Some("nope:/x"), None, false).is_err());
        assert!(Log::open(Some("/nonexistent/dir/x"), None, false).is_err());
        assert!(Log::open(Some("syslog:x"), Some("json"), true).is_ok());
    }
}
