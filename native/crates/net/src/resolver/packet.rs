//! DNS messages, the part that a resolver for IPv4 names needs (RFC 1035, RFC 6891). Reading is bounds-checked and never follows a pointer forwards.

use std::net::Ipv4Addr;

/// UDP answer without EDNS.
pub const PLAIN_UDP_BYTES_MAX: usize = 512;
/// Largest UDP answer whatever the client allows; the loopback carries it whole.
pub const EDNS_UDP_BYTES_MAX: usize = 4096;
/// Largest message over TCP.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Longest name, in its wire form.
const NAME_BYTES_MAX: usize = 255;
const HEADER_BYTES: usize = 12;

pub const TYPE_A: u16 = 1;
pub const TYPE_PTR: u16 = 12;
pub const TYPE_OPT: u16 = 41;
pub const TYPE_ANY: u16 = 255;
pub const CLASS_IN: u16 = 1;
pub const CLASS_ANY: u16 = 255;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_AUTHORITATIVE: u16 = 0x0400;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE_MASK: u16 = 0x7800;

/// Answer codes; BADVERS is the extended one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    NoError,
    FormatError,
    ServerFailure,
    NoSuchName,
    NotImplemented,
    Refused,
    BadVersion,
}

impl Code {
    fn number(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormatError => 1,
            Self::ServerFailure => 2,
            Self::NoSuchName => 3,
            Self::NotImplemented => 4,
            Self::Refused => 5,
            Self::BadVersion => 16,
        }
    }
}

/// A question that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    flags: u16,
    /// Lower-cased, labels joined by dots, no trailing dot; empty for the root. Bytes that are no letter, digit, `-` or `_` are written \DDD, so a dot inside a label is not taken for a boundary.
    pub name: String,
    pub kind: u16,
    pub class: u16,
    /// The question as it came, for the answer: its letters keep their case.
    question: Vec<u8>,
    edns: Option<Edns>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    udp_bytes: usize,
    version: u8,
}

/// What a packet turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Query(Query),
    /// To be answered with this, as it cannot be a good question.
    Refuse(Vec<u8>),
    /// Not worth an answer: too short to have an id, or itself an answer.
    Drop,
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Address { address: Ipv4Addr, ttl_seconds: u32 },
    Pointer { name: String, ttl_seconds: u32 },
}

/// Reads a packet.
pub fn parse(packet: &[u8]) -> Parsed {
    let Some(header) = packet.get(..HEADER_BYTES) else {
        return Parsed::Drop;
    };
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (id, flags) = (field(0), field(2));
    if flags & FLAG_RESPONSE != 0 {
        return Parsed::Drop;
    }
    let refuse = |code| Parsed::Refuse(bare(id, flags, code));
    if flags & OPCODE_MASK != 0 {
        return refuse(Code::NotImplemented);
    }
    if field(4) != 1 {
        return refuse(Code::FormatError);
    }
    match read_question(packet, id, flags) {
        Some(mut query) => {
            let records = usize::from(field(6)) + usize::from(field(8)) + usize::from(field(10));
            match read_edns(packet, HEADER_BYTES + query.question.len(), records) {
                Some(edns) => {
                    query.edns = edns;
                    if edns.is_some_and(|edns| edns.version != 0) {
                        return Parsed::Refuse(query.answer(
                            Code::BadVersion,
                            &[],
                            MESSAGE_BYTES_MAX,
                        ));
                    }
                    Parsed::Query(query)
                }
                None => refuse(Code::FormatError),
            }
        }
        None => refuse(Code::FormatError),
    }
}

impl Query {
    /// The largest UDP answer that this client takes.
    pub fn udp_bytes_max(&self) -> usize {
        self.edns.map_or(PLAIN_UDP_BYTES_MAX, |edns| {
            edns.udp_bytes
                .clamp(PLAIN_UDP_BYTES_MAX, EDNS_UDP_BYTES_MAX)
        })
    }

