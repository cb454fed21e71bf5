//! Which devices a container may use: the configuration's rules read as a list in which, for each right, the last match wins.

use shoal_protocol::{Failure, oci::DeviceRule};

/// Rights on a device.
pub const READ: u8 = 1;
pub const WRITE: u8 = 2;
pub const MAKE: u8 = 4;
pub const EVERY_RIGHT: u8 = READ | WRITE | MAKE;

/// Most rules of one container; each is an instruction or a write.
const RULES_MAX: usize = 4096;
/// Largest device number; the kernel's own are smaller (12 and 20 bits).
const NUMBER_MAX: i64 = i32::MAX as i64;

/// The kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Char,
    Block,
}

/// Devices of one kind, or of one number of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Devices {
    /// Whether every device of `other` is one of these.
    fn holds(&self, other: &Self) -> bool {
        let number = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
        self.kind == other.kind
            && number(self.major, other.major)
            && number(self.minor, other.minor)
    }

    /// Whether some device is of both.
    fn meets(&self, other: &Self) -> bool {
        let number =
            |one: Option<u32>, two: Option<u32>| one.is_none() || two.is_none() || one == two;
        self.kind == other.kind
            && number(self.major, other.major)
            && number(self.minor, other.minor)
    }
}

/// One rule: rights on devices (None is every device with every right) given or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub devices: Option<Devices>,
    pub rights: u8,
}

const fn character(major: Option<u32>, minor: Option<u32>, rights: u8) -> Rule {
    Rule {
        allow: true,
        devices: Some(Devices {
            kind: Kind::Char,
            major,
            minor,
        }),
        rights,
    }
}

/// What every container may do, whatever the configuration says before (as runc's and crun's default): make any node, and use
/// null, zero, full, random, urandom, tty, console, ptmx and its terminals.
const DEFAULTS: [Rule; 11] = [
    character(None, None, MAKE),
    Rule {
        allow: true,
        devices: Some(Devices {
            kind: Kind::Block,
            major: None,
            minor: None,
        }),
        rights: MAKE,
    },
    character(Some(1), Some(3), EVERY_RIGHT),
    character(Some(1), Some(5), EVERY_RIGHT),
    character(Some(1), Some(7), EVERY_RIGHT),
    character(Some(1), Some(8), EVERY_RIGHT),
    character(Some(1), Some(9), EVERY_RIGHT),
    character(Some(5), Some(0), EVERY_RIGHT),
    character(Some(5), Some(1), EVERY_RIGHT),
    character(Some(5), Some(2), EVERY_RIGHT),
    character(Some(136), None, EVERY_RIGHT),
];

/// The rules of a container, from the first to the last: nothing is allowed, then the configuration's, then the default ones.
/// Letters that are no right are passed over, as runc does.
pub fn rules(configured: &[DeviceRule]) -> Result<Vec<Rule>, Failure> {
    if configured.len() > RULES_MAX {
        return Err(Failure::invalid(
            "reading linux.resources.devices",
            format!(
                "it has {} rules, over the limit of {RULES_MAX}",
                configured.len()
            ),
        ));
    }
    let mut rules = Vec::with_capacity(configured.len() + DEFAULTS.len());
    for (index, rule) in configured.iter().enumerate() {
        read(index, rule, &mut rules)?;
    }
    rules.extend(DEFAULTS);
    Ok(rules)
}

fn read(index: usize, rule: &DeviceRule, rules: &mut Vec<Rule>) -> Result<(), Failure> {
    let refuse = |field: &str, why: String| {
        Err(Failure::invalid(
            format!("reading linux.resources.devices[{index}].{field}"),
            why,
        ))
    };
    let kinds: &[Kind] = match rule.kind.as_str() {
        "" | "a" => &[Kind::Char, Kind::Block],
        "c" | "u" => &[Kind::Char],
        "b" => &[Kind::Block],
        other => return refuse("type", format!("{other:?} is none of a, c, u and b")),
    };
    let number = |value: Option<i64>| match value {
        Some(value) if value >= 0 => u32::try_from(value).ok(),
        _ => None,
    };
    for (field, value) in [("major", rule.major), ("minor", rule.minor)] {
        if value.is_some_and(|value| !(-1..=NUMBER_MAX).contains(&value)) {
            return refuse(
                field,
                format!("{} is no device number (-1 is every)", value.unwrap_or(-1)),
            );
        }
    }
    let rights = rule.access.bytes().fold(0, |rights, letter| {
        rights
            | match letter {
                b'r' => READ,
                b'w' => WRITE,
                b'm' => MAKE,
                _ => 0,
            }
    });
    let every = kinds.len() == 2 && number(rule.major).is_none() && number(rule.minor).is_none();
    if rights == 0 && !(every && rule.access.is_empty()) {
        return refuse(
            "access",
            format!("{:?} holds none of r, w and m", rule.access),
        );
    }
    if every && (rights == EVERY_RIGHT || rights == 0) {
        rules.push(Rule {
            allow: rule.allow,
            devices: None,
            rights: EVERY_RIGHT,
        });
        return Ok(());
    }
    rules.extend(kinds.iter().map(|kind| Rule {
        allow: rule.allow,
        devices: Some(Devices {
            kind: *kind,
            major: number(rule.major),
            minor: number(rule.minor),
        }),
        rights,
    }));
    Ok(())
}

