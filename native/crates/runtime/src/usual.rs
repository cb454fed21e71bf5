//! What create calls have in common, known by its text: a scheduler's calls are the same word for word in what a template has, which is most
//! of them, so that it is read and checked once.
//!
//! A call whose text has a known part where the part belongs is read without it. Whatever is unlike that in any way is read as a whole, and
//! refused so: nothing is refused here, and nothing is taken that would be refused as a whole.

use crate::caps::{self, Masks};
use crate::mounts::MOUNTS_MAX;
use crate::namespaces::Namespaces;
use crate::plan::Plan;
use crate::sandbox;
use serde::de::DeserializeOwned;
use shoal_protocol::Failure;
use shoal_protocol::calls::Create;
use shoal_protocol::oci::{Capabilities, DeviceRule, Mount, Namespace, Spec};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many kinds of calls are known at once; the one that was not asked for the longest goes first.
const KNOWN_MAX: usize = 4;
/// Longer parts are not kept, in bytes.
const PART_BYTES_MAX: usize = 16 * 1024;

/// A part of a call that is the template's (of the capabilities, only the masks are anybody's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its first elements only: a container's own volumes come after them.
    Mounts,
    Capabilities,
    Namespaces,
    MaskedPaths,
    ReadonlyPaths,
    Devices,
}
const PARTS: usize = 6;

/// The objects that lead to the parts.
#[derive(Debug, Clone, Copy)]
enum Object {
    Call,
    Spec,
    Process,
    Linux,
    Resources,
}

/// What the value of a key is.
enum Value {
    Object(Object),
    Part(Part),
    Other,
}

impl Object {
    fn value(self, key: &[u8]) -> Value {
        match (self, key) {
            (Self::Call, b"spec") => Value::Object(Self::Spec),
            (Self::Spec, b"process") => Value::Object(Self::Process),
            (Self::Spec, b"linux") => Value::Object(Self::Linux),
            (Self::Linux, b"resources") => Value::Object(Self::Resources),
            (Self::Spec, b"mounts") => Value::Part(Part::Mounts),
            (Self::Process, b"capabilities") => Value::Part(Part::Capabilities),
            (Self::Linux, b"namespaces") => Value::Part(Part::Namespaces),
            (Self::Linux, b"maskedPaths") => Value::Part(Part::MaskedPaths),
            (Self::Linux, b"readonlyPaths") => Value::Part(Part::ReadonlyPaths),
            (Self::Resources, b"devices") => Value::Part(Part::Devices),
            _ => Value::Other,
        }
    }
}

/// One kind of calls.
struct Known {
    /// By part; None where such a call has nothing.
    texts: [Option<Box<[u8]>>; PARTS],
    template: Arc<Spec>,
    caps: Masks,
}

/// A call of a known kind.
#[derive(Debug)]
pub struct Usually {
    /// Without its configuration.
    pub create: Create,
    pub cgroup: String,
    pub namespaces: Namespaces,
    pub caps: Masks,
    /// The configuration, as `sandbox::split` parts it, without the names of capabilities.
    pub template: Arc<Spec>,
    pub own: Spec,
}

/// Checks a call, whose configuration is the plan's afterwards.
pub type Check = fn(&mut Create) -> Result<Plan, Failure>;

/// The kinds of calls that were asked for last.
#[derive(Default)]
pub struct Usual(Mutex<Vec<Arc<Known>>>);

impl Usual {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of a known kind, as reading and checking it as a whole gives it; None for any other.
    pub fn read(&self, call: &[u8], check: Check) -> Option<Usually> {
        let known = self.lock().clone();
        let (at, read) = known
            .iter()
            .enumerate()
            .find_map(|(at, known)| Some((at, known.read(call, check)?)))?;
        if at > 0 {
            let mut all = self.lock();
            if let Some(at) = all.iter().position(|one| Arc::ptr_eq(one, &known[at])) {
                all[..=at].rotate_right(1);
            }
        }
        Some(read)
    }

    /// Takes note of a call that has been read as a whole: its template (`sandbox::split`) and capabilities.
    pub fn note(&self, call: &[u8], template: &Arc<Spec>, caps: Masks) {
        if let Some(known) = Known::of(call, template, caps) {
            let mut all = self.lock();
            all.retain(|one| one.texts != known.texts);
            all.truncate(KNOWN_MAX - 1);
            all.insert(0, Arc::new(known));
        }
    }
}