    /// The answer, with as many of the records as fit in `bytes_max`, and the TC bit when some did not.
    pub fn answer(&self, code: Code, records: &[Record], bytes_max: usize) -> Vec<u8> {
        let mut flags = FLAG_RESPONSE
            | FLAG_RECURSION_AVAILABLE
            | (self.flags & FLAG_RECURSION_DESIRED)
            | (code.number() & 0xf);
        if matches!(code, Code::NoError | Code::NoSuchName) {
            flags |= FLAG_AUTHORITATIVE;
        }
        let opt = self.edns.map(|_| opt_record(code));
        let room = bytes_max - opt.as_ref().map_or(0, Vec::len);
        let mut bytes = Vec::with_capacity(PLAIN_UDP_BYTES_MAX);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&[0; HEADER_BYTES - 2]);
        bytes.extend_from_slice(&self.question);
        let mut count: u16 = 0;
        for record in records {
            let start = bytes.len();
            record.write(&mut bytes);
            if bytes.len() > room || count == u16::MAX {
                bytes.truncate(start);
                flags |= FLAG_TRUNCATED;
                break;
            }
            count += 1;
        }
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[4..6].copy_from_slice(&1u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes[10..12].copy_from_slice(&u16::from(opt.is_some()).to_be_bytes());
        bytes.extend(opt.into_iter().flatten());
        bytes
    }

    /// The address that a reverse question asks about: `4.3.2.1.in-addr.arpa`.
    pub fn reverse_address(&self) -> Option<Ipv4Addr> {
        let reversed: Ipv4Addr = self.name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
        let [a, b, c, d] = reversed.octets();
        Some(Ipv4Addr::new(d, c, b, a))
    }

    /// The question with another id, as it was asked, for somebody else to answer. EDNS is kept.
    pub fn forward(&self, packet: &[u8], id: u16) -> Vec<u8> {
        let mut forwarded = packet.to_vec();
        forwarded[..2].copy_from_slice(&id.to_be_bytes());
        forwarded
    }

    /// The packet with our id, when it answers this question as asked under `id`.
    pub fn accept(&self, packet: &[u8], id: u16) -> Option<Vec<u8>> {
        let header = packet.get(..HEADER_BYTES)?;
        let flags = u16::from_be_bytes([header[2], header[3]]);
        if header[..2] != id.to_be_bytes() || flags & FLAG_RESPONSE == 0 {
            return None;
        }
        let questions = u16::from_be_bytes([header[4], header[5]]);
        let same = packet
            .get(HEADER_BYTES..HEADER_BYTES + self.question.len())
            .is_some_and(|question| question.eq_ignore_ascii_case(&self.question));
        // A server that fails may leave the question out.
        if !(same && questions == 1 || questions == 0 && flags & 0xf != 0) {
            return None;
        }
        let mut answer = packet.to_vec();
        answer[..2].copy_from_slice(&self.id.to_be_bytes());
        Some(answer)
    }
}

impl Record {
    fn write(&self, out: &mut Vec<u8>) {
        // The owner is the question's name, right after the header.
        out.extend_from_slice(&[0xc0, HEADER_BYTES as u8]);
        let (kind, ttl_seconds, data) = match self {
            Self::Address {
                address,
                ttl_seconds,
            } => (TYPE_A, ttl_seconds, address.octets().to_vec()),
            Self::Pointer { name, ttl_seconds } => (TYPE_PTR, ttl_seconds, wire_name(name)),
        };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&ttl_seconds.to_be_bytes());
        out.extend_from_slice(
            &u16::try_from(data.len())
                .expect("names and addresses are short")
                .to_be_bytes(),
        );
        out.extend_from_slice(&data);
    }
}

/// Whether a name has a wire form: labels of 1 to 63 bytes, 253 bytes in all.
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX - 2 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("names were checked when they came in"));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// An answer of only a header, for a packet whose question could not be read.
fn bare(id: u16, flags: u16, code: Code) -> Vec<u8> {
    let flags = FLAG_RESPONSE
        | FLAG_RECURSION_AVAILABLE
        | (flags & (OPCODE_MASK | FLAG_RECURSION_DESIRED))
        | code.number();
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes
}

