//! `user[:group]` by the image's /etc/passwd and /etc/group.

use rcontainerd_types::{Error, Result};

use super::Rootfs;

/// Enough for any real file; bounds what an image can make us hold.
const FILE_MAX: u64 = 4 << 20;
/// As far as the kernel's ids go; above would wrap.
const ID_MAX: u64 = (1 << 31) - 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

/// # Errors
/// `InvalidArgument` in Docker's words when a name is unknown.
pub fn resolve(rootfs: &Rootfs, spec: &str, group_add: &[String]) -> Result<User> {
    let text = |path: &str| Ok::<_, Error>(String::from_utf8_lossy(&rootfs.read(path, FILE_MAX)?.unwrap_or_default()).into_owned());
    resolve_in(&text("/etc/passwd")?, &text("/etc/group")?, spec, group_add)
}

fn resolve_in(passwd: &str, group: &str, spec: &str, group_add: &[String]) -> Result<User> {
    let (name, wanted_group) = match spec.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let entry = find_user(passwd, name)?;
    let mut user = match &entry {
        Some(entry) => User { uid: entry.uid, gid: entry.gid, additional_gids: Vec::new() },
        None => User { uid: number(name)?.ok_or_else(|| unknown_user(name))?, gid: 0, additional_gids: Vec::new() },
    };
    match (wanted_group, &entry) {
        (Some(wanted), _) => user.gid = find_group(group, wanted)?,
        // Without a group asked for, the groups that list the user count too.
        (None, Some(entry)) => user.additional_gids = memberships(group, &entry.name),
        (None, None) => {}
    }
    for wanted in group_add {
        user.additional_gids.push(find_group(group, wanted)?);
    }
    if !user.additional_gids.contains(&user.gid) {
        user.additional_gids.insert(0, user.gid);
    }
    user.additional_gids.dedup();
    Ok(user)
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
}

/// By name first: a user may be called `1000`.
fn find_user(passwd: &str, wanted: &str) -> Result<Option<Entry>> {
    let entries = || passwd.lines().filter_map(parse_user);
    if let Some(entry) = entries().find(|entry| entry.name == wanted) {
        return Ok(Some(entry));
    }
    let Some(uid) = number(wanted)? else { return Err(unknown_user(wanted)) };
    Ok(entries().find(|entry| entry.uid == uid))
}

fn parse_user(line: &str) -> Option<Entry> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = parse_id(fields.nth(1)?)?;
    let gid = parse_id(fields.next()?)?;
    Some(Entry { name: name.to_owned(), uid, gid })
}

fn find_group(group: &str, wanted: &str) -> Result<u32> {
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        (fields.next()? == wanted).then(|| parse_id(fields.nth(1)?)).flatten()
    });
    match by_name {
        Some(gid) => Ok(gid),
        None => number(wanted)?.ok_or_else(|| Error::invalid(format!("Unable to find group {wanted}: no matching entries in group file"))),
    }
}

fn memberships(group: &str, user: &str) -> Vec<u32> {
    let listed = group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let gid = parse_id(fields.nth(2)?)?;
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    });
    listed.collect()
}

fn parse_id(text: &str) -> Option<u32> {
    text.parse::<u64>().ok().filter(|id| *id <= ID_MAX).and_then(|id| u32::try_from(id).ok())
}

/// `None` for what is no number; an error for one that no id can have.
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    parse_id(text).map(Some).ok_or_else(|| Error::invalid(format!("uids and gids must be in range 0-{ID_MAX}, not {text}")))
}

fn unknown_user(name: &str) -> Error {
    Error::invalid(format!("unable to find user {name}: no matching entries in passwd file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nme:x:1000:1001::/home/me:\n4000:x:5:6:::\nbroken\nbig:x:4294967296:0:::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,me\naudio:x:29:me\nmine:x:1001:\n";

    fn ids(spec: &str, add: &[&str]) -> Result<(u32, u32, Vec<u32>)> {
        let add: Vec<String> = add.iter().map(|&name| name.to_owned()).collect();
        resolve_in(PASSWD, GROUP, spec, &add).map(|user| (user.uid, user.gid, user.additional_gids))
    }

    #[test]
    fn names_numbers_and_groups() {
        for (spec, expected) in [
            ("", (0, 0, vec![0, 10])),
            ("me", (1000, 1001, vec![1001, 10, 29])),
            ("1000", (1000, 1001, vec![1001, 10, 29])),
            ("me:audio", (1000, 29, vec![29])),
            ("39:60", (39, 60, vec![60])),
            ("77", (77, 0, vec![0])),
            ("4000", (5, 6, vec![6])),
            ("me:", (1000, 1001, vec![1001, 10, 29])),
        ] {
            assert_eq!(ids(spec, &[]).expect(spec), expected, "{spec:?}");
        }
        assert_eq!(ids("77", &["audio", "99"]).expect("group-add").2, [0, 29, 99]);
    }

    #[test]
    fn ids_do_not_wrap_and_unknown_names_are_told() {
        for bad in ["nobody", "4294967296", "2147483648", "me:nogroup", "big", "-1"] {
            assert!(ids(bad, &[]).is_err(), "{bad:?} should be refused");
        }
        assert_eq!(ids("nobody", &[]).expect_err("unknown").message(), "unable to find user nobody: no matching entries in passwd file");
    }
}
