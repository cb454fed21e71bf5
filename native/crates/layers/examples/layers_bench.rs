//! The measurements of layers: `script/bench layers` builds and runs this, and its output is what docs quote.
//!
//! One layer of many files of this machine's /usr is unpacked by us and, in turns, by `tar -xzf` whose input `sha256sum` checks;
//! then eight smaller layers one by one and together. On the disk every unpacking ends with the file system synced, ours and the peer's.
//!
//! Trees on the disk stay until the end: ext4 without a journal looks at every inode that was removed in the last minutes, one by one,
//! whenever it makes a file (`recently_deleted`, fs/ext4/ialloc.c), so that what an earlier turn removed would be most of what is measured.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

const USAGE: &str = "usage: layers_bench [--rounds 5] [--only disk,tmpfs,parallel] [--dir /var/tmp] [--keep DIR] [--pack-only true] [--remove true]
  --rounds  unpackings of each side
  --only    some of the parts, by commas
  --dir     the disk's directory; one of its own below it is removed at the end
  --keep    the layers are kept in this directory, or taken from it
  --pack-only  makes them and ends
  --remove  trees on the disk are removed after their turn, as when a node replaces images";

/// Files up to this size are the many; the rest of the layer is larger ones.
const SMALL_BYTES_MAX: u64 = 128 * 1024;
const LARGE_BYTES_MAX: u64 = 8 << 20;
/// What the large layer holds: this many files, and this many bytes of content, uncompressed.
const FILES: usize = 40_000;
const BYTES: u64 = 480_000_000;
const PARALLEL_LAYERS: usize = 8;
/// How much of the peer's time ours may take.
const RATIO_MAX: f64 = 0.5;

/// What is unpacked, and checked to have been.
struct Layer {
    archive: PathBuf,
    digest: String,
    diff_id: String,
    bytes: u64,
}

struct Options {
    rounds: usize,
    only: Vec<String>,
    dir: PathBuf,
    keep: Option<PathBuf>,
    pack_only: bool,
    remove: bool,
}

/// Removes its directory, and unmounts it first where it was mounted.
struct Place {
    path: PathBuf,
    mounted: bool,
    /// Whether trees go after their turn; those that stay have names of their own.
    removes: bool,
}

