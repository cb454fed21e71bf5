//! `ps`: the processes of a container, by their numbers on the host.

use super::print;
use crate::args::Parsed;
use crate::container::Container;
use crate::context::Context;
use crate::stop::Stop;
use std::process::Command;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let format = parsed.text("format").unwrap_or("table");
    if !matches!(format, "table" | "json") {
        return Err(Stop::new(format!(
            "invalid --format {format:?}: it is table or json"
        )));
    }
    let container = Container::find(context, &parsed.operands[0])?;
    let Some((driver, path)) = container.group() else {
        return Err(Stop::new(format!(
            "container {:?} has no control group to list the processes of",
            container.record.id
        )));
    };
    let pids = driver.pids(path);
    if format == "json" {
        let list = serde_json::to_string(&pids).map_err(|error| Stop::new(error.to_string()))?;
        return print(&format!("{list}\n"));
    }
    let options = match &parsed.operands[1..] {
        [] => &["-ef".to_owned()][..],
        options => options,
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .map_err(|error| Stop::new(format!("running ps: {error}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(Stop::new(format!(
            "ps {}: {}",
            options.join(" "),
            complaint.trim()
        )));
    }
    print(&select(&String::from_utf8_lossy(&output.stdout), &pids)?)
}

/// The header and the lines of these processes.
fn select(listing: &str, pids: &[i32]) -> Result<String, Stop> {
    let mut lines = listing.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Stop::new("couldn't find PID field in ps output"))?;
    let mut text = format!("{header}\n");
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn select_goes_by_the_pid_column() {
        let listing = "UID   PID  PPID CMD\nroot    7     1 a\nroot    8     7 b\n";
        assert_eq!(
            select(listing, &[8]).expect("lines"),
            "UID   PID  PPID CMD\nroot    8     7 b\n"
        );
        assert!(select("X Y\n", &[1]).is_err());
    }
}
