//! The thread that answers: one wait for the sockets of all containers, their connections and the questions on their way to other servers.

use super::directory::{Answer, Directory};
use super::lock;
use super::packet::{Code, MESSAGE_BYTES_MAX, Parsed, Query, parse};
use super::poll::{Interest, Poll, Ready, Waker};
use super::sockets;
use super::upstream::{Asked, Pending, Progress, ReplyTo, framed, unframed};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most questions on their way to other servers, of all containers and of one.
const OUTSTANDING_MAX: usize = 1024;
const OUTSTANDING_OF_ONE_MAX: usize = 256;
/// Most TCP connections, of all containers and of one.
const CONNECTIONS_MAX: usize = 1024;
const CONNECTIONS_OF_ONE_MAX: usize = 32;
/// A connection on which nothing is asked for this long is closed.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);
/// Most packets that one socket gives before the others have their turn.
const PACKETS_PER_TURN_MAX: usize = 64;
/// Answers that a client of TCP does not take; more, and it is cut off.
const OUTPUT_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
const WAKE_TOKEN: u64 = 0;

/// What the managing side asks of the thread.
pub enum Command {
    /// Answers on these sockets for a container, in place of any that it had.
    Open {
        container: String,
        udp: UdpSocket,
        tcp: TcpListener,
    },
    Close {
        container: String,
    },
    Stop,
}

/// The thread, from outside. It ends when this is dropped.
pub struct Server {
    commands: Mutex<Sender<Command>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread in the calling thread's network namespace.
    pub fn start(directory: Arc<Mutex<Directory>>) -> io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let waker = Arc::new(Waker::new()?);
        let mut poll = Poll::new()?;
        poll.add(&waker.as_ref(), WAKE_TOKEN, Interest::Read)?;
        let mut turn = Turn {
            directory,
            sources: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_token: WAKE_TOKEN + 1,
            random: Random::new()?,
            buffer: vec![0; MESSAGE_BYTES_MAX],
            ended: Vec::new(),
        };
        let of_thread = Arc::clone(&waker);
        let thread = thread::Builder::new()
            .name("resolver".into())
            .spawn(move || turn.run(&mut poll, &received, &of_thread))?;
        Ok(Self {
            commands: Mutex::new(commands),
            waker,
            thread: Some(thread),
        })
    }

    /// Hands a command over; it is carried out soon.
    pub fn tell(&self, command: Command) {
        lock(&self.commands)
            .send(command)
            .expect("the thread ends only after this is dropped");
        self.waker.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the resolver's thread does not panic");
        }
    }
}

/// What a token stands for.
enum Source {
    Datagrams {
        container: String,
        socket: UdpSocket,
    },
    Listener {
        container: String,
        listener: TcpListener,
    },
    Connection(Connection),
    Asked(Box<Asked>),
}

struct Connection {
    container: String,
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Questions of it that are on their way to other servers.
    waiting: usize,
    /// The client sends no more.
    finished: bool,
    deadline: Instant,
}

/// What becomes of a packet.
enum Reply {
    Now(Vec<u8>),
    /// Its question is on its way to another server.
    Later,
    Never,
}

/// The thread's own state.
struct Turn {
    directory: Arc<Mutex<Directory>>,
    sources: HashMap<u64, Source>,
    deadlines: BTreeSet<(Instant, u64)>,
    next_token: u64,
    random: Random,
    buffer: Vec<u8>,
    /// Questions that no server answered, to be told so after the source at hand is put back.
    ended: Vec<(ReplyTo, Vec<u8>)>,
}

impl Turn {
    fn run(&mut self, poll: &mut Poll, commands: &Receiver<Command>, waker: &Waker) {
        loop {
            let now = Instant::now();
            let time = self
                .deadlines
                .first()
                .map(|(deadline, _)| deadline.saturating_duration_since(now));
            let ready = poll
                .wait(time)
                .expect("the set of sockets is ours and open");
            for event in ready {
                if event.token == WAKE_TOKEN {
                    waker.clear();
                    for command in commands.try_iter() {
                        match command {
                            Command::Open {
                                container,
                                udp,
                                tcp,
                            } => self.open(poll, &container, udp, tcp),
                            Command::Close { container } => self.close(&container),
                            Command::Stop => return,
                        }
                    }
                } else {
                    self.handle(poll, event);
                }
            }
            self.expire(poll);
            self.tell_ended(poll);
        }
    }

    fn open(&mut self, poll: &Poll, container: &str, udp: UdpSocket, tcp: TcpListener) {
        self.close(container);
        for source in [
            Source::Datagrams {
                container: container.to_owned(),
                socket: udp,
            },
            Source::Listener {
                container: container.to_owned(),
                listener: tcp,
            },
        ] {
            if self.insert(poll, source, Interest::Read, None).is_none() {
                eprintln!(
                    "shoal-core: resolver: cannot wait for container {container}: out of memory for the set of sockets"
                );
            }
        }
    }

