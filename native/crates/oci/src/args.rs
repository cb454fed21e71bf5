//! Reading a command line by a table of flags, with the spellings that callers of runc and crun use.

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// One value; the last one given counts.
    Text,
    /// A value each time that it is given.
    Many,
}

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub help: &'static str,
}

/// A flag without a value.
pub const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        kind: Kind::Switch,
        help,
    }
}

/// A flag with one value.
pub const fn text(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        kind: Kind::Text,
        help,
    }
}

/// A flag that may be given again and again.
pub const fn many(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        kind: Kind::Many,
        help,
    }
}

/// Flags with their values, and the operands that are left.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Parsed {
    values: Vec<(&'static str, String)>,
    pub operands: Vec<String>,
}

impl Parsed {
    /// The last value of a flag.
    pub fn text(&self, long: &str) -> Option<&str> {
        self.values
            .iter()
            .rev()
            .find(|(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a flag, in order.
    pub fn all(&self, long: &str) -> impl Iterator<Item = &str> {
        self.values
            .iter()
            .filter(move |(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn on(&self, long: &str) -> bool {
        self.text(long) == Some("true")
    }

    /// A flag's value as a number; the error names flag and value.
    pub fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>, String> {
        match self.text(long) {
            None | Some("") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| {
                format!("invalid value {value:?} for --{long}: it is not a number that fits")
            }),
        }
    }
}

/// Reads `args` by a table. `in_order` ends the flags at the first operand; otherwise they may stand anywhere before `--`.
/// `-x`, `--x`, `-long`, `--long=value`, `--long value`, `-xvalue` and clusters of short switches are all read.
pub fn parse(flags: &'static [Flag], args: &[String], in_order: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            parsed.operands.extend(rest.cloned());
            break;
        }
        if !arg.starts_with('-') || arg.len() == 1 {
            parsed.operands.push(arg.clone());
            if in_order {
                parsed.operands.extend(rest.cloned());
                break;
            }
            continue;
        }
        let body = arg
            .strip_prefix("--")
            .or_else(|| arg.strip_prefix('-'))
            .unwrap_or(arg);
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if let Some(flag) = find(flags, name) {
            let value = match (flag.kind, inline) {
                (Kind::Switch, None) => "true".to_owned(),
                (Kind::Switch, Some(value)) => truth(flag.long, &value)?,
                (_, Some(value)) => value,
                (_, None) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("flag needs an argument: --{}", flag.long))?,
            };
            parsed.values.push((flag.long, value));
        } else if arg.starts_with("--") || !cluster(flags, body, &mut rest, &mut parsed)? {
            return Err(format!("flag provided but not defined: {arg}"));
        }
    }
    Ok(parsed)
}

fn find(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    flags.iter().find(|flag| {
        flag.long == name
            || flag
                .short
                .is_some_and(|short| name.len() == short.len_utf8() && name.starts_with(short))
    })
}

/// `-itu0`: short switches, of which the last may be a flag with its value. `false` when it is no such thing.
fn cluster<'a>(
    flags: &'static [Flag],
    body: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    parsed: &mut Parsed,
) -> Result<bool, String> {
    let mut found = Vec::new();
    for (at, letter) in body.char_indices() {
        let Some(flag) = flags.iter().find(|flag| flag.short == Some(letter)) else {
            return Ok(false);
        };
        if flag.kind == Kind::Switch {
            found.push((flag.long, "true".to_owned()));
            continue;
        }
        let attached = &body[at + letter.len_utf8()..];
        let value = if attached.is_empty() {
            rest.next()
                .cloned()
                .ok_or_else(|| format!("flag needs an argument: --{}", flag.long))?
        } else {
            attached.strip_prefix('=').unwrap_or(attached).to_owned()
        };
        found.push((flag.long, value));
        break;
    }
    parsed.values.extend(found);
    Ok(true)
}

fn truth(long: &str, value: &str) -> Result<String, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
        _ => Err(format!(
            "invalid boolean value {value:?} for --{long}: say true or false"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        switch("detach", Some('d'), ""),
        switch("tty", Some('t'), ""),
        text("user", Some('u'), ""),
        many("env", Some('e'), ""),
        text("pids-limit", None, ""),
    ];

    fn read(line: &str, in_order: bool) -> Result<Parsed, String> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(FLAGS, &args, in_order)
    }

    #[test]
    fn parse_takes_every_spelling() {
        for line in [
            "--detach --user=7 --env A=1 -e B=2 id",
            "-d -user 7 -e A=1 -env=B=2 id",
            "-detach=true -u=7 -eA=1 --env=B=2 -- id",
            "id --detach -u 7 --env A=1 --env B=2",
        ] {
            let got = read(line, false).expect(line);
            assert!(got.on("detach"), "{line}");
            assert!(!got.on("tty"), "{line}");
            assert_eq!(got.text("user"), Some("7"), "{line}");
            assert_eq!(got.all("env").collect::<Vec<_>>(), ["A=1", "B=2"], "{line}");
            assert_eq!(got.operands, ["id"], "{line}");
        }
    }

    #[test]
    fn parse_reads_clusters_and_negative_values() {
        let got = read("-tdu 5 --pids-limit -1 id", false).expect("a cluster");
        assert!(got.on("tty") && got.on("detach"));
        assert_eq!(got.text("user"), Some("5"));
        assert_eq!(got.number::<i64>("pids-limit"), Ok(Some(-1)));
        assert!(!read("--detach=false id", false).expect("off").on("detach"));
    }

    #[test]
    fn parse_in_order_leaves_the_programs_flags_alone() {
        let got = read("-t id ls -d --nope", true).expect("in order");
        assert_eq!(got.operands, ["id", "ls", "-d", "--nope"]);
        assert!(!got.on("detach"));
    }

    #[test]
    fn parse_names_what_it_refuses() {
        for (line, want) in [
            ("--nope id", "flag provided but not defined: --nope"),
            ("-dz id", "flag provided but not defined: -dz"),
            ("id --user", "flag needs an argument: --user"),
            (
                "--detach=maybe id",
                "invalid boolean value \"maybe\" for --detach: say true or false",
            ),
        ] {
            assert_eq!(read(line, false), Err(want.to_owned()));
        }
        let bad = read("--pids-limit 9x id", false).expect("text");
        assert!(
            bad.number::<i64>("pids-limit")
                .is_err_and(|text| text.contains("9x"))
        );
    }
}
