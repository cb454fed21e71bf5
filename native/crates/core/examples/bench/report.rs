//! Medians, tables and bars, printed as they come.

use crate::timing::Took;
use std::fs;
use std::path::Path;

/// The times of one row.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    wall_us: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Samples {
    /// One more.
    pub fn add(&mut self, took: Took) {
        self.wall_us.push(took.wall_us);
        self.cpu_us.push(took.cpu_us);
    }

    /// One more, of which only the time is known.
    pub fn add_wall(&mut self, wall_us: f64) {
        self.wall_us.push(wall_us);
    }

    /// Median wall time in milliseconds; None without samples.
    pub fn median_ms(&self) -> Option<f64> {
        quantile(&self.wall_us, 0.5).map(|value| value / 1e3)
    }
}

fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

/// One promise of the issue and what was measured.
struct Bar {
    name: String,
    measured: Option<f64>,
    limit: f64,
    unit: &'static str,
    at_least: bool,
}

/// What the run has to say at its end.
#[derive(Default)]
pub struct Report {
    bars: Vec<Bar>,
}

impl Report {
    /// `measured` must not be over `limit`; None when it could not be measured.
    pub fn at_most(
        &mut self,
        name: impl Into<String>,
        measured: Option<f64>,
        limit: f64,
        unit: &'static str,
    ) {
        self.bars.push(Bar {
            name: name.into(),
            measured,
            limit,
            unit,
            at_least: false,
        });
    }

    /// `measured` must not be under `limit`.
    pub fn at_least(
        &mut self,
        name: impl Into<String>,
        measured: Option<f64>,
        limit: f64,
        unit: &'static str,
    ) {
        self.bars.push(Bar {
            name: name.into(),
            measured,
            limit,
            unit,
            at_least: true,
        });
    }

    /// The bars, each met or not, and the load they were measured under.
    pub fn print_bars(&self) {
        println!("\n{:<64} {:>10} {:>12}", "bar", "measured", "limit");
        for bar in &self.bars {
            let sign = if bar.at_least { ">=" } else { "<=" };
            let limit = format!("{sign} {} {}", bar.limit, bar.unit);
            let (value, verdict) = match bar.measured {
                None => ("-".to_owned(), "NOT MEASURED"),
                Some(value)
                    if (bar.at_least && value >= bar.limit)
                        || (!bar.at_least && value <= bar.limit) =>
                {
                    (format!("{value:.2}"), "met")
                }
                Some(value) => (format!("{value:.2}"), "NOT MET"),
            };
            println!("{:<64} {value:>10} {limit:>12}  {verdict}", bar.name);
        }
        println!("\nload average at the end: {}", load());
    }
}

/// The head of a table.
pub fn print_head(title: &str) {
    println!(
        "\n{title}\n{:<34} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "median", "p95", "min", "CPU", "n"
    );
}

/// One row: milliseconds.
pub fn print_row(name: &str, samples: &Samples) {
    let cell =
        |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.2}", value / 1e3));
    println!(
        "{name:<34} {:>9} {:>9} {:>9} {:>9} {:>9}",
        cell(quantile(&samples.wall_us, 0.5)),
        cell(quantile(&samples.wall_us, 0.95)),
        cell(quantile(&samples.wall_us, 0.0)),
        cell(quantile(&samples.cpu_us, 0.5)),
        samples.wall_us.len()
    );
}

/// What the figures depend on besides the code.
pub fn print_machine(core: &Path) {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} processors, Linux {}, load average {}, binary {} of {} kB; times in ms",
        processors,
        read("/proc/sys/kernel/osrelease"),
        load(),
        core.display(),
        fs::metadata(core).map_or(0, |data| data.len() / 1000)
    );
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
