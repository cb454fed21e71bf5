//! How fast output becomes json-file records: `cargo bench -p shoal-core --bench logs`. Prints MB of output a second on one core.

use shoal_logs::framer::Framer;
use shoal_logs::record::{self, Stream, Timestamp};
use std::hint::black_box;
use std::time::Instant;

/// Output of each kind that is turned into records, in bytes.
const TOTAL_BYTES: usize = 512 * 1024 * 1024;
/// As the monitor reads.
const READ_BYTES: usize = 64 * 1024;

fn main() {
    let access =
        "10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] GET /index.html HTTP/1.1 200 612 - curl/8.0\n";
    let quoted = "{\"level\":\"info\",\"msg\":\"request <done>\",\"path\":\"/a&b\",\"ms\":12}\n";
    let german = "Die Größe der Datei übersteigt die zulässige Länge von fünfzig Zeichen.\n";
    for (name, line) in [
        ("lines of 87 bytes", access.to_owned()),
        ("lines of JSON", quoted.to_owned()),
        ("lines with umlauts", german.to_owned()),
        ("lines of 2 KiB", format!("{}\n", "x".repeat(2047))),
        ("no newline at all", "x".repeat(4096)),
    ] {
        let block: Vec<u8> = line.bytes().cycle().take(READ_BYTES).collect();
        let mut framer = Framer::default();
        let mut record = Vec::new();
        let begun = Instant::now();
        for _ in 0..TOTAL_BYTES / READ_BYTES {
            framer.push(black_box(&block), &mut |pieces| {
                record.clear();
                let ending = record::ending(Stream::Stdout, Timestamp::now());
                for piece in pieces {
                    record::append_record(&mut record, piece, &ending);
                }
                black_box(&record);
            });
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!("{name}: {:.0} MB/s", TOTAL_BYTES as f64 / 1e6 / seconds);
    }
}
