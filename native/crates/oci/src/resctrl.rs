//! Intel's (and others') resource control: the class of service and the monitoring group of a container in resctrl (config-linux.md
//! "IntelRdt" of runtime-spec 1.3; the kernel's Documentation/filesystems/resctrl.rst).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shoal_protocol::oci::IntelRdt;
use shoal_protocol::{Failure, FailureCode};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What resctrl itself has in each directory of a group.
const OWN_NAMES: [&str; 6] = [".", "..", "info", "mon_groups", "mon_data", "tasks"];
/// linux.intelRdt.closID for the group that every process is in from its beginning.
const DEFAULT_CLASS: &str = "/";

/// Where a container is in resctrl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    root: PathBuf,
    /// The directory of its class.
    class: PathBuf,
    /// Whether the class ends with the container: it has been made for it, under its own id.
    owned: bool,
    /// The directory in which the container is counted by itself.
    monitor: Option<PathBuf>,
    /// Lines that the class gets.
    schemata: Vec<String>,
}

/// Where resctrl is mounted, by /proc/self/mountinfo.
pub fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_resctrl = file_system.split(' ').next() == Some("resctrl");
        let path = mount.split(' ').nth(4).filter(|_| is_resctrl)?;
        Some(PathBuf::from(path.replace("\\040", " ")))
    })
}

impl Assignment {
    /// Checks what a configuration asks for against what the machine has at `root`. Nothing is made yet; every refusal names its field.
    pub fn plan(root: Option<PathBuf>, id: &str, wanted: &IntelRdt) -> Result<Self, Failure> {
        let refuse = |field: &str, why: String| {
            Err(Failure::invalid(
                format!("reading linux.intelRdt{field}"),
                why,
            ))
        };
        let Some(root) = root else {
            return refuse(
                "",
                "intelRdt is specified in config, but Intel RDT is not enabled: resctrl is mounted nowhere; leave it out".to_owned(),
            );
        };
        let name = match wanted.clos_id.as_str() {
            "" => id,
            given => given,
        };
        if name != DEFAULT_CLASS && (OWN_NAMES.contains(&name) || name.contains(['/', '\0', '\n']))
        {
            return refuse(".closID", format!("invalid intelRdt.ClosID {name:?}"));
        }
        check_machine(&root, wanted)?;
        let schemata = lines(wanted)?;
        let class = match name {
            DEFAULT_CLASS => root.clone(),
            name => root.join(name),
        };
        let there = class.is_dir();
        if !wanted.clos_id.is_empty() && !there && schemata.is_empty() {
            return refuse(
                ".closID",
                format!(
                    "class {name:?} is not there, and must be where no schema says what it is; make it, or give linux.intelRdt.schemata"
                ),
            );
        }
        let monitor = wanted
            .enable_monitoring
            .then(|| class.join("mon_groups").join(id));
        let assignment = Self {
            owned: wanted.clos_id.is_empty() && !there,
            root,
            class,
            monitor,
            schemata,
        };
        if there && !wanted.clos_id.is_empty() {
            assignment.compare()?;
        }
        Ok(assignment)
    }

    /// A class of others is as it is: a container that wants it otherwise is refused.
    fn compare(&self) -> Result<(), Failure> {
        let has = self.read("schemata")?;
        let missing = self.schemata.iter().find(|line| !holds(&has, line));
        missing.map_or(Ok(()), |line| {
            Err(Failure::invalid(
                "reading linux.intelRdt",
                format!(
                    "schema {line:?} is not what class {} has: {}; give another closID, or none of the schemas",
                    self.class.display(),
                    has.trim().replace('\n', ", ")
                ),
            ))
        })
    }

    /// Makes what is missing, and puts the container's first process there. What was made is taken back by `remove`.
    pub fn enter(&self, pid: i32) -> Result<(), Failure> {
        let made = self.make_dir(&self.class)?;
        if made || self.owned {
            self.set(&self.schemata)?;
        }
        if let Some(monitor) = &self.monitor {
            self.make_dir(monitor)?;
        }
        self.join(pid)
    }