fn opt_record(code: Code) -> Vec<u8> {
    let mut record = vec![0];
    record.extend_from_slice(&TYPE_OPT.to_be_bytes());
    record.extend_from_slice(&(EDNS_UDP_BYTES_MAX as u16).to_be_bytes());
    record.extend_from_slice(&[(code.number() >> 4) as u8, 0, 0, 0]);
    record.extend_from_slice(&0u16.to_be_bytes());
    record
}

fn read_question(packet: &[u8], id: u16, flags: u16) -> Option<Query> {
    let mut at = HEADER_BYTES;
    let mut name = String::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        // Two high bits make it a pointer, and in the first name there is nothing to point back to.
        if length > 63 {
            return None;
        }
        let label = packet.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if at - HEADER_BYTES > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        push_label(&mut name, label);
    }
    let tail = packet.get(at..at + 4)?;
    Some(Query {
        id,
        flags,
        name,
        kind: u16::from_be_bytes([tail[0], tail[1]]),
        class: u16::from_be_bytes([tail[2], tail[3]]),
        question: packet[HEADER_BYTES..at + 4].to_vec(),
        edns: None,
    })
}

fn push_label(name: &mut String, label: &[u8]) {
    for byte in label {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte.to_ascii_lowercase()));
        } else {
            name.push_str(&format!("\\{byte:03}"));
        }
    }
}

/// Walks the records after the question and finds the OPT one. None when they are malformed.
fn read_edns(packet: &[u8], mut at: usize, records: usize) -> Option<Option<Edns>> {
    let mut edns = None;
    for _ in 0..records {
        let owner = at;
        at = skip_name(packet, at)?;
        let fixed = packet.get(at..at + 10)?;
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        packet.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        if kind == TYPE_OPT {
            // At most one, owned by the root.
            if edns.is_some() || packet[owner] != 0 {
                return None;
            }
            edns = Some(Edns {
                udp_bytes: usize::from(u16::from_be_bytes([fixed[2], fixed[3]])),
                version: fixed[5],
            });
        }
    }
    Some(edns)
}