impl Known {
    /// None when the parts of the text are not what the template has.
    fn of(call: &[u8], template: &Arc<Spec>, caps: Masks) -> Option<Self> {
        let mut texts = [const { None }; PARTS];
        for (text, place) in texts.iter_mut().zip(places(call, None)?) {
            *text = place.map(|place| Box::from(&call[place]));
        }
        if let Some(mounts) = &mut texts[Part::Mounts as usize] {
            let end = elements_end(mounts, template.mounts.len())?;
            *mounts = Box::from(&mounts[..end]);
        }
        let known = Self {
            texts,
            template: Arc::clone(template),
            caps,
        };
        let linux = &template.linux;
        let is_so = known.value::<Vec<Mount>>(Part::Mounts, b"]")? == template.mounts
            && caps::masks(&known.value::<Capabilities>(Part::Capabilities, b"")?) == caps
            && known.value::<Vec<Namespace>>(Part::Namespaces, b"")? == linux.namespaces
            && known.value::<Vec<String>>(Part::MaskedPaths, b"")? == linux.masked_paths
            && known.value::<Vec<String>>(Part::ReadonlyPaths, b"")? == linux.readonly_paths
            && known.value::<Vec<DeviceRule>>(Part::Devices, b"")? == linux.resources.devices;
        let long = |text: &[u8]| text.len() > PART_BYTES_MAX;
        let short = !known.texts.iter().flatten().any(|text| long(text));
        (is_so && short).then_some(known)
    }

    /// What a part says; its default where there is none.
    fn value<T: DeserializeOwned + Default>(&self, part: Part, end: &[u8]) -> Option<T> {
        match &self.texts[part as usize] {
            Some(text) => serde_json::from_slice(&[text, end].concat()).ok(),
            None => Some(T::default()),
        }
    }

    fn read(&self, call: &[u8], check: Check) -> Option<Usually> {
        let mut create: Create = serde_json::from_slice(&self.without_parts(call)?).ok()?;
        // What is not given with the call is found out elsewhere; and health checks are run with the names of capabilities.
        if create.spec.linux.cgroups_path.is_empty() || create.health.is_some() {
            return None;
        }
        let mounts = create.spec.mounts.len() + self.template.mounts.len();
        if mounts > MOUNTS_MAX || create.spec.process.capabilities != Capabilities::default() {
            return None;
        }
        create.spec = sandbox::complete(sandbox::own(create.spec)?, &self.template);
        let plan = check(&mut create).ok()?;
        let mut own = plan.spec;
        own.linux.namespaces = Vec::new();
        Some(Usually {
            create,
            cgroup: plan.cgroup,
            namespaces: plan.namespaces,
            caps: self.caps,
            template: Arc::clone(&self.template),
            own,
        })
    }

    /// The call with nothing in place of each part; None when it does not have every part, and nothing else there.
    fn without_parts(&self, call: &[u8]) -> Option<Vec<u8>> {
        let places = places(call, Some(&self.texts))?;
        let mut cuts = Vec::with_capacity(PARTS);
        for (at, (text, place)) in self.texts.iter().zip(places).enumerate() {
            let (text, place) = match (text, place) {
                (Some(text), Some(place)) => (text, place),
                (None, None) => continue,
                _ => return None,
            };
            let value = &call[place.clone()];
            if !value.starts_with(text) {
                return None;
            }
            let end = place.start + text.len();
            if at != Part::Mounts as usize {
                if end != place.end {
                    return None;
                }
                cuts.push((place, &b"null"[..]));
                continue;
            }
            let rest = end + blanks(&call[end..place.end]);
            let end = match call.get(rest)? {
                b']' => rest,
                b',' => {
                    let next = rest + 1 + blanks(&call[rest + 1..place.end]);
                    // Else it is no array.
                    if call.get(next) != Some(&b'{') {
                        return None;
                    }
                    next
                }
                _ => return None,
            };
            cuts.push((place.start..end, b"["));
        }
        cuts.sort_unstable_by_key(|(cut, _)| cut.start);
        let mut short = Vec::with_capacity(call.len());
        let mut at = 0;
        for (cut, instead) in cuts {
            short.extend_from_slice(&call[at..cut.start]);
            short.extend_from_slice(instead);
            at = cut.end;
        }
        short.extend_from_slice(&call[at..]);
        Some(short)
    }
}

