//! One record of a json-file log, `{"log","stream","time"}`, byte for byte as docker writes it.

use shoal_runtime::sys::memory;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes looked at in one step while nothing needs escaping; the compiler makes vector instructions of it.
const STRIDE_BYTES: usize = 16;
/// Longest that one byte becomes: `\u001b`.
const ESCAPE_BYTES_MAX: usize = 6;

/// Which stream a record is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// As the record has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// As docker's 8-byte frames have it.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// Seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The clock's.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }

    /// RFC 3339 with as many digits as are needed, as Go's RFC3339Nano.
    pub fn rfc3339(self) -> String {
        let days = self.seconds.div_euclid(86_400);
        let second = self.seconds.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        let mut text = format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        );
        if self.nanoseconds > 0 {
            let digits = format!(".{:09}", self.nanoseconds);
            text.push_str(digits.trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// Year, month and day of a day number since 1970-01-01, by eras of 400 years that begin on a 1st of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// What follows the text in every record of one stream at one moment; made once for all pieces of a read.
pub fn ending(stream: Stream, now: Timestamp) -> String {
    format!(
        "\",\"stream\":\"{}\",\"time\":\"{}\"}}\n",
        stream.name(),
        now.rfc3339()
    )
}

/// Appends the record of one piece; `ending` is of `ending()`.
pub fn append_record(to: &mut Vec<u8>, piece: &[u8], ending: &str) {
    to.extend_from_slice(b"{\"log\":\"");
    escape(to, piece);
    to.extend_from_slice(ending.as_bytes());
}

/// JSON text as docker's encoder writes it: HTML signs and line separators as \u, bytes that are not UTF-8 as U+FFFD each.
pub fn escape(to: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escape_text(to, chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            to.extend_from_slice(b"\\ufffd");
        }
    }
}

/// U+2028 and U+2029, which JavaScript takes for line ends, are escaped too; they are rare enough to be looked for apart.
fn escape_text(to: &mut Vec<u8>, mut text: &[u8]) {
    let mut from = 0;
    while let Some(at) = memory::find(0xe2, &text[from..]).map(|at| from + at) {
        if let Some([0x80, last @ (0xa8 | 0xa9)]) = text.get(at + 1..at + 3) {
            escape_bytes(to, &text[..at]);
            to.extend_from_slice(b"\\u202");
            to.push(hex(*last));
            (text, from) = (&text[at + 3..], 0);
        } else {
            from = at + 1;
        }
    }
    escape_bytes(to, text);
}

fn escape_bytes(to: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    let mut at = 0;
    while at < text.len() {
        let stride = &text[at..text.len().min(at + STRIDE_BYTES)];
        // No branch inside, so that all bytes are compared at once.
        let special = stride
            .iter()
            .fold(false, |found, byte| found | is_special(*byte));
        at += stride.len();
        if !special {
            continue;
        }
        to.extend_from_slice(&text[plain..at - stride.len()]);
        plain = at;
        // A whole word is stored for each byte, and as much of it counts as the byte needs.
        let mut escaped = [0; STRIDE_BYTES * ESCAPE_BYTES_MAX + 8];
        let mut length = 0;
        for byte in stride {
            let (word, bytes) = &ESCAPES[usize::from(*byte)];
            escaped[length..length + 8].copy_from_slice(word);
            length += usize::from(*bytes);
        }
        to.extend_from_slice(&escaped[..length]);
    }
    to.extend_from_slice(&text[plain..]);
}

/// Whether a byte cannot stay as it is.
const fn is_special(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// What each byte becomes, and how many bytes of it count.
static ESCAPES: [([u8; 8], u8); 256] = {
    let mut table = [([0; 8], 1); 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at].0[0] = byte;
        if is_special(byte) {
            let short = match byte {
                b'\n' => b'n',
                b'\r' => b'r',
                b'"' | b'\\' => byte,
                _ => 0,
            };
            table[at] = if short == 0 {
                (
                    [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte), 0, 0],
                    6,
                )
            } else {
                ([b'\\', short, 0, 0, 0, 0, 0, 0], 2)
            };
        }
        at += 1;
    }
    table
};

/// The digit of a byte's lower half.
const fn hex(byte: u8) -> u8 {
    b"0123456789abcdef"[(byte & 0xf) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_as_docker_writes_it() {
        let noon = Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 120_000_000,
        };
        let mut to = Vec::new();
        append_record(
            &mut to,
            b"a\"b\\<&>\t\x01\xff\xe2\x82\xac\x7f\xe2\x80\xa8\r\n",
            &ending(Stream::Stderr, noon),
        );
        assert_eq!(
            String::from_utf8(to).expect("utf-8"),
            "{\"log\":\"a\\\"b\\\\\\u003c\\u0026\\u003e\\u0009\\u0001\\ufffd€\x7f\\u2028\\r\\n\",\"stream\":\"stderr\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
    }

    /// Every byte at every place of a stride, against the plainest way to do it.
    #[test]
    fn escape_finds_a_special_byte_wherever_it_stands() {
        for byte in 0..=255u8 {
            for at in 0..70 {
                let mut text = vec![b'x'; 70];
                text[at] = byte;
                let mut to = Vec::new();
                escape(&mut to, &text);
                let parsed: String =
                    serde_json::from_slice(&[b"\"", to.as_slice(), b"\""].concat()).expect("JSON");
                assert_eq!(parsed, String::from_utf8_lossy(&text), "{byte:#x} at {at}");
                let raw = to.contains(&byte) && !matches!(byte, b'x' | b'u' | b'n' | b'r' | b'\\');
                let kept = (0x20..0x80).contains(&byte) && !b"\"\\<>&".contains(&byte);
                if !matches!(byte, b'"' | b'0'..=b'9' | b'a'..=b'f' | b'x' | b'u' | b'n' | b'r' | b'\\')
                {
                    assert_eq!(raw, kept, "{byte:#x}");
                }
            }
        }
    }

    #[test]
    fn rfc3339_knows_the_calendar() {
        for (seconds, nanoseconds, want) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (4_107_542_399, 500_000_000, "2100-02-28T23:59:59.5Z"),
        ] {
            assert_eq!(
                Timestamp {
                    seconds,
                    nanoseconds
                }
                .rfc3339(),
                want
            );
        }
    }
}