impl Place {
    /// Memory is needed again; on the disk, removing would cost the next turn.
    fn done_with(&self, tree: &Path) -> Result<(), String> {
        if !self.removes {
            return Ok(());
        }
        fs::remove_dir_all(tree).map_err(|error| format!("removing {}: {error}", tree.display()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted {
            drop(Command::new("umount").arg(&self.path).status());
        }
        drop(fs::remove_dir_all(&self.path));
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(complaint) => {
            eprintln!("layers_bench: {complaint}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("layers_bench: {complaint}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        rounds: 5,
        only: Vec::new(),
        dir: "/var/tmp".into(),
        keep: None,
        pack_only: false,
        remove: false,
    };
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("option {word} needs a value"))?;
        match word.as_str() {
            "--rounds" => {
                options.rounds = value
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .ok_or_else(|| format!("--rounds {value:?} is not a number from 1 on"))?;
            }
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            "--dir" => options.dir = value.into(),
            "--keep" => options.keep = Some(value.into()),
            "--remove" => options.remove = value == "true",
            "--pack-only" => options.pack_only = value == "true",
            _ => return Err(format!("unknown option {word:?}")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), String> {
    let wants =
        |part: &str| options.only.is_empty() || options.only.iter().any(|name| name == part);
    let disk = place(&options.dir, false, options.remove)?;
    let memory = place(&options.dir, true, true)?;
    let archives = options.keep.clone().unwrap_or_else(|| disk.path.clone());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {}", load.trim());
    println!(
        "both sides: the same archive, in the page cache; everything synced before; on the disk a new directory each, {}",
        if options.remove {
            "removed after each turn"
        } else {
            "none removed before the end"
        }
    );
    let files = files_of(Path::new("/usr"))?;
    if wants("disk") || wants("tmpfs") {
        let archive = archives.join("large.tgz");
        if !archive.exists() {
            pack(&files, &archive)?;
        }
        let layer = measured(archive)?;
        println!(
            "one layer of {} files, {} MB as a tar, {} MB as gzip",
            FILES,
            layer.bytes / 1_000_000,
            size(&layer.archive)? / 1_000_000
        );
        for (name, place) in [("disk", &disk), ("tmpfs", &memory)] {
            if wants(name) && !options.pack_only {
                one_layer(name, &layer, place, options.rounds)?;
            }
        }
    }
    if wants("parallel") {
        let layers = (0..PARALLEL_LAYERS)
            .map(|at| {
                let part: Vec<PathBuf> = files
                    .iter()
                    .skip(at)
                    .step_by(PARALLEL_LAYERS)
                    .cloned()
                    .collect();
                let archive = archives.join(format!("{at}.tgz"));
                if !archive.exists() {
                    pack(&part, &archive)?;
                }
                measured(archive)
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (name, place) in [("disk", &disk), ("tmpfs", &memory)] {
            if options.pack_only {
                break;
            }
            several(name, &layers, place, options.rounds)?;
        }
    }
    Ok(())
}

fn place(dir: &Path, mounted: bool, removes: bool) -> Result<Place, String> {
    let kind = if mounted { "tmpfs" } else { "disk" };
    let path = dir.join(format!("shoal-layers-bench-{}-{kind}", std::process::id()));
    fs::create_dir_all(&path).map_err(|error| format!("making {}: {error}", path.display()))?;
    let mut place = Place {
        path,
        mounted: false,
        removes,
    };
    if !mounted {
        // Each tree in block groups of its own, away from what others removed just now; other file systems know no such attribute.
        drop(
            Command::new("chattr")
                .arg("+T")
                .arg(&place.path)
                .stderr(Stdio::null())
                .status(),
        );
    }
    if mounted {
        done(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "mode=700", "tmpfs"])
                .arg(&place.path),
        )?;
        place.mounted = true;
    }
    Ok(place)
}

/// The files, links and directories of the layer, always the same of the same tree: of the small ones each so many, and large ones up to the size.
fn files_of(root: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut small, mut large, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let failed = |error: std::io::Error| format!("reading {}: {error}", directory.display());
        let mut names: Vec<PathBuf> = fs::read_dir(&directory)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        names.sort();
        rest.push(directory);
        for path in names {
            let Ok(found) = fs::symlink_metadata(&path) else {
                continue;
            };
            if found.is_dir() {
                open.push(path);
            } else if found.is_symlink() {
                rest.push(path);
            } else if found.is_file() && found.size() <= SMALL_BYTES_MAX {
                small.push((path, found.size()));
            } else if found.is_file() && found.size() <= LARGE_BYTES_MAX {
                large.push((path, found.size()));
            }
        }
    }
    let step = (small.len() / FILES).max(1);
    let mut chosen: Vec<(PathBuf, u64)> = small.into_iter().step_by(step).take(FILES).collect();
    let mut bytes: u64 = chosen.iter().map(|(_, size)| size).sum();
    let step = (large.len() / 200).max(1);
    for (path, size) in (0..step).flat_map(|at| large.iter().skip(at).step_by(step)) {
        if bytes + size <= BYTES {
            bytes += size;
            chosen.push((path.clone(), *size));
        }
    }
    let mut all: Vec<PathBuf> = chosen.into_iter().map(|(path, _)| path).collect();
    // Links and directories as they come with the files; every directory is there before what is in it.
    let used: std::collections::HashSet<PathBuf> = all
        .iter()
        .flat_map(|path| {
            path.ancestors()
                .skip(1)
                .map(Path::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    all.extend(
        rest.into_iter()
            .filter(|path| used.contains(path) || path.is_symlink()),
    );
    all.sort();
    Ok(all)
}

/// A gzip -6 layer of these files, without what is below directories.
fn pack(files: &[PathBuf], archive: &Path) -> Result<(), String> {
    let mut tar = Command::new("bash")
        .args(["-c", "set -o pipefail; tar -C / --create --no-recursion --null --files-from=- --file=- | gzip -6 >\"$1\"", "bash"])
        .arg(archive)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("running tar: {error}"))?;
    let mut input = tar.stdin.take().ok_or("tar has no input")?;
    for file in files {
        let bytes = file.as_os_str().as_bytes();
        let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
        input
            .write_all(&[relative, b"\0"].concat())
            .map_err(|error| format!("writing the list of files: {error}"))?;
    }
    drop(input);
    let status = tar
        .wait()
        .map_err(|error| format!("waiting for tar: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("packing {}: {status}", archive.display()))
}

/// Digests by the machine's own programs, which ours must agree with, and the size as gzip's last four bytes have it.
fn measured(archive: PathBuf) -> Result<Layer, String> {
    let output = Command::new("bash")
        .args([
            "-c",
            "set -o pipefail; sha256sum <\"$1\"; gzip -dc <\"$1\" | sha256sum; tail -c 4 <\"$1\" | od -An -tu4",
            "bash",
        ])
        .arg(&archive)
        .output()
        .map_err(|error| format!("running sha256sum: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let (Some(digest), Some(diff_id), Some(bytes)) = (words.next(), words.next(), words.next())
    else {
        return Err(format!("measuring {}: {text:?}", archive.display()));
    };
    Ok(Layer {
        digest: format!("sha256:{digest}"),
        diff_id: format!("sha256:{diff_id}"),
        bytes: bytes
            .parse()
            .map_err(|_| format!("gzip's length is {bytes:?}"))?,
        archive,
    })
}

fn one_layer(name: &str, layer: &Layer, place: &Place, rounds: usize) -> Result<(), String> {
    let (mut ours, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut our_cpu, mut peer_cpu) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let turn = |us: bool| -> Result<Took, String> {
            let destination = place
                .path
                .join(format!("{}-{round}", if us { "shoal" } else { "tar" }));
            sync();
            let seconds = if us {
                timed(|| unpack(layer, &destination))?
            } else {
                fs::create_dir(&destination)
                    .map_err(|error| format!("making {}: {error}", destination.display()))?;
                timed(|| tar_and_sum(layer, &destination))?
            };
            if round == 0 {
                let count = count(&destination)?;
                println!(
                    "  {} wrote {count} entries",
                    if us { "shoal" } else { "tar" }
                );
            }
            place.done_with(&destination)?;
            Ok(seconds)
        };
        let (first, second) = (turn(round % 2 == 0)?, turn(round % 2 != 0)?);
        let (our, peer) = if round % 2 == 0 {
            (first, second)
        } else {
            (second, first)
        };
        ours.push(our.wall);
        peers.push(peer.wall);
        ratios.push(our.wall / peer.wall);
        our_cpu.push(our.cpu);
        peer_cpu.push(peer.cpu);
    }
    println!(
        "  processors' time: shoal {:.2} s, tar and the others {:.2} s",
        median(&mut our_cpu),
        median(&mut peer_cpu)
    );
    let ratio = median(&mut ratios);
    println!(
        "| {name}: one layer | {:.2} s | {:.2} s | {ratio:.2} | at most {RATIO_MAX} | {} |",
        median(&mut ours),
        median(&mut peers),
        if ratio <= RATIO_MAX { "met" } else { "not met" }
    );
    Ok(())
}

fn several(name: &str, layers: &[Layer], place: &Place, rounds: usize) -> Result<(), String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut together, mut alone, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let turn = |threads: usize, turn: usize| -> Result<Took, String> {
            let tree = place.path.join(format!("trees-{round}-{turn}"));
            fs::create_dir(&tree).map_err(|error| format!("making {}: {error}", tree.display()))?;
            sync();
            let next = std::sync::atomic::AtomicUsize::new(0);
            let seconds = timed(|| {
                std::thread::scope(|scope| {
                    let works: Vec<_> = (0..threads)
                        .map(|_| {
                            scope.spawn(|| {
                                loop {
                                    let at =
                                        next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                    let Some(layer) = layers.get(at) else {
                                        return Ok(());
                                    };
                                    unpack(layer, &tree.join(at.to_string()))?;
                                }
                            })
                        })
                        .collect();
                    works.into_iter().try_for_each(|work| {
                        work.join().map_err(|_| "a thread panicked".to_owned())?
                    })
                })
            })?;
            place.done_with(&tree)?;
            Ok(seconds)
        };
        let counts = if round % 2 == 0 {
            [threads, 1]
        } else {
            [1, threads]
        };
        let (first, second) = (turn(counts[0], 0)?, turn(counts[1], 1)?);
        let (many, one) = if round % 2 == 0 {
            (first, second)
        } else {
            (second, first)
        };
        together.push(many.wall);
        alone.push(one.wall);
        ratios.push(many.wall / one.wall);
    }
    let ratio = median(&mut ratios);
    println!(
        "| {name}: {} layers of {} MB, {threads} at once beside one by one | {:.2} s | {:.2} s | {ratio:.2} | below 1 | {} |",
        layers.len(),
        layers.iter().map(|layer| layer.bytes).sum::<u64>() / layers.len() as u64 / 1_000_000,
        median(&mut together),
        median(&mut alone),
        if ratio < 1.0 { "met" } else { "not met" }
    );
    Ok(())
}

fn unpack(layer: &Layer, destination: &Path) -> Result<(), String> {
    let answer: Value = shoal_layers::unpack(&json!({
        "archive": layer.archive,
        "digest": layer.digest,
        "diffId": layer.diff_id,
        "destination": destination,
    }))
    .map_err(|failure| failure.to_string())?;
    if answer["bytes"] == layer.bytes {
        return Ok(());
    }
    Err(format!("unpacking answered {answer}"))
}

/// `tar -xzf` of what `sha256sum` reads too; the file system synced at the end, as ours is.
fn tar_and_sum(layer: &Layer, destination: &Path) -> Result<(), String> {
    let output = Command::new("bash")
        .args([
            "-c",
            "set -o pipefail; { tee /dev/fd/3 <\"$1\" | tar -xzf - -C \"$2\"; } 3>&1 | sha256sum && sync -f \"$2\"",
            "bash",
        ])
        .arg(&layer.archive)
        .arg(destination)
        .output()
        .map_err(|error| format!("running tar: {error}"))?;
    let sum = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success()
        && layer.digest.strip_prefix("sha256:") == sum.split_whitespace().next()
    {
        return Ok(());
    }
    Err(format!(
        "tar: {}: {sum} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Wall time, and the processors' time of this process and of those that it has waited for.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<Took, String> {
    let (began, before) = (Instant::now(), cpu());
    work()?;
    Ok(Took {
        wall: began.elapsed().as_secs_f64(),
        cpu: cpu() - before,
    })
}

fn cpu() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            // SAFETY: rusage is plain data.
            let mut used: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: the struct is writable and lives over the call.
            unsafe { libc::getrusage(who, &raw mut used) };
            let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            seconds(used.ru_utime) + seconds(used.ru_stime)
        })
        .sum()
}

fn count(directory: &Path) -> Result<usize, String> {
    let output = Command::new("find")
        .arg(directory)
        .args(["-printf", "x"])
        .output()
        .map_err(|error| format!("running find: {error}"))?;
    Ok(output.stdout.len())
}

fn size(path: &Path) -> Result<u64, String> {
    File::open(path)
        .and_then(|file| file.metadata())
        .map(|found| found.len())
        .map_err(|error| format!("reading {}: {error}", path.display()))
}

fn done(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// What earlier turns have left to write is no part of this one.
fn sync() {
    drop(Command::new("sync").status());
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