    /// Puts a process there, and what it will start.
    pub fn join(&self, pid: i32) -> Result<(), Failure> {
        // A monitoring group takes processes of its class only.
        for group in [Some(&self.class), self.monitor.as_ref()]
            .into_iter()
            .flatten()
        {
            self.write(&group.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Changes the lines of the class, in one write, of which the kernel takes all or tells which one not.
    pub fn set(&self, lines: &[String]) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = lines.join("\n");
        text.push('\n');
        self.write(&self.class.join("schemata"), &text)
    }

    /// Takes back what `enter` has made for this container alone. Nothing to do when it is gone.
    pub fn remove(&self) -> Result<(), Failure> {
        let own = match &self.monitor {
            // Its monitoring group goes with it.
            _ if self.owned => &self.class,
            Some(monitor) => monitor,
            None => return Ok(()),
        };
        match fs::remove_dir(own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.complain(format!("removing {}", own.display()), &error))
            }
            _ => Ok(()),
        }
    }

    /// What resctrl tells of the container, in the shape of runc's `events --stats`.
    pub fn stats(&self) -> Map<String, Value> {
        let mut told = Map::new();
        let schemata = self.read("schemata").unwrap_or_default();
        let all = fs::read_to_string(self.root.join("schemata")).unwrap_or_default();
        for (key, text, kind) in [
            ("l3_cache_schema_root", &all, "L3"),
            ("l3_cache_schema", &schemata, "L3"),
            ("mem_bw_schema_root", &all, "MB"),
            ("mem_bw_schema", &schemata, "MB"),
        ] {
            if let Some(line) = text.lines().map(str::trim).find(|line| line.contains(kind)) {
                told.insert(key.to_owned(), json!(line));
            }
        }
        let lines: Vec<&str> = schemata.lines().map(str::trim).collect();
        told.insert("schemata".to_owned(), json!(lines));
        let info = |names: &[&str], directory: &str| -> Map<String, Value> {
            let number = |name: &str| {
                let text =
                    fs::read_to_string(self.root.join("info").join(directory).join(name)).ok()?;
                let text = text.trim();
                Some(match text.parse::<u64>() {
                    Ok(number) if name != "cbm_mask" => json!(number),
                    _ => json!(text),
                })
            };
            names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), number(name)?)))
                .collect()
        };
        for (key, directory, names) in [
            (
                "l3_cache_info",
                "L3",
                &["cbm_mask", "min_cbm_bits", "num_closids"][..],
            ),
            (
                "mem_bw_info",
                "MB",
                &[
                    "bandwidth_gran",
                    "delay_linear",
                    "min_bandwidth",
                    "num_closids",
                ],
            ),
        ] {
            let values = info(names, directory);
            if !values.is_empty() {
                told.insert(key.to_owned(), json!(values));
            }
        }
        told.extend(self.counted());
        told
    }

    /// What is counted for the monitoring group (or the class), one entry a cache.
    fn counted(&self) -> Map<String, Value> {
        let data = self
            .monitor
            .as_ref()
            .unwrap_or(&self.class)
            .join("mon_data");
        let mut caches: Vec<PathBuf> = fs::read_dir(data)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        caches.sort_unstable();
        let mut told = Map::new();
        for (key, names) in [
            ("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"][..]),
            ("cmt_stats", &["llc_occupancy"]),
        ] {
            let of = |cache: &PathBuf| -> Map<String, Value> {
                let number = |name: &str| {
                    let text = fs::read_to_string(cache.join(name)).ok()?;
                    text.trim().parse::<u64>().ok()
                };
                names
                    .iter()
                    .filter_map(|name| Some(((*name).to_owned(), json!(number(name)?))))
                    .collect()
            };
            let values: Vec<Map<String, Value>> = caches
                .iter()
                .map(of)
                .filter(|values| !values.is_empty())
                .collect();
            if !values.is_empty() {
                told.insert(key.to_owned(), json!(values));
            }
        }
        told
    }

    fn read(&self, name: &str) -> Result<String, Failure> {
        let path = self.class.join(name);
        fs::read_to_string(&path)
            .map_err(|error| self.complain(format!("reading {}", path.display()), &error))
    }

    /// Whether it was not there before.
    fn make_dir(&self, path: &Path) -> Result<bool, Failure> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.complain(format!("making {}", path.display()), &error)),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        // One write: the kernel takes it as a whole. It makes no files here, so that only the known ones can be opened.
        let write = || {
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)?
                .write_all(text.as_bytes())
        };
        write().map_err(|error| {
            let line = text.trim().replace('\n', ", ");
            self.complain(format!("writing {line:?} to {}", path.display()), &error)
        })
    }

    /// A failure with what resctrl says of its last command.
    fn complain(&self, doing: String, error: &io::Error) -> Failure {
        let mut failure = Failure::io(format!("linux.intelRdt: {doing}"), error);
        if let Ok(status) = fs::read_to_string(self.root.join("info/last_cmd_status")) {
            failure.message = format!(
                "{}, last_cmd_status: {}",
                failure.message,
                status.trim().replace('\n', "; ")
            );
        }
        failure
    }
}

