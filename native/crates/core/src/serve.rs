//! The resident core: one unix socket, many connections, requests answered as they are done.

use crate::containers::Containers;
use crate::hub::Peer;
use crate::lanes::{Job, Lane};
use crate::pool::Pool;
use crate::store::Store;
use crate::streaming;
use crate::zygote::Zygote;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_net::{NetConfig, NetHandler};
use shoal_protocol::calls::{self, ById, CallName, Delete, Exec, Head, Hello, Kill};
use shoal_protocol::{Failure, FailureCode, VERSION, read_frame};
use shoal_runtime::cgroup::{self, detect};
use shoal_runtime::rlimits;
use shoal_runtime::sys::{affinity, file, process, socket};
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most connections at once.
const CONNECTIONS_MAX: usize = 512;
/// Containers are made and ended by at most this many threads at once, with as many more calls waiting.
const CONTAINER_THREADS_MAX: usize = 32;
const CONTAINER_CALLS_MAX: usize = 4096;
/// Besides these, so many are made by the threads that have read the calls.
const AT_ONCE_MAX: usize = 16;
/// Network calls keep their order: one thread.
const NETWORK_CALLS_MAX: usize = 4096;
/// Each has threads for its stages; more at once than there are cores would only take memory.
const UNPACK_THREADS_MAX: usize = 16;
const UNPACK_CALLS_MAX: usize = 1024;

/// How `shoal-core serve` was asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub root: PathBuf,
    pub socket: PathBuf,
    /// Where a container without linux.cgroupsPath gets its groups.
    pub cgroup_parent: String,
    /// Sandboxes kept ready; 0 for none.
    pub pool: usize,
}

/// Serves until `shutdown` or a signal; returns only with the reason why it could not start or go on.
pub fn run(options: &Options) -> Result<(), Failure> {
    let store = Store::open(&options.root)?;
    let doing = |what: &str, error: std::io::Error| Failure::io(what, &error);
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| doing("reading mountinfo", error))?;
    let layout = detect::layout(&mountinfo);
    let open_files =
        rlimits::open_files().map_err(|error| doing("reading RLIMIT_NOFILE", error))?;
    affinity::remember_home();
    // Before any thread, though it is another program: the first container should not wait for it.
    let zygote = Zygote::start(open_files)?;
    rlimits::raise_open_files().map_err(|error| doing("raising RLIMIT_NOFILE", error))?;
    let containers = Containers::new(
        store,
        zygote,
        cgroup::driver(&layout),
        options.cgroup_parent.clone(),
        Pool::new(options.pool),
    )?;
    containers.recover()?;
    let asked = Arc::clone(&containers);
    containers.set_net(NetHandler::new(NetConfig {
        netns_dir: options
            .root
            .parent()
            .unwrap_or(Path::new("/"))
            .join("netns"),
        state_dir: options.root.join(".net"),
        container_netns: Box::new(move |id| asked.network_namespace(id)),
    })?);
    let listener = listen(&options.socket)?;
    watch(&containers)?;
    containers.keep_parked()?;
    let server = Arc::new(Server {
        containers,
        cgroup: layout.mode.name(),
        socket: options.socket.clone(),
        container_lane: Lane::new("container", CONTAINER_THREADS_MAX, CONTAINER_CALLS_MAX),
        network_lane: Lane::new("network", 1, NETWORK_CALLS_MAX),
        unpack_lane: Lane::new("unpack", unpack_threads(), UNPACK_CALLS_MAX),
        conversations: Lane::new("connection", CONNECTIONS_MAX + AT_ONCE_MAX, CONNECTIONS_MAX),
        connections: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
    });
    loop {
        let (stream, _) = listener
            .accept()
            .map_err(|error| doing("accepting a connection", error))?;
        // Closing tells a client beyond the limit; it may try again.
        if let Some(conversation) = Conversation::begin(&server, stream) {
            let listen = |conversation: Conversation| -> Job { Box::new(|| conversation.go_on()) };
            drop(server.conversations.push_made(conversation, listen));
        }
    }
}

/// As many layers at once as there are cores.
fn unpack_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(UNPACK_THREADS_MAX))
}

/// Binds the socket with mode 0600, replacing one that nobody answers at.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let task = format!("listening at {}", path.display());
    let invalid = || Failure::invalid(&task, "it is not a path of a file; give --socket DIR/NAME");
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(invalid)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let bind = || -> std::io::Result<OwnedFd> {
        std::fs::create_dir_all(parent)?;
        let dir = file::open(&parent.to_string_lossy(), libc::O_PATH | libc::O_DIRECTORY)?;
        let near = PathBuf::from(file::proc_path(&dir)).join(name);
        match std::fs::symlink_metadata(&near) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Only a socket that nobody answers at is ours to replace.
            Ok(there) if there.file_type().is_socket() && UnixStream::connect(&near).is_err() => {
                std::fs::remove_file(&near)?;
            }
            Ok(_) => return Err(std::io::Error::from_raw_os_error(libc::EADDRINUSE)),
            Err(error) => return Err(error),
        }
        let before = process::set_umask(0o177);
        let socket = socket::listen(dir.as_fd(), name, libc::SOCK_STREAM, 128);
        process::set_umask(before);
        socket
    };
    bind()
        .map(UnixListener::from)
        .map_err(|error| Failure::io(&task, &error))
}

