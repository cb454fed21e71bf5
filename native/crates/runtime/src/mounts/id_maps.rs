//! Mappings of owners written into a mount's options, as crun reads them: `idmap=uids=0-1000-10#10-2000-5;gids=0-1000-10`.
//!
//! Each triple is first id in the source, first id as seen through the mount, and how many. With `@` before it the second is an id of the
//! container's user namespace.

use shoal_protocol::oci::IdMapping;

/// Most triples of one list, as the kernel's limit of lines in uid_map.
const MAPPINGS_MAX: usize = 340;

/// User and group mappings of one mount.
type Maps = (Vec<IdMapping>, Vec<IdMapping>);

/// Reads them; `container` are the mappings of the container's user namespace. The error says what is wrong with which part.
pub(super) fn read(text: &str, container: (&[IdMapping], &[IdMapping])) -> Result<Maps, String> {
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for list in text.split(';').filter(|list| !list.is_empty()) {
        let (kind, triples) = list
            .split_once('=')
            .ok_or_else(|| format!("{list:?} is not uids=... or gids=..."))?;
        let (into, container) = match kind {
            "uids" => (&mut uids, container.0),
            "gids" => (&mut gids, container.1),
            _ => return Err(format!("{kind:?} is neither uids nor gids")),
        };
        for one in triples.split('#') {
            if into.len() == MAPPINGS_MAX {
                return Err(format!("{kind} has more than {MAPPINGS_MAX} mappings"));
            }
            into.push(triple(one, container)?);
        }
    }
    if uids.is_empty() || gids.is_empty() {
        return Err(format!("{text:?} must have both uids and gids"));
    }
    Ok((uids, gids))
}

fn triple(text: &str, container: &[IdMapping]) -> Result<IdMapping, String> {
    let (relative, numbers) = match text.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let parts: Option<Vec<u32>> = numbers.split('-').map(|part| part.parse().ok()).collect();
    let Some([container_id, seen, size]) = parts.as_deref() else {
        return Err(format!("{text:?} is not FIRST-SEEN-COUNT in numbers"));
    };
    let (container_id, seen, size) = (*container_id, *seen, *size);
    let last = |first: u32| first.checked_add(size.saturating_sub(1));
    if size == 0 || last(container_id).is_none() || last(seen).is_none() {
        return Err(format!("{text:?} is empty or leads past the last id"));
    }
    let host_id = if relative {
        let inside = container.iter().find_map(|range| {
            let offset = seen.checked_sub(range.container_id)?;
            let fits = offset < range.size && size <= range.size - offset;
            fits.then_some(range.host_id.checked_add(offset)?)
        });
        inside.ok_or_else(|| format!("{text:?} is not inside one mapping of the container's"))?
    } else {
        seen
    };
    Ok(IdMapping {
        container_id,
        host_id,
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    #[test]
    fn read_takes_lists_and_ids_of_the_container() {
        let own = [mapping(0, 100_000, 10), mapping(10, 200_000, 10)];
        let (uids, gids) =
            read("uids=0-1000-10#10-2000-5;gids=@0-12-3", (&own, &own)).expect("mappings");
        assert_eq!(uids, [mapping(0, 1000, 10), mapping(10, 2000, 5)]);
        assert_eq!(gids, [mapping(0, 200_002, 3)]);
    }

    #[test]
    fn read_refuses_the_rest() {
        let own = [mapping(0, 100_000, 10)];
        for bad in [
            "",
            "uids=0-0-1",
            "uids=0-0-0;gids=0-0-1",
            "uids=0-0;gids=0-0-1",
            "uids=0-0-1-2;gids=0-0-1",
            "uids=a-0-1;gids=0-0-1",
            "uids=4294967295-0-2;gids=0-0-1",
            "uids=@0-9-2;gids=0-0-1",
            "pids=0-0-1;gids=0-0-1",
            "uids",
        ] {
            assert!(read(bad, (&own, &own)).is_err(), "{bad:?}");
        }
        let long = format!("uids={};gids=0-0-1", ["0-0-1"; 341].join("#"));
        assert!(read(&long, (&own, &own)).is_err());
    }
}