/// Where the values of the parts are; null counts as none. None for a text in which they cannot be told. What is found is right when the
/// text is JSON, which is not looked at here. A part that begins as it is `expected` to is not gone through again.
fn places(
    call: &[u8],
    expected: Option<&[Option<Box<[u8]>>; PARTS]>,
) -> Option<[Option<Range<usize>>; PARTS]> {
    let mut found = [const { None }; PARTS];
    let begin = blanks(call);
    if call.get(begin) != Some(&b'{') {
        return None;
    }
    let mut walk = Walk {
        text: call,
        expected,
        found: &mut found,
    };
    walk.object(begin, Object::Call)?;
    Some(found)
}

struct Walk<'a> {
    text: &'a [u8],
    expected: Option<&'a [Option<Box<[u8]>>; PARTS]>,
    found: &'a mut [Option<Range<usize>>; PARTS],
}

impl Walk<'_> {
    /// Goes through the object that begins at `at`; gives where it ends.
    fn object(&mut self, at: usize, object: Object) -> Option<usize> {
        let mut at = self.skip_blanks(at + 1);
        if *self.text.get(at)? == b'}' {
            return Some(at + 1);
        }
        loop {
            let end = string_end(self.text, at)?;
            let key = self.text.get(at + 1..end - 1)?;
            at = self.skip_blanks(end);
            if *self.text.get(at)? != b':' {
                return None;
            }
            at = self.skip_blanks(at + 1);
            let first = *self.text.get(at)?;
            at = match object.value(key) {
                Value::Object(inner) if first == b'{' => self.object(at, inner)?,
                Value::Part(part) if matches!(first, b'{' | b'[') => {
                    let end = self.part_end(at, part)?;
                    if self.found[part as usize].replace(at..end).is_some() {
                        return None;
                    }
                    end
                }
                _ => value_end(self.text, at, 0)?,
            };
            at = self.skip_blanks(at);
            match self.text.get(at)? {
                b',' => at = self.skip_blanks(at + 1),
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn part_end(&self, at: usize, part: Part) -> Option<usize> {
        let expected = self.expected.and_then(|all| all[part as usize].as_ref());
        let known = expected.filter(|text| self.text[at..].starts_with(text));
        match (known, part) {
            // Inside of the array still.
            (Some(text), Part::Mounts) => value_end(self.text, at + text.len(), 1),
            (Some(text), _) => Some(at + text.len()),
            (None, _) => value_end(self.text, at, 0),
        }
    }

    fn skip_blanks(&self, at: usize) -> usize {
        at + blanks(self.text.get(at..).unwrap_or_default())
    }
}

/// How many blanks a text begins with.
fn blanks(text: &[u8]) -> usize {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    text.iter()
        .position(|byte| !is_blank(byte))
        .unwrap_or(text.len())
}

/// Behind the closing quote of the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins at `at`, or, at a depth, behind the bracket that closes the outermost one around it.
fn value_end(text: &[u8], mut at: usize, mut depth: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => {
                at = string_end(text, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            // A number or a word.
            _ if depth == 0 => {
                let is_over = |byte: &u8| matches!(byte, b',' | b'}' | b']');
                let length = text[at..].iter().position(is_over)?;
                return (length > 0).then_some(at + length);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Behind the element of an array that is the `count`th.
fn elements_end(array: &[u8], count: usize) -> Option<usize> {
    let mut at = 1;
    for index in 0..count {
        at += blanks(array.get(at..)?);
        if index > 0 {
            if *array.get(at)? != b',' {
                return None;
            }
            at += 1 + blanks(array.get(at + 1..)?);
        }
        at = value_end(array, at, 0)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Input, RootSource};
    use serde_json::{Value as Json, json};

    fn check(create: &mut Create) -> Result<Plan, Failure> {
        let spec = std::mem::take(&mut create.spec);
        Plan::new(Input {
            container_id: create.container_id.clone(),
            cgroup: spec.linux.cgroups_path.clone(),
            spec,
            root: RootSource::Overlay(create.rootfs.clone()),
        })
    }

    fn sample() -> Json {
        let mount = |at: &str, kind: &str| json!({"destination": at, "type": kind, "source": kind, "options": ["nosuid", "ro"]});
        let sets = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
        let kinds = ["mount", "network", "uts", "pid", "ipc", "cgroup"];
        json!({
            "call": "run", "containerId": "a", "id": 7,
            "spec": {
                "process": {"args": ["a \"b\\", "]}"], "cwd": "/", "env": [], "capabilities": sets, "oomScoreAdj": null},
                "hostname": "h",
                "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/sys", "sysfs")],
                "annotations": {"mounts": "[{", "maskedPaths": "x"},
                "linux": {
                    "namespaces": kinds.map(|kind| json!({"type": kind, "path": null})),
                    "resources": {"memory": {"limit": 1 << 30}, "devices": [{"allow": false, "access": "rwm"}]},
                    "cgroupsPath": "/g/a",
                    "maskedPaths": ["/proc/kcore", "/sys/firmware"],
                    "readonlyPaths": ["/proc/sys"]
                }
            },
            "rootfs": {"layers": ["/l"], "directory": "/d/a"},
            "log": null
        })
    }

    /// What reading a call as a whole gives.
    fn whole(call: &[u8]) -> Option<Usually> {
        let mut create: Create = serde_json::from_slice(call).ok()?;
        let plan = check(&mut create).ok()?;
        let (template, mut own) = sandbox::split(plan.spec)?;
        own.process.capabilities = Capabilities::default();
        Some(Usually {
            create,
            cgroup: plan.cgroup,
            namespaces: plan.namespaces,
            caps: plan.caps,
            template: Arc::new(template),
            own,
        })
    }

    fn told(of: &Usually) -> String {
        format!("{of:?}")
    }

    /// With the kind of this call known.
    fn knowing(call: &[u8]) -> Usual {
        let usual = Usual::default();
        let whole = whole(call).expect("one for the pool");
        usual.note(call, &whole.template, whole.caps);
        usual
    }

    /// Reads a call that was changed both ways; tells whether its kind was known.
    fn is_known(usual: &Usual, call: &[u8]) -> bool {
        let Some(read) = usual.read(call, check) else {
            return false;
        };
        let whole = whole(call).expect("nothing is taken that is refused as a whole");
        assert_eq!(told(&read), told(&whole));
        true
    }

    #[test]
    fn a_call_of_a_known_kind_is_read_as_it_would_be_as_a_whole() {
        let usual = knowing(sample().to_string().as_bytes());
        let changed = |change: fn(&mut Json)| {
            let mut call = sample();
            change(&mut call);
            is_known(&usual, call.to_string().as_bytes())
        };
        assert!(changed(|_| {}));
        let volume =
            json!({"destination": "/v", "type": "bind", "source": "/s", "options": ["rbind"]});
        let known: [fn(&mut Json); 6] = [
            |call| call["containerId"] = json!("other"),
            |call| call["spec"]["process"]["args"] = json!(["x", "\u{1F600}\\\""]),
            |call| call["spec"]["process"]["user"] = json!({"uid": 7}),
            |call| call["spec"]["linux"]["resources"]["memory"] = json!(null),
            |call| call["spec"]["linux"]["cgroupsPath"] = json!("/g/b"),
            |call| call["log"] = json!({"path": "/x", "maxSizeBytes": null, "maxFiles": 1}),
        ];
        for change in known {
            assert!(changed(change));
        }
        let mut call = sample();
        let mounts = call["spec"]["mounts"].as_array_mut().expect("mounts");
        mounts.push(volume);
        assert!(is_known(&usual, call.to_string().as_bytes()));
        let unknown: [fn(&mut Json); 12] = [
            |call| call["spec"]["mounts"][0]["source"] = json!("x"),
            |call| {
                let mounts = call["spec"]["mounts"].as_array_mut().expect("mounts");
                mounts.insert(0, json!({"destination": "/v", "type": "tmpfs"}));
            },
            |call| {
                let mounts = call["spec"]["mounts"].as_array_mut().expect("mounts");
                mounts.push(json!({"destination": "/dev/shm", "type": "tmpfs"}));
            },
            |call| call["spec"]["linux"]["maskedPaths"] = json!(null),
            |call| call["spec"]["linux"]["readonlyPaths"] = json!([]),
            |call| call["spec"]["linux"]["namespaces"][0]["path"] = json!("/ns"),
            |call| call["spec"]["linux"]["sysctl"] = json!({"net.x": "1"}),
            |call| call["spec"]["linux"]["cgroupsPath"] = json!(""),
            |call| call["spec"]["process"]["cwd"] = json!("relative"),
            |call| call["spec"]["process"]["terminal"] = json!(true),
            |call| call["spec"]["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]),
            |call| call["health"] = json!({"test": ["CMD", "x"], "intervalMs": 0, "timeoutMs": 0, "startPeriodMs": 0, "startIntervalMs": 0, "retries": 0}),
        ];
        for (index, change) in unknown.into_iter().enumerate() {
            assert!(!changed(change), "{index}");
        }
    }

    #[test]
    fn a_part_counts_only_where_it_belongs_and_once() {
        let text = sample().to_string();
        let usual = knowing(text.as_bytes());
        let masked = r#""maskedPaths":["/proc/kcore","/sys/firmware"]"#;
        for (from, to) in [
            // Twice, elsewhere, with its name written otherwise, and behind what ends no value.
            (masked, format!("{masked},{masked}")),
            (masked, format!(r#""x":{{{masked}}}"#)),
            (masked, masked.replace("maskedPaths", r"masked\u0050aths")),
            (masked, masked.replace(']', "]]")),
            (masked, masked.replace(']', "],")),
            (r#"}],"process""#, r#"},],"process""#.to_owned()),
            (r#"}],"process""#, r#"}}],"process""#.to_owned()),
            (r#"}],"process""#, r#"}"#.to_owned()),
        ] {
            assert!(text.contains(from), "{from}");
            let call = text.replacen(from, &to, 1);
            assert!(!is_known(&usual, call.as_bytes()), "{to}");
        }
        let spaced = text.replacen(masked, &masked.replace(':', " :\n "), 1);
        assert!(is_known(&usual, spaced.as_bytes()));
    }

    #[test]
    fn bytes_that_are_turned_left_out_or_doubled_are_read_as_they_would_be_as_a_whole() {
        let text = sample().to_string().into_bytes();
        let usual = knowing(&text);
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed >> 33).expect("31 bits") % below
        };
        let mut known = 0;
        for _ in 0..20_000 {
            let mut call = text.clone();
            let at = random(call.len());
            match random(4) {
                0 => call[at] ^= 1 << random(7),
                1 => drop(call.remove(at)),
                2 => call[at] = b"\"{}[],:\\ "[random(9)],
                _ => {
                    let part = call[at..(at + random(40)).min(call.len())].to_vec();
                    call.splice(at..at, part);
                }
            }
            known += usize::from(is_known(&usual, &call));
        }
        assert!(known > 1000, "{known} of 20,000");
    }

    #[test]
    fn a_kind_is_forgotten_when_others_are_asked_for() {
        let usual = Usual::default();
        let call = |number: usize| {
            let mut call = sample();
            call["spec"]["linux"]["maskedPaths"] = json!([format!("/proc/{number}")]);
            call.to_string().into_bytes()
        };
        for number in 0..=KNOWN_MAX {
            let whole = whole(&call(number)).expect("one for the pool");
            for _ in 0..2 {
                usual.note(&call(number), &whole.template, whole.caps);
            }
        }
        assert_eq!(usual.lock().len(), KNOWN_MAX);
        assert!(!is_known(&usual, &call(0)));
        for number in 1..=KNOWN_MAX {
            assert!(is_known(&usual, &call(number)));
        }
        // What was asked for last is looked at first.
        let first = usual.lock()[0].texts[Part::MaskedPaths as usize].clone();
        assert_eq!(
            first.as_deref(),
            Some(format!(r#"["/proc/{KNOWN_MAX}"]"#).as_bytes())
        );
    }
}