/// Whether a line of `devices.allow` is one of the defaults (or all of everything, which says no more than the group above).
pub fn is_default(written: &str) -> bool {
    let is_it = |rule: &Rule| {
        rule.devices
            .is_some_and(|devices| line(&devices, rule.rights) == written)
    };
    written == "a" || DEFAULTS.iter().any(is_it)
}

/// What the v1 controller keeps: a default, and exceptions from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    pub allow: bool,
    pub exceptions: Vec<(Devices, u8)>,
}

impl List {
    /// The list that means what the rules mean. v1 has no exceptions from exceptions: a rule that would take back a part
    /// of what an earlier one says is refused rather than ignored, as the kernel would.
    pub fn new(rules: &[Rule]) -> Result<Self, Failure> {
        let mut list = Self::default();
        for rule in rules {
            let Some(devices) = rule.devices else {
                list = Self {
                    allow: rule.allow,
                    exceptions: Vec::new(),
                };
                continue;
            };
            if rule.allow == list.allow {
                list.take_back(&devices, rule.rights)?;
            } else {
                list.add(devices, rule.rights);
            }
        }
        Ok(list)
    }

    fn add(&mut self, devices: Devices, rights: u8) {
        match self
            .exceptions
            .iter_mut()
            .find(|(known, _)| *known == devices)
        {
            Some((_, known)) => *known |= rights,
            None => self.exceptions.push((devices, rights)),
        }
    }

    fn take_back(&mut self, devices: &Devices, rights: u8) -> Result<(), Failure> {
        for (known, held) in &mut self.exceptions {
            if devices.holds(known) {
                *held &= !rights;
            } else if devices.meets(known) && *held & rights != 0 {
                return Err(Failure::invalid(
                    "reading linux.resources.devices",
                    format!(
                        "control groups v1 cannot take {:?} out of the earlier rule {:?}",
                        line(devices, rights),
                        line(known, *held)
                    ),
                ));
            }
        }
        self.exceptions.retain(|(_, held)| *held != 0);
        Ok(())
    }

    /// The list that `devices.list` shows. Exceptions from a default of everything are not shown by the kernel.
    pub fn parse(text: &str) -> Option<Self> {
        let mut list = Self::default();
        for entry in text.lines() {
            let mut fields = entry.split([' ', ':']);
            let kind = match fields.next()? {
                "a" => {
                    return Some(Self {
                        allow: true,
                        exceptions: Vec::new(),
                    });
                }
                "c" => Kind::Char,
                "b" => Kind::Block,
                _ => return None,
            };
            let mut number = || match fields.next()? {
                "*" => Some(None),
                digits => digits.parse().ok().map(Some),
            };
            let (major, minor) = (number()?, number()?);
            let rights = fields.next()?.bytes().fold(0, |rights, letter| {
                rights
                    | match letter {
                        b'r' => READ,
                        b'w' => WRITE,
                        b'm' => MAKE,
                        _ => 0,
                    }
            });
            list.add(Devices { kind, major, minor }, rights);
        }
        Some(list)
    }
}

/// What is written to `devices.deny` and `devices.allow`; the first also says which of them comes first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub deny_first: bool,
    pub deny: Vec<String>,
    pub allow: Vec<String>,
}

/// The writes that make `wanted` of `held`, without a moment in which something is denied that both allow, where that can be.
pub fn change(held: Option<&List>, wanted: &List) -> Change {
    let everything = || vec!["a".to_owned()];
    let lines = |exceptions: &[(Devices, u8)]| {
        exceptions
            .iter()
            .map(|(devices, rights)| line(devices, *rights))
            .collect()
    };
    match (held, wanted.allow) {
        (Some(held), false) if !held.allow => Change {
            deny_first: false,
            allow: less(&wanted.exceptions, &held.exceptions),
            deny: less(&held.exceptions, &wanted.exceptions),
        },
        (_, false) => Change {
            deny_first: true,
            deny: everything(),
            allow: lines(&wanted.exceptions),
        },
        (_, true) => Change {
            deny_first: false,
            allow: everything(),
            deny: lines(&wanted.exceptions),
        },
    }
}