/// Refuses what the machine's resctrl does not have.
fn check_machine(root: &Path, wanted: &IntelRdt) -> Result<(), Failure> {
    let info = root.join("info");
    let has = |names: &[&str]| names.iter().any(|name| info.join(name).exists());
    let counts = fs::read_to_string(info.join("L3_MON/mon_features")).unwrap_or_default();
    let counts = |prefix: &str| counts.lines().any(|line| line.starts_with(prefix));
    for (field, asked, there, what) in [
        (
            "l3CacheSchema",
            !wanted.l3_cache_schema.is_empty(),
            has(&["L3", "L3CODE"]),
            "RDT/CAT",
        ),
        (
            "memBwSchema",
            !wanted.mem_bw_schema.is_empty(),
            has(&["MB"]),
            "RDT/MBA",
        ),
        (
            "enableMonitoring",
            wanted.enable_monitoring,
            has(&["L3_MON"]),
            "RDT monitoring",
        ),
        (
            "enableCMT",
            wanted.enable_cmt,
            counts("llc_occupancy"),
            "RDT/CMT",
        ),
        ("enableMBM", wanted.enable_mbm, counts("mbm_"), "RDT/MBM"),
    ] {
        if asked && !there {
            return Err(Failure::new(
                FailureCode::Invalid,
                format!("reading linux.intelRdt.{field}"),
                format!("intelRdt.{field} is specified in config, but Intel {what} is not enabled"),
            ));
        }
    }
    Ok(())
}

/// The lines that the class is to have: l3CacheSchema and memBwSchema, then schemata.
fn lines(wanted: &IntelRdt) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for (field, schema) in [
        ("l3CacheSchema", &wanted.l3_cache_schema),
        ("memBwSchema", &wanted.mem_bw_schema),
    ] {
        // Some write several kinds of cache into the one field, one a line.
        let of = schema
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        lines.extend(of.map(str::to_owned));
        check_line(field, schema, true)?;
    }
    for schema in &wanted.schemata {
        check_line("schemata", schema, false)?;
        lines.extend((!schema.is_empty()).then(|| schema.clone()));
    }
    Ok(lines)
}

fn check_line(field: &str, schema: &str, several: bool) -> Result<(), Failure> {
    let odd = |letter: char| letter.is_control() && !(several && letter == '\n');
    if schema.is_empty() || (schema.contains(':') && !schema.contains(odd)) {
        return Ok(());
    }
    Err(Failure::invalid(
        format!("reading linux.intelRdt.{field}"),
        format!("{schema:?} is no line of schemata such as \"L3:0=ff;1=f\""),
    ))
}

/// Whether the text of a `schemata` file holds all that a line says. Masks are hexadecimal, bandwidths decimal.
fn holds(schemata: &str, line: &str) -> bool {
    let Some((kind, wanted)) = line.split_once(':') else {
        return false;
    };
    let radix = if kind.trim().starts_with("MB") {
        10
    } else {
        16
    };
    let parts = |values: &str| -> Vec<(String, String)> {
        values
            .split(';')
            .filter_map(|part| part.split_once('='))
            .map(|(cache, value)| (cache.trim().to_owned(), number(value.trim(), radix)))
            .collect()
    };
    let has: Vec<(String, String)> = schemata
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(other, _)| other.trim() == kind.trim())
        .flat_map(|(_, values)| parts(values))
        .collect();
    let wanted = parts(wanted);
    !wanted.is_empty() && wanted.iter().all(|part| has.contains(part))
}

/// A number without its leading zeros; what is none stays as it is.
fn number(text: &str, radix: u32) -> String {
    u64::from_str_radix(text, radix).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

#[cfg(test)]
#[path = "resctrl_tests.rs"]
mod tests;
