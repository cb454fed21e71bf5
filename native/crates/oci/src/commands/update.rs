//! `update`: other limits for a container that exists.

use crate::args::Parsed;
use crate::bundle;
use crate::container::Container;
use crate::context::Context;
use crate::stop::Stop;
use shoal_protocol::oci::{self, BlockIo, Cpu, Memory, Pids, Resources, Status};
use std::io::Read;
use std::path::Path;

/// Flags of figures that the kernel no longer limits by.
const IGNORED: [&str; 2] = ["kernel-memory", "kernel-memory-tcp"];
/// Flags of lines for the container's class in resctrl.
const SCHEMAS: [&str; 2] = ["l3-cache-schema", "mem-bw-schema"];

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let schemas: Vec<String> = SCHEMAS
        .iter()
        .filter_map(|flag| parsed.text(flag).filter(|line| !line.is_empty()))
        .map(str::to_owned)
        .collect();
    let mut resources = match parsed.text("resources").filter(|path| !path.is_empty()) {
        Some(path) => read(path)?,
        None => from_flags(parsed)?,
    };
    let memory = resources.memory.get_or_insert_default();
    if IGNORED.iter().any(|flag| parsed.text(flag).is_some())
        || memory.kernel.is_some()
        || memory.kernel_tcp.is_some()
    {
        context
            .log
            .warning("Kernel memory settings are ignored and will be removed");
        (memory.kernel, memory.kernel_tcp) = (None, None);
    }
    // Devices are what the container was made with; only limits are changed here.
    resources.devices.clear();
    let container = Container::find_locked(context, &parsed.operands[0])?;
    if container.status() == Status::Stopped {
        return Err(Stop::new("container not running"));
    }
    let resctrl = container.record.resctrl.as_ref();
    if !schemas.is_empty() && resctrl.is_none() {
        return Err(Stop::new(
            "--l3-cache-schema, --mem-bw-schema: updating a non-existent Intel RDT configuration is not supported; create the container with linux.intelRdt",
        ));
    }
    let Some((driver, path)) = container.group() else {
        return Err(Stop::new(format!(
            "container {:?} has no control group to limit",
            container.record.id
        )));
    };
    driver.update(path, &resources)?;
    if let Some(resctrl) = resctrl {
        resctrl.set(&schemas)?;
    }
    Ok(0)
}

fn read(path: &str) -> Result<Resources, Stop> {
    let bytes = if path == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .take(bundle::CONFIG_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| {
                Stop::new(format!("reading --resources from standard input: {error}"))
            })?;
        bytes
    } else {
        bundle::read(Path::new(path))?
    };
    Ok(oci::parse("resources", &bytes)?)
}

fn from_flags(parsed: &Parsed) -> Result<Resources, Stop> {
    let text = |flag: &str| {
        parsed
            .text(flag)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    let bytes = |flag: &str| -> Result<Option<i64>, Stop> {
        text(flag)
            .map(|value| {
                bytes_of(&value).ok_or_else(|| {
                    Stop::new(format!(
                        "invalid value for --{flag}: {value:?} is no number of bytes such as 512m"
                    ))
                })
            })
            .transpose()
    };
    let mut cpu = Cpu {
        shares: parsed.number("cpu-share")?,
        quota: parsed.number("cpu-quota")?,
        burst: parsed.number("cpu-burst")?,
        period: parsed.number("cpu-period")?,
        realtime_runtime: parsed.number("cpu-rt-runtime")?,
        realtime_period: parsed.number("cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        idle: parsed.number("cpu-idle")?,
    };
    if cpu.idle.is_some() && cpu.shares.is_none() {
        // An idle group has no weight.
        cpu.shares = Some(0);
    }
    let memory = Memory {
        limit: bytes("memory")?,
        reservation: bytes("memory-reservation")?,
        swap: bytes("memory-swap")?,
        ..Memory::default()
    };
    let weight: Option<u16> = parsed.number("blkio-weight")?;
    Ok(Resources {
        cpu: Some(cpu),
        memory: Some(memory),
        pids: parsed
            .number("pids-limit")?
            .map(|limit| Pids { limit: Some(limit) }),
        block_io: weight.filter(|weight| *weight > 0).map(|weight| BlockIo {
            weight: Some(weight),
            ..BlockIo::default()
        }),
        ..Resources::default()
    })
}

/// `512m`, `1.5GiB`, `100`, `-1`: powers of 1024, as docker reads them.
fn bytes_of(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit
        .strip_suffix('b')
        .unwrap_or(&unit)
        .trim_end_matches('i')
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024i64.pow(power);
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    /// Above it a float does not tell one byte from the next.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes <= EXACT_MAX).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args, table};

    #[test]
    fn bytes_of_reads_what_docker_reads() {
        for (text, want) in [
            ("100", Some(100)),
            ("512m", Some(512 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2 kB", Some(2048)),
            ("-1", Some(-1)),
            ("-2", None),
            ("", None),
            ("m", None),
            ("1x", None),
            ("9223372036854775807k", None),
        ] {
            assert_eq!(bytes_of(text), want, "{text}");
        }
    }

    #[test]
    fn flags_become_limits() {
        let flags = table::find("update").expect("update").flags;
        let line = "--memory 64m --cpu-quota=-1 --pids-limit -1 --cpu-idle 1 id";
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let read = from_flags(&args::parse(flags, &words, false).expect("flags")).expect("limits");
        assert_eq!(read.memory.and_then(|memory| memory.limit), Some(64 << 20));
        let cpu = read.cpu.expect("cpu");
        assert_eq!(
            (cpu.quota, cpu.idle, cpu.shares),
            (Some(-1), Some(1), Some(0))
        );
        assert_eq!(read.pids.and_then(|pids| pids.limit), Some(-1));
    }
}