/// Where the name that starts at `at` ends. A pointer ends it; it need not be followed to be skipped.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *packet.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            192..=255 => return packet.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut packet = vec![
            0x12,
            0x34,
            1,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(edns.is_some()),
        ];
        packet.extend(wire_name(name));
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&CLASS_IN.to_be_bytes());
        if let Some(size) = edns {
            packet.extend_from_slice(&[0, 0, 41]);
            packet.extend_from_slice(&size.to_be_bytes());
            packet.extend_from_slice(&[0; 6]);
        }
        packet
    }

    fn read(packet: &[u8]) -> Query {
        match parse(packet) {
            Parsed::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_read_in_lower_case_and_answered_in_its_own() {
        let packet = question("Tasks.WEB.net", TYPE_A, None);
        let query = read(&packet);
        assert_eq!(
            (query.name.as_str(), query.kind, query.udp_bytes_max()),
            ("tasks.web.net", TYPE_A, 512)
        );
        let answer = query.answer(
            Code::NoError,
            &[Record::Address {
                address: Ipv4Addr::new(10, 0, 1, 3),
                ttl_seconds: 5,
            }],
            512,
        );
        assert_eq!(
            &answer[..12],
            &[0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(&answer[12..packet.len()], &packet[12..]);
        assert_eq!(
            &answer[packet.len()..],
            &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 1, 3]
        );
    }

    #[test]
    fn an_answer_that_does_not_fit_is_cut_and_says_so() {
        let records: Vec<_> = (0..200)
            .map(|last| Record::Address {
                address: Ipv4Addr::new(10, 0, 0, last),
                ttl_seconds: 0,
            })
            .collect();
        for (edns, bytes_max, whole) in [
            (None, 512, false),
            (Some(100), 512, false),
            (Some(1232), 1232, false),
            (Some(4096), 4096, true),
            (Some(65535), 4096, true),
        ] {
            let query = read(&question("web", TYPE_A, edns));
            assert_eq!(query.udp_bytes_max(), bytes_max);
            let answer = query.answer(Code::NoError, &records, query.udp_bytes_max());
            assert!(answer.len() <= bytes_max, "{} {bytes_max}", answer.len());
            assert_eq!(answer[2] & 2 == 0, whole, "truncated bit for {edns:?}");
            let count = u16::from_be_bytes([answer[6], answer[7]]);
            assert_eq!(count == 200, whole);
            assert!(count >= 29, "as many as fit, not {count}");
            assert_eq!(answer[11] == 1, edns.is_some(), "OPT in the answer");
        }
    }

    #[test]
    fn malformed_packets_are_refused_or_dropped() {
        let good = question("web", TYPE_A, Some(1232));
        let mut compressed = good.clone();
        compressed[12] = 0xc0;
        let mut long = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for _ in 0..5 {
            long.push(63);
            long.extend([b'a'; 63]);
        }
        long.extend([0, 0, 1, 0, 1]);
        let with = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            packet
        };
        for (what, packet, code) in [
            ("no question", with(5, 0), 1),
            ("two questions", with(5, 2), 1),
            ("pointer in the question", compressed, 1),
            ("name over 255 bytes", long, 1),
            ("cut in the question", good[..15].to_vec(), 1),
            ("cut in the OPT record", good[..good.len() - 1].to_vec(), 1),
            ("more records than there are", with(11, 9), 1),
            ("another opcode", with(2, 0x28), 4),
        ] {
            match parse(&packet) {
                Parsed::Refuse(answer) => {
                    assert_eq!((answer[3] & 0xf, answer[2] & 0x80), (code, 0x80), "{what}")
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        assert_eq!(parse(&with(2, 0x80)), Parsed::Drop, "an answer");
        assert_eq!(parse(&good[..11]), Parsed::Drop, "no whole header");
        match parse(&with(good.len() - 5, 1)) {
            Parsed::Refuse(answer) => assert_eq!(
                (answer[3] & 0xf, answer[answer.len() - 6]),
                (0, 1),
                "BADVERS is 16: 0 in the header, 1 in OPT"
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let seed = question("tasks.web.net", TYPE_A, Some(1232));
        let mut queries = 0;
        for round in 0..200_000u32 {
            let packet: Vec<u8> = if round % 2 == 0 {
                (0..random() % 80).map(|_| random() as u8).collect()
            } else {
                let mut packet = seed.clone();
                for _ in 0..=random() % 4 {
                    let at = (random() % packet.len() as u64) as usize;
                    packet[at] = random() as u8;
                }
                packet.truncate((random() % 64) as usize + 4);
                packet
            };
            if let Parsed::Query(query) = parse(&packet) {
                queries += 1;
                assert!(
                    query
                        .answer(Code::NoSuchName, &[], query.udp_bytes_max())
                        .len()
                        <= EDNS_UDP_BYTES_MAX
                );
                query.accept(&packet, query.id);
                query.reverse_address();
            }
        }
        assert!(queries > 1000, "only {queries} packets were questions");
    }

    #[test]
    fn labels_with_odd_bytes_stay_apart_from_names() {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'a', b'.', 0xff, 0];
        packet.extend([0, 1, 0, 1]);
        assert_eq!(read(&packet).name, "a\\046\\255");
    }

    #[test]
    fn reverse_names_give_the_address() {
        for (name, address) in [
            ("3.1.0.10.in-addr.arpa", Some(Ipv4Addr::new(10, 0, 1, 3))),
            ("1.0.10.in-addr.arpa", None),
            ("web", None),
            ("x.3.1.0.10.in-addr.arpa", None),
        ] {
            assert_eq!(
                read(&question(name, TYPE_PTR, None)).reverse_address(),
                address,
                "{name}"
            );
        }
    }

    #[test]
    fn only_the_answer_to_this_question_is_accepted() {
        let packet = question("example.org", TYPE_A, None);
        let query = read(&packet);
        let asked = query.forward(&packet, 777);
        assert_eq!(query.accept(&asked, 777), None, "a question is no answer");
        let mut answer = asked.clone();
        answer[2] |= 0x80;
        assert_eq!(query.accept(&answer, 778), None, "another id");
        assert_eq!(&query.accept(&answer, 777).unwrap()[..2], &[0x12, 0x34]);
        answer[13] = b'E';
        assert!(query.accept(&answer, 777).is_some(), "case does not count");
        answer[13] = b'x';
        assert_eq!(query.accept(&answer, 777), None, "another name");
    }
}
