//! Who may ask, and what the names mean: zones and clients, and the answer to one question. No I/O.

use super::packet::{
    CLASS_ANY, CLASS_IN, Code, Query, Record, TYPE_A, TYPE_ANY, TYPE_PTR, is_name,
};
use crate::values;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Most names of one network.
pub const RECORDS_MAX: usize = 200_000;
/// Most networks that one node has tasks on.
pub const ZONES_MAX: usize = 10_000;
/// Most containers of one node that ask.
pub const CLIENTS_MAX: usize = 10_000;
/// Most servers that other names are asked of; more are ignored, as libc does.
pub const UPSTREAMS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// Names of one network (ResolverZone of src/wire/native.ts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZoneMessage {
    pub network_id: String,
    pub network_name: String,
    pub revision: u64,
    pub records: Vec<RecordMessage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordMessage {
    pub name: String,
    pub addresses: Vec<String>,
    pub ttl_seconds: u32,
}

/// One container that asks (ResolverClient of src/wire/native.ts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientMessage {
    pub container_id: String,
    pub network_ids: Vec<String>,
    pub upstreams: Vec<String>,
}

/// All zones and clients.
#[derive(Default)]
pub struct Directory {
    zones: BTreeMap<String, Zone>,
    clients: BTreeMap<String, Client>,
}

struct Zone {
    message: ZoneMessage,
    network_name: String,
    names: HashMap<String, Name>,
    /// Address to the name that tells most about it.
    reverse: HashMap<Ipv4Addr, String>,
}

struct Name {
    addresses: Vec<Ipv4Addr>,
    ttl_seconds: u32,
}

struct Client {
    message: ClientMessage,
    upstreams: Vec<SocketAddrV4>,
}

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Reply {
        code: Code,
        records: Vec<Record>,
    },
    /// Not a name of ours: these servers may know it. Never empty.
    Forward(Vec<SocketAddrV4>),
}

impl Directory {
    /// Puts a zone, unless a newer revision is there. Errors say which value is wrong; then nothing has changed.
    pub fn put_zone(&mut self, message: ZoneMessage) -> Result<(), String> {
        if self
            .zones
            .get(&message.network_id)
            .is_some_and(|held| held.message.revision > message.revision)
        {
            return Ok(());
        }
        if self.zones.len() >= ZONES_MAX && !self.zones.contains_key(&message.network_id) {
            return Err(format!("there are already {ZONES_MAX} zones, the limit"));
        }
        let zone = Zone::new(message)?;
        self.zones.insert(zone.message.network_id.clone(), zone);
        Ok(())
    }

    /// Puts a client. Errors say which value is wrong; then nothing has changed.
    pub fn put_client(&mut self, message: ClientMessage) -> Result<(), String> {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&message.container_id) {
            return Err(format!(
                "there are already {CLIENTS_MAX} clients, the limit"
            ));
        }
        let upstreams = message
            .upstreams
            .iter()
            .take(UPSTREAMS_MAX)
            .map(|text| upstream(text))
            .collect::<Result<_, _>>()?;
        self.clients
            .insert(message.container_id.clone(), Client { message, upstreams });
        Ok(())
    }

    pub fn remove_zone(&mut self, network_id: &str) -> bool {
        self.zones.remove(network_id).is_some()
    }

    pub fn remove_client(&mut self, container_id: &str) -> bool {
        self.clients.remove(container_id).is_some()
    }

    pub fn has_client(&self, container_id: &str) -> bool {
        self.clients.contains_key(container_id)
    }

    pub fn clients(&self) -> impl Iterator<Item = &ClientMessage> {
        self.clients.values().map(|client| &client.message)
    }

    pub fn zones(&self) -> impl Iterator<Item = &ZoneMessage> {
        self.zones.values().map(|zone| &zone.message)
    }

    /// Answers a client's question from its networks, in their order. `random` spreads load over the addresses.
    pub fn answer(
        &self,
        container_id: &str,
        query: &Query,
        random: &mut impl FnMut() -> u32,
    ) -> Answer {
        let reply = |code, records| Answer::Reply { code, records };
        let Some(client) = self.clients.get(container_id) else {
            return reply(Code::Refused, Vec::new());
        };
        if query.class != CLASS_IN && query.class != CLASS_ANY {
            return reply(Code::NotImplemented, Vec::new());
        }
        if let Some(address) = query.reverse_address() {
            if let Some(name) = self.networks(client).find_map(|zone| zone.name_of(address)) {
                let wanted = matches!(query.kind, TYPE_PTR | TYPE_ANY);
                let records = wanted
                    .then_some(Record::Pointer {
                        name,
                        ttl_seconds: 0,
                    })
                    .into_iter()
                    .collect();
                return reply(Code::NoError, records);
            }
        } else if let Some(name) = self
            .networks(client)
            .find_map(|zone| zone.find(&query.name))
        {
            // Another type of a name that exists is an empty answer, not a missing name: a client that asks AAAA first must go on to A.
            let mut addresses = if matches!(query.kind, TYPE_A | TYPE_ANY) {
                name.addresses.clone()
            } else {
                Vec::new()
            };
            shuffle(&mut addresses, random);
            let record = |address| Record::Address {
                address,
                ttl_seconds: name.ttl_seconds,
            };
            return reply(Code::NoError, addresses.into_iter().map(record).collect());
        }
        if client.upstreams.is_empty() {
            reply(Code::NoSuchName, Vec::new())
        } else {
            Answer::Forward(client.upstreams.clone())
        }
    }

    fn networks<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a Zone> {
        client
            .message
            .network_ids
            .iter()
            .filter_map(|id| self.zones.get(id))
    }
}