    fn close(&mut self, container: &str) {
        self.sources.retain(|_, source| match source {
            Source::Datagrams { container: of, .. } | Source::Listener { container: of, .. } => {
                of != container
            }
            Source::Connection(connection) => connection.container != container,
            Source::Asked(asked) => asked.pending.container != container,
        });
        let sources = &self.sources;
        self.deadlines
            .retain(|(_, token)| sources.contains_key(token));
    }

    fn insert(
        &mut self,
        poll: &Poll,
        source: Source,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Option<u64> {
        let token = self.next_token;
        let added = match &source {
            Source::Datagrams { socket, .. } => poll.add(socket, token, interest),
            Source::Listener { listener, .. } => poll.add(listener, token, interest),
            Source::Connection(connection) => poll.add(&connection.stream, token, interest),
            Source::Asked(asked) => poll.add(asked.as_ref(), token, interest),
        };
        added.ok()?;
        self.next_token += 1;
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, token)));
        self.sources.insert(token, source);
        Some(token)
    }

    /// Handles one ready socket. It is taken out meanwhile, so that answering may change the others.
    fn handle(&mut self, poll: &Poll, event: Ready) {
        // A token of this round may be of a source that an earlier one has closed.
        let Some(source) = self.sources.remove(&event.token) else {
            return;
        };
        let kept = match source {
            Source::Datagrams { container, socket } => {
                self.datagrams(poll, event.token, &container, &socket);
                Some(Source::Datagrams { container, socket })
            }
            Source::Listener {
                container,
                listener,
            } => {
                self.accept(poll, &container, &listener);
                Some(Source::Listener {
                    container,
                    listener,
                })
            }
            Source::Connection(mut connection) => {
                let before = connection.deadline;
                let open = self.converse(poll, event, &mut connection);
                self.deadlines.remove(&(before, event.token));
                if open {
                    self.deadlines.insert((connection.deadline, event.token));
                }
                open.then_some(Source::Connection(connection))
            }
            Source::Asked(asked) => self.asked(poll, event.token, asked),
        };
        if let Some(source) = kept {
            self.sources.insert(event.token, source);
        }
        self.tell_ended(poll);
    }

    fn datagrams(&mut self, poll: &Poll, token: u64, container: &str, socket: &UdpSocket) {
        for _ in 0..PACKETS_PER_TURN_MAX {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = socket.recv_from(&mut buffer);
            if let Ok((length, peer)) = received
                && let Reply::Now(bytes) = self.reply(
                    poll,
                    container,
                    &buffer[..length],
                    ReplyTo::Datagram {
                        socket: token,
                        peer,
                    },
                )
            {
                // A datagram that cannot be sent is a lost one: the client asks again.
                let _lost = socket.send_to(&bytes, peer);
            }
            self.buffer = buffer;
            if received.is_err() {
                return;
            }
        }
    }

    /// Answers a packet, or sends its question on.
    fn reply(&mut self, poll: &Poll, container: &str, packet: &[u8], reply_to: ReplyTo) -> Reply {
        let query = match parse(packet) {
            Parsed::Query(query) => query,
            Parsed::Refuse(answer) => return Reply::Now(answer),
            Parsed::Drop => return Reply::Never,
        };
        let random = &mut self.random;
        let answer = lock(&self.directory).answer(container, &query, &mut || random.next());
        match answer {
            Answer::Reply { code, records } => {
                let bytes_max = match reply_to {
                    ReplyTo::Datagram { .. } => query.udp_bytes_max(),
                    ReplyTo::Connection { .. } => MESSAGE_BYTES_MAX,
                };
                Reply::Now(query.answer(code, &records, bytes_max))
            }
            Answer::Forward(_) if !self.may_ask(container) => Reply::Now(failed(&query)),
            Answer::Forward(servers) => {
                let pending = Pending::new(container.to_owned(), query, packet, reply_to, servers);
                self.ask(poll, pending);
                Reply::Later
            }
        }
    }

    fn may_ask(&self, container: &str) -> bool {
        let mut all = 0;
        let mut own = 0;
        for source in self.sources.values() {
            if let Source::Asked(asked) = source {
                all += 1;
                own += usize::from(asked.pending.container == container);
            }
        }
        all < OUTSTANDING_MAX && own < OUTSTANDING_OF_ONE_MAX
    }

    fn ask(&mut self, poll: &Poll, pending: Pending) {
        let (reply_to, answer) = (pending.reply_to, failed(&pending.query));
        let asked = pending.ask(Instant::now()).and_then(|asked| {
            let (interest, deadline) = (asked.interest(), asked.deadline);
            self.insert(
                poll,
                Source::Asked(Box::new(asked)),
                interest,
                Some(deadline),
            )
        });
        if asked.is_none() {
            self.ended.push((reply_to, answer));
        }
    }

    /// Goes on with a question at another server; gives it back while it waits.
    fn asked(&mut self, poll: &Poll, token: u64, mut asked: Box<Asked>) -> Option<Source> {
        match asked.advance(&mut self.buffer) {
            Progress::Wait => {
                if poll.change(asked.as_ref(), token, asked.interest()).is_ok() {
                    return Some(Source::Asked(asked));
                }
                self.deadlines.remove(&(asked.deadline, token));
                self.ask(poll, asked.pending);
            }
            Progress::Answer(answer) => {
                self.deadlines.remove(&(asked.deadline, token));
                self.ended.push((asked.pending.reply_to, answer));
            }
            Progress::Failed => {
                self.deadlines.remove(&(asked.deadline, token));
                self.ask(poll, asked.pending);
            }
        }
        None
    }

    fn tell_ended(&mut self, poll: &Poll) {
        for (reply_to, answer) in std::mem::take(&mut self.ended) {
            match reply_to {
                ReplyTo::Datagram { socket, peer } => {
                    if let Some(Source::Datagrams { socket, .. }) = self.sources.get(&socket) {
                        // A datagram that cannot be sent is a lost one: the client asks again.
                        let _lost = socket.send_to(&answer, peer);
                    }
                }
                ReplyTo::Connection { token } => {
                    if let Some(Source::Connection(connection)) = self.sources.get_mut(&token) {
                        connection.waiting -= 1;
                        connection.output.extend(framed(&answer));
                        if !connection.flush(poll, token) {
                            let deadline = connection.deadline;
                            self.sources.remove(&token);
                            self.deadlines.remove(&(deadline, token));
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, poll: &Poll, container: &str, listener: &TcpListener) {
        let (mut all, mut own) = (0, 0);
        for source in self.sources.values() {
            if let Source::Connection(connection) = source {
                all += 1;
                own += usize::from(connection.container == container);
            }
        }
        for _ in 0..PACKETS_PER_TURN_MAX {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            // Over the limit it is closed at once, which the client sees; not accepting it would wake us for ever.
            if all >= CONNECTIONS_MAX
                || own >= CONNECTIONS_OF_ONE_MAX
                || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            let deadline = Instant::now() + CONNECTION_IDLE_MAX;
            let connection = Connection {
                container: container.to_owned(),
                stream,
                input: Vec::new(),
                output: Vec::new(),
                waiting: 0,
                finished: false,
                deadline,
            };
            if self
                .insert(
                    poll,
                    Source::Connection(connection),
                    Interest::Read,
                    Some(deadline),
                )
                .is_some()
            {
                all += 1;
                own += 1;
            }
        }
    }

    /// Reads what a connection asks, answers, and writes; false when it is over.
    fn converse(&mut self, poll: &Poll, event: Ready, connection: &mut Connection) -> bool {
        // A client that is done and owed nothing more to write is waited for by nothing but its failure.
        if connection.finished && connection.output.is_empty() {
            return false;
        }
        if event.read && !connection.finished {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => connection.finished = true,
                Ok(count) => {
                    connection.input.extend_from_slice(&self.buffer[..count]);
                    connection.deadline = Instant::now() + CONNECTION_IDLE_MAX;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => return false,
            }
        }
        while let Some(packet) = unframed(&connection.input).map(<[u8]>::to_vec) {
            connection.input.drain(..2 + packet.len());
            match self.reply(
                poll,
                &connection.container,
                &packet,
                ReplyTo::Connection { token: event.token },
            ) {
                Reply::Now(answer) => connection.output.extend(framed(&answer)),
                Reply::Later => connection.waiting += 1,
                Reply::Never => return false,
            }
            if connection.output.len() > OUTPUT_BYTES_MAX
                || connection.waiting > OUTSTANDING_OF_ONE_MAX
            {
                return false;
            }
        }
        connection.flush(poll, event.token)
    }

    /// Moves questions whose server took too long to the next, and closes idle connections.
    fn expire(&mut self, poll: &Poll) {
        let now = Instant::now();
        while let Some((deadline, token)) = self
            .deadlines
            .first()
            .copied()
            .filter(|(deadline, _)| *deadline <= now)
        {
            self.deadlines.remove(&(deadline, token));
            if let Some(Source::Asked(asked)) = self.sources.remove(&token) {
                self.ask(poll, asked.pending);
            }
        }
    }
}

impl Connection {
    /// Writes what it can and waits for the rest; false when the connection is over.
    fn flush(&mut self, poll: &Poll, token: u64) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.finished && self.output.is_empty() && self.waiting == 0 {
            return false;
        }
        let interest = match (self.finished, self.output.is_empty()) {
            (false, true) => Interest::Read,
            (true, true) => Interest::Failure,
            (false, false) => Interest::Both,
            (true, false) => Interest::Write,
        };
        poll.change(&self.stream, token, interest).is_ok()
    }
}

fn failed(query: &Query) -> Vec<u8> {
    query.answer(Code::ServerFailure, &[], MESSAGE_BYTES_MAX)
}

/// Numbers for spreading load; not for secrets.
struct Random(u64);

impl Random {
    fn new() -> io::Result<Self> {
        // Odd, so that it is never the one state that xorshift cannot leave.
        Ok(Self(u64::from_ne_bytes(sockets::random_bytes()?) | 1))
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
}