fn watch(containers: &Arc<Containers>) -> Result<(), Failure> {
    let containers = Arc::clone(containers);
    let spawned = std::thread::Builder::new()
        .name("watcher".into())
        .spawn(move || {
            let ended = containers
                .watcher
                .run(&|token, heard| containers.heard(token, heard));
            // Blind to exits the core is of no use: shoald starts another, which finds everything on disk.
            eprintln!("shoal-core: watching monitors: {ended:?}; ending");
            std::process::exit(1);
        });
    spawned
        .map(drop)
        .map_err(|error| Failure::io("starting the watcher", &error))
}

struct Server {
    containers: Arc<Containers>,
    cgroup: &'static str,
    socket: PathBuf,
    container_lane: Lane,
    network_lane: Lane,
    unpack_lane: Lane,
    /// A thread for each connection, and one more for each call that its reader carries out itself.
    conversations: Lane,
    connections: AtomicUsize,
    /// Calls that are carried out by those who have read them.
    at_once: AtomicUsize,
}

/// One connection: whoever has it reads the next request.
struct Conversation {
    server: Arc<Server>,
    reader: BufReader<UnixStream>,
    peer: Arc<Peer>,
    greeted: bool,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

type Answer = Result<Value, Failure>;

impl Conversation {
    /// None when there are too many already.
    fn begin(server: &Arc<Server>, stream: UnixStream) -> Option<Self> {
        let reader = BufReader::new(stream.try_clone().ok()?);
        let peer = Peer::new(stream).map(Arc::new).ok()?;
        let server = Arc::clone(server);
        let before = server.connections.fetch_add(1, Ordering::Relaxed);
        let conversation = Self {
            server,
            reader,
            peer,
            greeted: false,
        };
        (before < CONNECTIONS_MAX).then_some(conversation)
    }

    /// Until the connection closes or sends what is not a frame, or another thread goes on.
    fn go_on(mut self) {
        while let Ok(Some(body)) = read_frame(&mut self.reader) {
            let peer = &self.peer;
            let head = match serde_json::from_slice::<Head>(&body) {
                Ok(head) => head,
                Err(error) => {
                    // Without an id there is nobody to answer.
                    let Some(id) = id_of(&body) else { return };
                    peer.send(&calls::reply(
                        id,
                        &Err(Failure::invalid("reading a request", error.to_string())),
                    ));
                    continue;
                }
            };
            match head.call {
                CallName::Hello => {
                    self.greeted = self.server.hello(peer, head.id, &body) || self.greeted;
                }
                call if call.is_stream() && !self.greeted => return self.stream(&head, &body),
                _ if !self.greeted => {
                    let failure = Failure::new(
                        FailureCode::Conflict,
                        "reading a request",
                        "the first call of a connection is hello",
                    );
                    peer.send(&calls::reply(head.id, &Err(failure)));
                }
                call => {
                    let (server, peer) = (Arc::clone(&self.server), Arc::clone(peer));
                    let somebody_waits = matches!(call, CallName::Create | CallName::Run);
                    let turn = somebody_waits.then(|| AtOnce::enter(&server)).flatten();
                    let Some(_turn) = turn else {
                        server.queue(&peer, head, body);
                        continue;
                    };
                    // Handing the call over would cost more than handing over what is only listening.
                    let listen = |conversation: Self| -> Job { Box::new(|| conversation.go_on()) };
                    match Arc::clone(&server).conversations.push_made(self, listen) {
                        None => return server.carry_out(&peer, head, &body),
                        Some(conversation) => self = conversation,
                    }
                    server.queue(&peer, head, body);
                }
            }
        }
    }

    fn stream(self, head: &Head, body: &[u8]) {
        // What the client sent ahead of the answer would be lost.
        let ahead = !self.reader.buffer().is_empty();
        let Ok(stream) = self.reader.get_ref().try_clone() else {
            return;
        };
        streaming::begin(
            &self.server.containers,
            &self.peer,
            head,
            body,
            stream,
            ahead,
        );
    }
}

/// A call that is carried out by whoever has read it; there are at most `AT_ONCE_MAX` at once.
struct AtOnce(Arc<Server>);

impl AtOnce {
    fn enter(server: &Arc<Server>) -> Option<Self> {
        let before = server.at_once.fetch_add(1, Ordering::Relaxed);
        let turn = Self(Arc::clone(server));
        (before < AT_ONCE_MAX).then_some(turn)
    }
}

impl Drop for AtOnce {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn hello(&self, peer: &Arc<Peer>, id: u64, body: &[u8]) -> bool {
        let hello: Hello = match parse("hello", body) {
            Ok(hello) => hello,
            Err(failure) => {
                peer.send(&calls::reply(id, &Err(failure)));
                return false;
            }
        };
        if hello.version != VERSION {
            let failure = Failure::invalid(
                format!("greeting version {}", hello.version),
                format!(
                    "this shoal-core speaks version {VERSION}; install shoald and shoal-core of one release"
                ),
            );
            peer.send(&calls::reply(id, &Err(failure)));
            return false;
        }
        let value = json!({"version": VERSION, "pid": std::process::id(), "binary": crate::BINARY, "cgroup": self.cgroup});
        self.containers
            .hub
            .join(peer, &calls::reply(id, &Ok(value)));
        for event in self.containers.outstanding() {
            peer.send(&event);
        }
        true
    }

