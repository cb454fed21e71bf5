//! Making a container: from a bundle to a parked init and a record, or to nothing at all.

use crate::adapted::Adapted;
use crate::args::Parsed;
use crate::bundle::Bundle;
use crate::context::{Context, absolute};
use crate::foreground::write_pid_file;
use crate::kept::Groups;
use crate::resctrl::Assignment;
use crate::stop::Stop;
use crate::store::{Home, Identity, Record, START_SOCKET, check_id};
use crate::time::rfc3339;
use shoal_protocol::Failure;
use shoal_protocol::oci::{Process, Seccomp, Status};
use shoal_runtime::cgroup::detect::Layout;
use shoal_runtime::cgroup::{self, Access, Driver};
use shoal_runtime::launch::{self, Options, Park, Parked};
use shoal_runtime::plan::{self, Input, Plan, RootSource};
use shoal_runtime::streams::Stdio;
use shoal_runtime::sys::{process, socket};
use shoal_seccomp::Program;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What the flags of `create` and `run` say.
pub struct Request {
    pub id: String,
    pub bundle: Option<String>,
    pub config: Option<String>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// The container goes on without this command: `create`, or `run --detach`.
    pub detach: bool,
    /// The container waits for `start`.
    pub parks: bool,
}

impl Request {
    /// Reads the flags; paths are from the working directory of now.
    pub fn read(parsed: &Parsed, parks: bool) -> Result<Self, Stop> {
        let path = |long: &str| -> Result<Option<PathBuf>, Stop> {
            parsed
                .text(long)
                .filter(|path| !path.is_empty())
                .map(absolute)
                .transpose()
        };
        Ok(Self {
            id: parsed.operands[0].clone(),
            bundle: parsed.text("bundle").map(str::to_owned),
            config: parsed.text("config").map(str::to_owned),
            pid_file: path("pid-file")?,
            console_socket: path("console-socket")?,
            pidfd_socket: path("pidfd-socket")?,
            preserve_fds: parsed.number("preserve-fds")?.unwrap_or(0),
            no_pivot: parsed.on("no-pivot"),
            no_new_keyring: parsed.on("no-new-keyring"),
            detach: parks || parsed.on("detach"),
            parks,
        })
    }
}

/// A container that has been made; its lock is held.
pub struct Made {
    pub home: Home,
    pub record: Record,
    pub parked: Parked,
    /// Where the master of a foreground terminal arrives.
    pub console: Option<OwnedFd>,
    /// The filter's section, when it notifies an agent.
    pub notifying: Option<Seccomp>,
}

/// Makes the container. When it fails nothing is left behind.
pub fn make(context: &Context<'_>, request: &Request) -> Result<Made, Stop> {
    let mut bundle = Bundle::read(request.bundle.as_deref(), request.config.as_deref())?;
    let process = &mut bundle.spec.process;
    check_process(process)?;
    check_terminal(
        process.terminal,
        request.detach,
        request.console_socket.as_deref(),
    )?;
    let preserve_fds = context.pass_descriptors(request.preserve_fds, &mut process.env)?;
    check_id(&request.id)?;
    let linux = &bundle.spec.linux;
    let group = cgroup::paths::resolve(&linux.cgroups_path, context.systemd, &request.id)?;
    let seccomp = context.filter(linux.seccomp.as_ref())?;
    let access = if linux.cgroups_path.is_empty() && context.rootless {
        Access::Optional
    } else {
        Access::Required
    };
    let layout = context.layout()?;
    let mut driver = Adapted::of(&layout, access);
    if context.cgroups_disabled {
        driver.inner = None;
    }
    let mut plan = Plan::new(Input {
        container_id: request.id.clone(),
        spec: std::mem::take(&mut bundle.spec),
        root: RootSource::Directory(bundle.rootfs.clone()),
        cgroup: group,
    })?;
    plan.keep_groups = plan::keeps_groups(&plan.spec);
    let resctrl = context.resctrl(&request.id, plan.spec.linux.intel_rdt.as_ref())?;
    for warning in plan.warnings() {
        context.log.warning(&warning);
    }
    // Hooks and relative paths of the configuration start from the bundle.
    process::change_dir(&bundle.path)
        .map_err(|error| Failure::io(format!("entering bundle {}", bundle.path), &error))?;

    let home = context.root.reserve(&request.id)?;
    let mut draft = Draft {
        request,
        plan: &plan,
        home,
        driver,
        resctrl,
        init: None,
    };
    match draft.build(context, &layout, &bundle, preserve_fds, seccomp.as_ref()) {
        Ok((record, parked, console)) => Ok(Made {
            home: draft.home,
            record,
            parked,
            console,
            notifying: seccomp
                .as_ref()
                .filter(|filter| filter.notifies())
                .and_then(|_| plan.spec.linux.seccomp.clone()),
        }),
        Err(stop) => {
            draft.undo(context);
            Err(stop)
        }
    }
}

/// A container that is being made.
struct Draft<'a> {
    request: &'a Request,
    plan: &'a Plan,
    home: Home,
    driver: Adapted,
    resctrl: Option<Assignment>,
    init: Option<i32>,
}

