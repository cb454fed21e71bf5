//! Mount options, paths of control groups, ids, sysctl keys and paths inside a root.

use crate::{is_one_line, parts};
use shoal_runtime::{cgroup, id, mount_options, sysctl, within};
use std::collections::BTreeMap;

/// Nothing that is accepted leaves its place; what is refused is so in one line.
pub fn options_and_paths(bytes: &[u8]) {
    let [options, path, own_id, key, value] = parts(bytes).map(String::from_utf8_lossy);
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    if let Err(failure) = mount_options::parse(&path, &options) {
        is_one_line(&failure);
    }
    for systemd in [false, true] {
        match cgroup::paths::resolve(&path, systemd, &own_id) {
            Ok(resolved) => {
                assert!(
                    resolved.starts_with('/') && resolved.len() > 1,
                    "{resolved:?}"
                );
                let good = |part: &str| {
                    !part.is_empty() && part != "." && part != ".." && part.len() <= 255
                };
                assert!(resolved[1..].split('/').all(good), "{resolved:?}");
                cgroup::check_path(&resolved).expect("a resolved path");
            }
            Err(failure) => is_one_line(&failure),
        }
    }
    match within::components("reading a path", &path) {
        Ok(parts) => {
            let good = |part: &String| {
                !part.is_empty() && part != ".." && part != "." && !part.contains(['/', '\0'])
            };
            assert!(parts.iter().all(good), "{parts:?}");
        }
        Err(failure) => is_one_line(&failure),
    }
    let cleaned = within::clean(&path);
    assert!(
        cleaned
            .iter()
            .all(|part| !part.is_empty() && part != ".." && part != "."),
        "{cleaned:?}"
    );
    match id::check(&own_id) {
        Ok(()) => assert!(!own_id.contains(['/', '\0']) && !own_id.starts_with('.')),
        Err(failure) => is_one_line(&failure),
    }
    let settings = BTreeMap::from([(key.clone().into_owned(), value.into_owned())]);
    // Nothing of its own: no setting is the container's to change.
    let failure = sysctl::validate(&settings, 0).expect_err("no namespace is owned");
    is_one_line(&failure);
    if sysctl::validate(&settings, u64::MAX).is_ok() {
        // As sysctl(8): what is first, a slash or a dot, parts the names; the other one stands for the first inside a name.
        let (parting, other) = match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
            Some(b'/') => ('/', '.'),
            _ => ('.', '/'),
        };
        let good = |part: &str| {
            let part = if parting == '.' {
                part.replace(other, ".")
            } else {
                part.to_owned()
            };
            !part.is_empty() && part != "." && part != ".."
        };
        assert!(key.split(parting).all(good), "{key:?}");
        assert!(
            ["net", "kernel", "fs"].contains(&key.split(parting).next().unwrap_or_default()),
            "{key:?}"
        );
    }
}
