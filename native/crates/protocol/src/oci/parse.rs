//! Reading JSON so that a refusal names the field it is about.

use crate::Failure;
use serde::de::DeserializeOwned;

/// Deepest nesting that a path is told for; serde_json itself stops at 128.
const DEPTH_MAX: usize = 128;
/// As much of a key as a refusal repeats.
const KEY_CHARS_MAX: usize = 100;

/// Reads `what` (a file's name) from JSON. A wrong type is told with the path of the field, broken UTF-8 with its position.
pub fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Failure> {
    let doing = || format!("reading {what}");
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Failure::invalid(
            doing(),
            format!("{}invalid UTF-8 at byte {at}", prefix(&path_at(bytes, at))),
        )
    })?;
    serde_json::from_slice(text.as_bytes()).map_err(|error| {
        let at = offset(bytes, error.line(), error.column());
        Failure::invalid(doing(), format!("{}{error}", prefix(&path_at(bytes, at))))
    })
}

fn prefix(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

/// serde_json counts lines from 1 and gives the bytes of the line that it has read.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let start = match line.saturating_sub(1) {
        0 => 0,
        before => bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(before - 1)
            .map_or(0, |(at, _)| at + 1),
    };
    (start + column).min(bytes.len())
}

enum Step {
    Key(String),
    /// Inside an object whose next key is not read yet.
    NoKey,
    Index(usize),
}

/// The path (`process.args[1]`) of the value that the first `end` bytes of a JSON text end in.
fn path_at(bytes: &[u8], end: usize) -> String {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = 0;
    let mut opened_at = None;
    while at < end {
        match bytes[at] {
            b'{' | b'[' if steps.len() >= DEPTH_MAX => break,
            b'{' => steps.push(Step::NoKey),
            b'[' => {
                opened_at = Some(at);
                steps.push(Step::Index(0));
            }
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(step) => *step = Step::NoKey,
                None => {}
            },
            b'"' => {
                let begin = at + 1;
                at = string_end(bytes, begin, end);
                if let Some(step @ Step::NoKey) = steps.last_mut() {
                    *step = Step::Key(String::from_utf8_lossy(&bytes[begin..at]).into_owned());
                }
            }
            _ => {}
        }
        at += 1;
    }
    // An array that has only been opened is itself what is meant, not its first element.
    if opened_at.is_some_and(|opened| opened + 1 == end) {
        steps.pop();
    }
    let mut path = String::new();
    for step in &steps {
        match step {
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                // A refusal is one line of readable length, whatever a key holds.
                path.extend(key.chars().take(KEY_CHARS_MAX).flat_map(char::escape_debug));
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::NoKey => {}
        }
    }
    path
}

/// Where the string that begins at `at` has its closing quote (or `end`).
fn string_end(bytes: &[u8], mut at: usize, end: usize) -> usize {
    while at < end && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(end)
}

#[cfg(test)]
mod tests {
    use crate::oci::Spec;

    fn refusal(text: &[u8]) -> String {
        super::parse::<Spec>("config.json", text)
            .expect_err("a refusal")
            .to_string()
    }

    #[test]
    fn a_refusal_names_the_path_of_its_field() {
        for (text, path) in [
            (r#"{"process": 1}"#, "process: "),
            (r#"{"process":{"user":{"uid":"0"}}}"#, "process.user.uid: "),
            (
                "{\n \"process\": {\n  \"args\": [\"a\", 2]\n }\n}",
                "process.args[1]: ",
            ),
            (r#"{"process":{"args":{}}}"#, "process.args: "),
            (r#"{"process":{"cwd":["x"]}}"#, "process.cwd: "),
            (
                r#"{"mounts":[{},{"destination":"/a","options":["a\"]",true]}]}"#,
                "mounts[1].options[1]: ",
            ),
            (
                r#"{"linux":{"resources":{"memory":{"limit":1.5}}}}"#,
                "linux.resources.memory.limit: ",
            ),
            (
                r#"{"linux":{"resources":{"pids":{"limit":"x"}}}}"#,
                "linux.resources.pids.limit: ",
            ),
            (r#"{"annotations":{"a.b":{}}}"#, "annotations.a.b: "),
        ] {
            let told = refusal(text.as_bytes());
            assert!(
                told.starts_with(&format!("reading config.json: {path}")),
                "{told}"
            );
        }
    }

    #[test]
    fn broken_text_is_told_as_such() {
        for (text, word) in [
            (
                &b"{\"process\":{\"cwd\":\"/\xff\"}}"[..],
                "process.cwd: invalid UTF-8 at byte 20",
            ),
            (b"{\"a\nb\":{\"c\xff", "a\\nb.c: invalid UTF-8 at byte 10"),
            (b"{\"annotations\":{\"a\nb\":1}}", "annotations"),
            (b"", "EOF"),
            (b"{", "EOF"),
            (b"{\"a\":1,}", "line 1"),
            (b"[1]", "invalid"),
            (b"{} x", "trailing"),
            (b"\xef\xbb\xbf{}", "line 1"),
        ] {
            let told = refusal(text);
            assert!(told.contains(word), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        refusal(&[b'['; 100_000]);
        refusal("{\"process\":".repeat(10_000).as_bytes());
        refusal(b"{\"hostname\":\"\\");
    }
}
