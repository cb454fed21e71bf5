//! A client of a core: calls and events on one connection, and connections that have become streams.

use super::*;

/// One connection; events are kept until they are asked for.
pub struct Client {
    stream: UnixStream,
    next: u64,
    pub events: VecDeque<Value>,
}

impl Client {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connect");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("timeout");
        Self {
            stream,
            next: 0,
            events: VecDeque::new(),
        }
    }

    pub fn send(&mut self, mut request: Value) -> std::io::Result<u64> {
        self.next += 1;
        request["id"] = json!(self.next);
        write_frame(&mut self.stream, request.to_string().as_bytes())?;
        Ok(self.next)
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    pub fn receive(&mut self) -> Option<Value> {
        let body = read_frame(&mut self.stream).ok()??;
        Some(serde_json::from_slice(&body).expect("JSON"))
    }

    /// The whole reply; None when the core went away.
    pub fn try_call(&mut self, request: Value) -> Option<Value> {
        let id = self.send(request).ok()?;
        loop {
            let frame = self.receive()?;
            if frame.get("event").is_some() {
                self.events.push_back(frame);
            } else if frame["id"] == id {
                return Some(frame);
            }
        }
    }

    pub fn call(&mut self, request: Value) -> Value {
        self.try_call(request).expect("an answer")
    }

    /// The value of a call that must work.
    pub fn ok(&mut self, request: Value) -> Value {
        let reply = self.call(request.clone());
        assert_eq!(reply["ok"], true, "{request} -> {reply}");
        reply["value"].clone()
    }

    /// The failure of a call that must not.
    pub fn fails(&mut self, request: Value) -> Value {
        let reply = self.call(request.clone());
        assert_eq!(reply["ok"], false, "{request} -> {reply}");
        reply
    }

    pub fn by_id(&mut self, call: &str, id: &str) -> Value {
        self.ok(json!({"call": call, "containerId": id}))
    }

    pub fn delete(&mut self, id: &str) {
        self.ok(json!({"call": "delete", "containerId": id, "force": true}));
    }

    /// The exit event of a container.
    pub fn exit(&mut self, id: &str) -> Value {
        loop {
            if let Some(at) = self
                .events
                .iter()
                .position(|event| event["event"] == "exit" && event["containerId"] == id)
            {
                return self.events.remove(at).expect("found");
            }
            let frame = self.receive().expect("an exit event");
            assert!(frame.get("event").is_some(), "{frame}");
            self.events.push_back(frame);
        }
    }

    /// The next event of this kind about a container.
    pub fn event(&mut self, kind: &str, id: &str) -> Value {
        let wanted = |event: &Value| event["event"] == kind && event["containerId"] == id;
        loop {
            if let Some(at) = self.events.iter().position(wanted) {
                return self.events.remove(at).expect("found");
            }
            let frame = self.receive().expect("an event");
            assert!(frame.get("event").is_some(), "{frame}");
            self.events.push_back(frame);
        }
    }

    /// Creates, starts and waits for the end.
    pub fn run(&mut self, create: Value) -> Value {
        let id = create["containerId"].as_str().expect("id").to_owned();
        self.ok(create);
        self.by_id("start", &id);
        self.exit(&id)
    }
}

/// A connection that became a stream of docker's frames, or of a terminal's bytes.
pub struct Stream {
    pub socket: UnixStream,
    pub value: Value,
}

impl Stream {
    /// Makes the only request of a connection, which must work.
    pub fn open(core: &Core, request: Value) -> Self {
        let (reply, socket) = Self::ask(core, request.clone());
        assert_eq!(reply["ok"], true, "{request} -> {reply}");
        let value = reply["value"].clone();
        Self { socket, value }
    }

    /// The reply, and the connection after it.
    pub fn ask(core: &Core, request: Value) -> (Value, UnixStream) {
        let mut client = Client::connect(&core.socket());
        let reply = client.call(request);
        (reply, client.stream)
    }

    /// One frame: stream number and bytes; None at the end.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0u8; 8];
        match self.socket.read(&mut header[..1]).expect("read") {
            0 => return None,
            _ => self.socket.read_exact(&mut header[1..]).expect("header"),
        }
        assert_eq!(header[1..4], [0, 0, 0]);
        let length = u32::from_be_bytes(header[4..].try_into().expect("four"));
        let mut bytes = vec![0; length as usize];
        self.socket.read_exact(&mut bytes).expect("frame");
        Some((header[0], bytes))
    }

    /// Both streams' texts until the end.
    pub fn rest(&mut self) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some((stream, bytes)) = self.frame() {
            match stream {
                1 => out.extend(bytes),
                2 => err.extend(bytes),
                other => panic!("stream {other}"),
            }
        }
        let text = |bytes| String::from_utf8(bytes).expect("utf-8");
        (text(out), text(err))
    }

    /// Reads frames until stdout has shown `wanted`; gives all of it.
    pub fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            let (_, bytes) = self
                .frame()
                .unwrap_or_else(|| panic!("no {wanted:?} in {text:?}"));
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }

    /// Reads a terminal's bytes until they show `wanted`; gives all of them.
    pub fn raw_until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0u8; 4096];
        while !text.contains(wanted) {
            let length = self.socket.read(&mut buffer).expect("read");
            assert!(length > 0, "no {wanted:?} in {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    }

    pub fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("written");
    }

    /// The end of stdin.
    pub fn close_stdin(&self) {
        self.socket
            .shutdown(std::net::Shutdown::Write)
            .expect("half closed");
    }
}