impl Zone {
    fn new(message: ZoneMessage) -> Result<Self, String> {
        if message.records.len() > RECORDS_MAX {
            return Err(format!(
                "zone {:?} has {} records, over the limit of {RECORDS_MAX}",
                message.network_id,
                message.records.len()
            ));
        }
        let network_name = message.network_name.to_ascii_lowercase();
        let mut names: HashMap<String, Name> = HashMap::with_capacity(message.records.len());
        let mut best: HashMap<Ipv4Addr, (bool, usize, usize)> = HashMap::new();
        for (index, record) in message.records.iter().enumerate() {
            let name = record.name.trim_end_matches('.').to_ascii_lowercase();
            if !is_name(&name) {
                return Err(format!(
                    "{:?} of zone {:?} is not a DNS name",
                    record.name, message.network_id
                ));
            }
            let addresses = record
                .addresses
                .iter()
                .map(|text| values::ipv4(text))
                .collect::<Result<Vec<_>, _>>()?;
            for address in &addresses {
                // The name that tells most has the fewest addresses beside this one, and is not a list of tasks.
                let rank = (name.starts_with("tasks."), addresses.len(), index);
                best.entry(*address)
                    .and_modify(|held| *held = rank.min(*held))
                    .or_insert(rank);
            }
            names.insert(
                name,
                Name {
                    addresses,
                    ttl_seconds: record.ttl_seconds,
                },
            );
        }
        let reverse = best
            .into_iter()
            .map(|(address, (_, _, index))| {
                (
                    address,
                    message.records[index]
                        .name
                        .trim_end_matches('.')
                        .to_ascii_lowercase(),
                )
            })
            .collect();
        Ok(Self {
            message,
            network_name,
            names,
            reverse,
        })
    }

    /// `name`, or `name.NETWORK`.
    fn find(&self, asked: &str) -> Option<&Name> {
        self.names.get(asked).or_else(|| {
            self.names
                .get(asked.strip_suffix(&self.network_name)?.strip_suffix('.')?)
        })
    }

    /// `name.NETWORK` of an address, when it can be written as a DNS name.
    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        let name = self.reverse.get(&address)?;
        let full = format!("{name}.{}", self.network_name);
        Some(if is_name(&full) { full } else { name.clone() })
    }
}

/// Reads `a.b.c.d` or `a.b.c.d:port`.
fn upstream(text: &str) -> Result<SocketAddrV4, String> {
    let plain = text
        .parse()
        .map(|address: Ipv4Addr| SocketAddrV4::new(address, DNS_PORT));
    plain
        .or_else(|_| text.parse())
        .map_err(|_| format!("{text:?} is not a server (write it as 192.0.2.1 or 192.0.2.1:53)"))
}