    fn queue(self: &Arc<Self>, peer: &Arc<Peer>, head: Head, body: Vec<u8>) {
        let lane = match head.call {
            CallName::Network | CallName::NetworkDump | CallName::Resolver => &self.network_lane,
            CallName::Unpack | CallName::Commit => &self.unpack_lane,
            _ => &self.container_lane,
        };
        let (this, answered) = (Arc::clone(self), Arc::clone(peer));
        let id = head.id;
        let queued = lane.push(Box::new(move || this.carry_out(&answered, head, &body)));
        if !queued {
            let failure = Failure::new(
                FailureCode::Full,
                "queueing a request",
                "too many calls of this kind are waiting; try again later",
            );
            peer.send(&calls::reply(id, &Err(failure)));
        }
    }

    fn carry_out(&self, peer: &Peer, head: Head, body: &[u8]) {
        let Head { id, call } = head;
        // Until it is answered, so that the answer does not wait for what is done when nobody waits.
        let _busy = matches!(call, CallName::Create | CallName::Run | CallName::Start)
            .then(|| self.containers.busy());
        let answer = self.answer(call, body);
        peer.send(&calls::reply(id, &answer));
        if call == CallName::Shutdown {
            // Containers, monitors and networks stay; a new core finds them. A socket left behind is replaced.
            self.containers.close();
            drop(std::fs::remove_file(&self.socket));
            std::process::exit(0);
        }
    }

    fn answer(&self, call: CallName, body: &[u8]) -> Answer {
        let containers = &self.containers;
        let done = |()| json!({});
        match call {
            CallName::Hello | CallName::Shutdown => Ok(json!({})),
            CallName::Create => containers.create(body).map(|pid| json!({"pid": pid})),
            CallName::Run => containers
                .run(body)
                .map(|(pid, started_at_ms)| json!({"pid": pid, "startedAtMs": started_at_ms})),
            CallName::Start => containers
                .start(&parse::<ById>("start", body)?.container_id)
                .map(done),
            CallName::Kill => {
                let kill: Kill = parse("kill", body)?;
                containers
                    .kill(&kill.container_id, &kill.signal, kill.all)
                    .map(done)
            }
            CallName::Delete => {
                let delete: Delete = parse("delete", body)?;
                containers
                    .delete(&delete.container_id, delete.force)
                    .map(done)
            }
            CallName::State => {
                let state = containers.state(&parse::<ById>("state", body)?.container_id)?;
                Ok(serde_json::to_value(state).expect("plain data"))
            }
            CallName::List => Ok(json!({"containers": containers.list()})),
            CallName::Pids => containers
                .pids(&parse::<ById>("pids", body)?.container_id)
                .map(|pids| json!({"pids": pids})),
            CallName::Exec => {
                let exec: Exec = parse("exec", body)?;
                if exec.attached() {
                    return Err(streaming::misplaced("exec with streams"));
                }
                containers.exec(&exec, None).map(|pid| json!({"pid": pid}))
            }
            CallName::ExecKill => containers.kill_exec(&parse("exec-kill", body)?).map(done),
            CallName::Execs => containers
                .execs(&parse::<ById>("execs", body)?.container_id)
                .map(|execs| json!({"execs": execs})),
            CallName::Resize => containers.resize(parse("resize", body)?).map(done),
            CallName::Pause => containers
                .pause(&parse::<ById>("pause", body)?.container_id)
                .map(done),
            CallName::Resume => containers
                .resume(&parse::<ById>("resume", body)?.container_id)
                .map(done),
            CallName::Update => containers.update(&parse("update", body)?).map(done),
            CallName::Stats => {
                let stats = containers.stats(&parse::<ById>("stats", body)?.container_id)?;
                Ok(serde_json::to_value(stats).expect("plain data"))
            }
            CallName::Attach => Err(streaming::misplaced("attach")),
            CallName::Logs => Err(streaming::misplaced("logs")),
            CallName::Network => containers.net().network(&parse("network", body)?),
            CallName::NetworkDump => containers.net().network_dump(),
            CallName::Resolver => containers.net().resolver(&parse("resolver", body)?),
            CallName::Unpack => shoal_layers::unpack(&parse("unpack", body)?),
            CallName::Commit => shoal_layers::commit(&parse("commit", body)?),
            CallName::Diff => Err(streaming::misplaced("diff")),
            CallName::Export => Err(streaming::misplaced("export")),
        }
    }
}

/// The body of a call.
pub fn parse<T: DeserializeOwned>(call: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("reading the call {call}"), error.to_string()))
}

fn id_of(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(body)
        .ok()?
        .get("id")?
        .as_u64()
}