/// The rights of `more` that `less` has not.
fn less(more: &[(Devices, u8)], less: &[(Devices, u8)]) -> Vec<String> {
    more.iter()
        .filter_map(|(devices, rights)| {
            let held = less
                .iter()
                .find(|(known, _)| known == devices)
                .map_or(0, |(_, rights)| *rights);
            Some(rights & !held)
                .filter(|missing| *missing != 0)
                .map(|missing| line(devices, missing))
        })
        .collect()
}

fn line(devices: &Devices, rights: u8) -> String {
    let kind = match devices.kind {
        Kind::Char => 'c',
        Kind::Block => 'b',
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let letters: String = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')]
        .into_iter()
        .filter(|(right, _)| rights & right != 0)
        .map(|(_, letter)| letter)
        .collect();
    format!(
        "{kind} {}:{} {letters}",
        number(devices.major),
        number(devices.minor)
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn rule(allow: bool, kind: &str, numbers: (i64, i64), access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: kind.into(),
            major: Some(numbers.0),
            minor: Some(numbers.1),
            access: access.into(),
        }
    }

    fn listed(configured: &[DeviceRule]) -> List {
        // Without the defaults, to see the configuration's alone.
        let rules = rules(configured).expect("rules");
        List::new(&rules[..rules.len() - DEFAULTS.len()]).expect("a list")
    }

    #[test]
    fn rules_are_a_list_of_exceptions_on_v1() {
        let deny_all = rule(false, "a", (-1, -1), "rwm");
        for (configured, want) in [
            (vec![], "deny:"),
            (vec![rule(true, "", (-1, -1), "rwm")], "allow:"),
            (
                vec![
                    deny_all.clone(),
                    rule(true, "c", (10, 200), "r"),
                    rule(true, "c", (10, 200), "w"),
                ],
                "deny:c 10:200 rw",
            ),
            (
                vec![
                    deny_all.clone(),
                    rule(true, "c", (10, 200), "rwm"),
                    rule(false, "c", (10, -1), "w"),
                ],
                "deny:c 10:200 rm",
            ),
            (
                vec![
                    rule(true, "a", (-1, -1), "rwm"),
                    rule(false, "b", (8, -1), "w"),
                ],
                "allow:b 8:* w",
            ),
            // Every kind with a number is both kinds, not everything.
            (vec![rule(true, "a", (7, 0), "r")], "deny:c 7:0 r,b 7:0 r"),
            (vec![rule(true, "a", (-1, -1), "r")], "deny:c *:* r,b *:* r"),
            // runc's own tests write such access.
            (vec![deny_all, rule(false, "c", (1, 11), "rwa")], "deny:"),
        ] {
            let list = listed(&configured);
            let lines: Vec<String> = list
                .exceptions
                .iter()
                .map(|(devices, rights)| line(devices, *rights))
                .collect();
            let default = if list.allow { "allow" } else { "deny" };
            assert_eq!(
                format!("{default}:{}", lines.join(",")),
                want,
                "{configured:?}"
            );
        }
    }

    #[test]
    fn rules_that_cannot_be_kept_are_refused_with_their_field() {
        for (bad, field) in [
            (rule(true, "p", (1, 1), "r"), "devices[0].type"),
            (rule(true, "c", (-2, 1), "r"), "devices[0].major"),
            (rule(true, "c", (1, 1 << 40), "r"), "devices[0].minor"),
            (rule(true, "c", (1, 1), ""), "devices[0].access"),
            (rule(true, "c", (1, 1), "x"), "devices[0].access"),
        ] {
            let refused = rules(&[bad]).expect_err(field);
            assert!(refused.to_string().contains(field), "{refused}");
        }
        let partial = [
            rule(true, "c", (5, -1), "rwm"),
            rule(false, "c", (5, 1), "w"),
        ];
        let rules = rules(&partial).expect("rules");
        assert!(
            List::new(&rules).is_err(),
            "a part cannot be taken back on v1"
        );
    }

    #[test]
    fn change_denies_nothing_in_between_that_both_lists_allow() {
        let held = List::parse("c 1:3 rwm\nc 1:5 rwm\nb *:* m\n").expect("a list");
        let wanted = List::parse("c 1:3 rwm\nc 1:5 r\nc 7:* rw\nb *:* m\n").expect("a list");
        assert_eq!(
            change(Some(&held), &wanted),
            Change {
                deny_first: false,
                deny: vec!["c 1:5 wm".into()],
                allow: vec!["c 7:* rw".into()],
            }
        );
        let fresh = change(None, &wanted);
        assert!(fresh.deny_first && fresh.deny == ["a"] && fresh.allow.len() == 4);
        let open = List::parse("a *:* rwm\n").expect("a list");
        assert!(open.allow);
        assert_eq!(change(Some(&held), &open).allow, ["a"]);
    }
}