fn shuffle(addresses: &mut [Ipv4Addr], random: &mut impl FnMut() -> u32) {
    for last in (1..addresses.len()).rev() {
        addresses.swap(last, random() as usize % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Parsed, parse};
    use super::*;

    fn query(name: &str, kind: u16) -> Query {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(label.len() as u8);
            packet.extend(label.bytes());
        }
        packet.extend([0, 0, kind as u8, 0, 1]);
        match parse(&packet) {
            Parsed::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn zone(id: &str, name: &str, revision: u64, records: &[(&str, &[&str])]) -> ZoneMessage {
        let record = |(name, addresses): &(&str, &[&str])| RecordMessage {
            name: (*name).into(),
            addresses: addresses.iter().map(|text| (*text).into()).collect(),
            ttl_seconds: 5,
        };
        ZoneMessage {
            network_id: id.into(),
            network_name: name.into(),
            revision,
            records: records.iter().map(record).collect(),
        }
    }

    fn client(id: &str, networks: &[&str], upstreams: &[&str]) -> ClientMessage {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).into()).collect();
        ClientMessage {
            container_id: id.into(),
            network_ids: strings(networks),
            upstreams: strings(upstreams),
        }
    }

    fn house() -> Directory {
        let mut directory = Directory::default();
        directory
            .put_zone(zone(
                "n1",
                "Front",
                3,
                &[
                    ("web", &["10.0.1.2"]),
                    ("tasks.web", &["10.0.1.3", "10.0.1.4"]),
                    ("web.1.abc", &["10.0.1.3"]),
                    ("empty", &[]),
                ],
            ))
            .unwrap();
        directory
            .put_zone(zone(
                "n2",
                "back",
                3,
                &[("web", &["10.0.2.2"]), ("db", &["10.0.2.9"])],
            ))
            .unwrap();
        directory
            .put_client(client("a", &["n1", "n2"], &[]))
            .unwrap();
        directory
            .put_client(client("b", &["n2"], &["192.0.2.1", "192.0.2.2:5353"]))
            .unwrap();
        directory
    }

    fn ask(directory: &Directory, who: &str, name: &str, kind: u16) -> String {
        match directory.answer(who, &query(name, kind), &mut || 0) {
            Answer::Forward(servers) => format!(
                "forward {}",
                servers
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
            Answer::Reply { code, records } => {
                let mut texts: Vec<_> = records
                    .iter()
                    .map(|record| match record {
                        Record::Address {
                            address,
                            ttl_seconds,
                        } => format!("{address}/{ttl_seconds}"),
                        Record::Pointer { name, .. } => name.clone(),
                    })
                    .collect();
                texts.sort();
                format!("{code:?} {}", texts.join(" "))
                    .trim_end()
                    .to_owned()
            }
        }
    }

    #[test]
    fn questions_have_these_answers() {
        let directory = house();
        for (who, name, kind, answer) in [
            ("a", "web", 1, "NoError 10.0.1.2/5"),
            ("a", "WEB.", 1, "NoError 10.0.1.2/5"),
            ("a", "web.front", 1, "NoError 10.0.1.2/5"),
            ("a", "web.back", 1, "NoError 10.0.2.2/5"),
            ("a", "tasks.web.Front", 1, "NoError 10.0.1.3/5 10.0.1.4/5"),
            ("a", "web.1.abc", 1, "NoError 10.0.1.3/5"),
            ("a", "db", 1, "NoError 10.0.2.9/5"),
            ("a", "db", 255, "NoError 10.0.2.9/5"),
            ("a", "db", 28, "NoError"),
            ("a", "db", 65, "NoError"),
            ("a", "empty", 1, "NoError"),
            ("a", "db.front", 1, "NoSuchName"),
            ("a", "nobody", 1, "NoSuchName"),
            ("a", "front", 1, "NoSuchName"),
            ("a", "", 2, "NoSuchName"),
            ("a", "3.1.0.10.in-addr.arpa", 12, "NoError web.1.abc.front"),
            ("a", "4.1.0.10.in-addr.arpa", 12, "NoError tasks.web.front"),
            ("a", "4.1.0.10.in-addr.arpa", 16, "NoError"),
            ("a", "9.9.9.9.in-addr.arpa", 12, "NoSuchName"),
            ("b", "web", 1, "NoError 10.0.2.2/5"),
            ("b", "tasks.web", 1, "forward 192.0.2.1:53 192.0.2.2:5353"),
            (
                "b",
                "3.1.0.10.in-addr.arpa",
                12,
                "forward 192.0.2.1:53 192.0.2.2:5353",
            ),
            ("gone", "web", 1, "Refused"),
        ] {
            assert_eq!(
                ask(&directory, who, name, kind),
                answer,
                "{who} asks {name} {kind}"
            );
        }
    }

    #[test]
    fn an_older_revision_is_ignored_and_the_same_one_replaces() {
        let mut directory = house();
        directory.put_zone(zone("n2", "back", 2, &[])).unwrap();
        assert_eq!(ask(&directory, "b", "db", 1), "NoError 10.0.2.9/5");
        directory
            .put_zone(zone("n2", "back", 3, &[("db", &["10.0.2.8"])]))
            .unwrap();
        assert_eq!(ask(&directory, "b", "db", 1), "NoError 10.0.2.8/5");
        assert!(directory.remove_zone("n2") && !directory.remove_zone("n2"));
        directory
            .put_zone(zone("n2", "back", 1, &[("db", &["10.0.2.7"])]))
            .unwrap();
        assert_eq!(
            ask(&directory, "b", "db", 1),
            "NoError 10.0.2.7/5",
            "a zone that was removed may begin again"
        );
    }

    #[test]
    fn wrong_values_change_nothing() {
        let mut directory = house();
        for bad in [
            &[("db", &["10.0.2.300"] as &[&str])][..],
            &[("a..b", &["10.0.2.1"])],
            &[("", &["10.0.2.1"])],
        ] {
            assert!(
                directory.put_zone(zone("n2", "back", 9, bad)).is_err(),
                "{bad:?}"
            );
        }
        assert!(
            directory
                .put_client(client("b", &[], &["dns.example"]))
                .is_err()
        );
        assert_eq!(ask(&directory, "b", "db", 1), "NoError 10.0.2.9/5");
    }

    #[test]
    fn every_address_comes_first_sometimes() {
        let mut directory = Directory::default();
        directory
            .put_zone(zone(
                "n",
                "n",
                1,
                &[("web", &["10.0.0.1", "10.0.0.2", "10.0.0.3"])],
            ))
            .unwrap();
        directory.put_client(client("a", &["n"], &[])).unwrap();
        let mut counter = 0u32;
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let answer = directory.answer("a", &query("web", 1), &mut || {
                counter = counter.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                counter >> 16
            });
            let Answer::Reply { records, .. } = answer else {
                panic!("forwarded")
            };
            assert_eq!(records.len(), 3);
            first.insert(format!("{:?}", records[0]));
        }
        assert_eq!(first.len(), 3);
    }
}
