//! `list`: every container of the state directory.

use super::print;
use crate::args::Parsed;
use crate::container::{Container, Report, status_word};
use crate::context::Context;
use crate::stop::Stop;

/// Least width of a column, and the space between two.
const COLUMN_MIN: usize = 12;
const PADDING: usize = 3;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let format = parsed.text("format").unwrap_or("table");
    if !matches!(format, "table" | "json") {
        return Err(Stop::new(format!(
            "invalid --format {format:?}: it is table or json"
        )));
    }
    let reports = reports(context)?;
    if parsed.on("quiet") {
        let ids: String = reports
            .iter()
            .map(|report| format!("{}\n", report.id))
            .collect();
        return print(&ids);
    }
    if format == "json" {
        let mut text = serde_json::to_string(&reports)
            .map_err(|error| Stop::new(format!("writing the list: {error}")))?;
        text.push('\n');
        return print(&text);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.id.clone(),
            report.pid.to_string(),
            status_word(report.status).to_owned(),
            report.bundle.clone(),
            report.created.clone(),
            report.owner.clone(),
        ]
    }));
    print(&table(&rows))
}

fn reports(context: &Context<'_>) -> Result<Vec<Report>, Stop> {
    let mut reports = Vec::new();
    for id in context.root.ids(context.root_given)? {
        match Container::find(context, &id) {
            Ok(container) => reports.push(container.report()),
            // Its creation has not come so far, or it has just been deleted.
            Err(stop) if stop.message.ends_with("does not exist") => {}
            Err(stop) => context
                .log
                .warning(&format!("container {id:?}: {}", stop.message)),
        }
    }
    Ok(reports)
}

fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [COLUMN_MIN; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + PADDING);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, (width, cell)) in widths.iter().zip(row).enumerate() {
            if index + 1 == row.len() {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:<width$}"));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_as_wide_as_its_cells() {
        let cells = |cells: [&str; 6]| cells.map(str::to_owned);
        let text = table(&[
            cells(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]),
            cells(["a-long-container-id", "5", "running", "/b", "t", "root"]),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("PID"), lines[1].find('5'));
        assert_eq!(lines[0].find("OWNER"), lines[1].find("root"));
    }
}
