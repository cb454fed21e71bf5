//! Real containers made by the runtime crate alone, without core or command line: needs root and /usr/bin/busybox.
//!
//! The tests run one after the other in a process with one thread, as the crate asks of its callers. A word given on the command line runs
//! the tests whose names hold it.

mod creation;
mod exec;
mod hooks;
mod hostile;
mod support;
mod terminal;
mod users;

use std::panic;
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let tests: Vec<Test> = [
        creation::TESTS,
        hooks::TESTS,
        terminal::TESTS,
        users::TESTS,
        exec::TESTS,
        hostile::TESTS,
    ]
    .concat();
    if std::env::args().any(|word| word == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !support::possible() {
        eprintln!("skipped: real containers need root and /usr/bin/busybox");
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, test) in tests {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        match panic::catch_unwind(test) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                failed.push(name);
                println!("test {name} ... FAILED");
            }
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}