impl Draft<'_> {
    fn build(
        &mut self,
        context: &Context<'_>,
        layout: &Layout,
        bundle: &Bundle,
        preserve_fds: u32,
        seccomp: Option<&Program>,
    ) -> Result<(Record, Parked, Option<OwnedFd>), Stop> {
        let (request, spec) = (self.request, &self.plan.spec);
        let mut record = Record {
            oci_version: spec.oci_version.clone(),
            id: request.id.clone(),
            bundle: bundle.path.clone(),
            rootfs: bundle.rootfs.display().to_string(),
            created: rfc3339(std::time::SystemTime::now(), true),
            annotations: spec.annotations.clone(),
            init: None,
            creator: Identity::of(i32::try_from(std::process::id()).unwrap_or(0))?,
            boot_id: self.home.boot_id()?,
            cgroup: if context.cgroups_disabled {
                String::new()
            } else {
                self.plan.cgroup.clone()
            },
            groups: Groups::from(layout),
            filtered: seccomp.is_some(),
            own_pid_namespace: self.plan.makes(libc::CLONE_NEWPID),
            resctrl: self.resctrl.clone(),
            poststart: spec.hooks.poststart.clone(),
            poststop: spec.hooks.poststop.clone(),
        };
        self.home.write(&record)?;
        let (stdio, console) = stdio(
            spec.process.terminal,
            request.detach,
            request.console_socket.as_deref(),
        )?;
        let park = if request.parks {
            Park::Socket {
                dir: self.home.dir(),
                name: START_SOCKET,
            }
        } else {
            Park::Channel
        };
        let log = context.log;
        log.debug(|| format!("nsexec container setup: cloning init of {}", record.id));
        if let Some(filter) = seccomp {
            log.debug(|| format!("seccomp filter flags: {}", filter.flags));
        }
        let parked = launch::create(
            self.plan,
            &Options {
                driver: &self.driver,
                stdio,
                preserve_fds,
                park,
                state: Some(record.state(Status::Creating)),
                seccomp,
                held: &[],
                no_pivot: request.no_pivot,
                no_new_keyring: request.no_new_keyring,
                meanwhile: &|pid| {
                    if let Some(resctrl) = &self.resctrl {
                        resctrl.enter(pid)?;
                    }
                    self.home.write_for_exec(spec, seccomp)
                },
                root: None,
                network: None,
            },
        )?;
        self.init = Some(parked.pid);
        log.debug(|| {
            format!(
                "child process in init(): process {} has built its root",
                parked.pid
            )
        });
        record.init = Some(Identity::of(parked.pid)?);
        self.home.write(&record)?;
        if let Some(path) = &request.pidfd_socket {
            send_pidfd(path, parked.pidfd.as_fd())?;
        }
        if let Some(path) = &request.pid_file {
            write_pid_file(path, parked.pid)?;
        }
        Ok((record, parked, console))
    }

    /// Takes back whatever was made so far; what cannot be taken back is told.
    fn undo(self, context: &Context<'_>) {
        if let Some(pid) = self.init {
            // It is our child and not waited for yet, so that the number is its own.
            drop(process::signal(pid, libc::SIGKILL));
            drop(process::wait(pid, 0));
        }
        // Only a group that the creation has made is this container's to remove.
        if self.init.is_some()
            && let Err(failure) = self.driver.remove(&self.plan.cgroup)
        {
            context.log.warning(&failure.to_string());
        }
        if let Some(resctrl) = &self.resctrl
            && let Err(failure) = resctrl.remove()
        {
            context.log.warning(&failure.to_string());
        }
        if let Err(failure) = self.home.remove() {
            context.log.warning(&failure.to_string());
        }
    }
}

/// What runc, crun and the specification ask of a process before anything is made of it.
pub fn check_process(process: &Process) -> Result<(), Stop> {
    if process.cwd.is_empty() {
        return Err(Stop::new(
            "reading process.cwd: Cwd property must not be empty; name an absolute path",
        ));
    }
    if process.args.is_empty() {
        return Err(Stop::new(
            "reading process.args: args must not be empty; give the command to run",
        ));
    }
    Ok(())
}

/// Refuses a terminal that nobody would get, and a socket that nothing would come to.
pub fn check_terminal(terminal: bool, detach: bool, socket: Option<&Path>) -> Result<(), Stop> {
    match (detach && terminal, socket) {
        (true, None) => Err(Stop::new(
            "cannot allocate tty if the command will detach without setting --console-socket",
        )),
        (false, Some(path)) => Err(Stop::new(format!(
            "cannot use --console-socket {} if the command will not detach or allocate tty",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Where the standard streams go, and where a foreground terminal's master will arrive.
pub fn stdio(
    terminal: bool,
    detach: bool,
    console: Option<&Path>,
) -> Result<(Stdio, Option<OwnedFd>), Stop> {
    if !terminal {
        return Ok((Stdio::Inherit, None));
    }
    if detach {
        let path = console.unwrap_or(Path::new(""));
        let console_socket = connect("--console-socket", path)?;
        return Ok((Stdio::Terminal { console_socket }, None));
    }
    let (ours, theirs) =
        socket::pair().map_err(|error| Failure::io("making a socket for the terminal", &error))?;
    let stdio = Stdio::Terminal {
        console_socket: theirs,
    };
    Ok((stdio, Some(ours)))
}

/// Sends a descriptor of the new process to whoever listens at `path`.
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<(), Stop> {
    let socket = connect("--pidfd-socket", path)?;
    socket::send_with_fds(socket.as_fd(), b"pidfd", &[pidfd]).map_err(|error| {
        Failure::io(
            format!("sending to --pidfd-socket {}", path.display()),
            &error,
        )
        .into()
    })
}

fn connect(flag: &str, path: &Path) -> Result<OwnedFd, Stop> {
    UnixStream::connect(path)
        .map(OwnedFd::from)
        .map_err(|error| {
            Failure::io(format!("connecting to {flag} {}", path.display()), &error).into()
        })
}
