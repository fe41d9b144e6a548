//! criu's requests and answers (rpc.proto of criu; the numbers are its fields').

use super::wire::{Message, Value, fields};

/// criu_req_type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    fn of(number: u64) -> Option<Kind> {
        [Kind::Dump, Kind::Restore, Kind::PreDump, Kind::Notify, Kind::FeatureCheck, Kind::Version]
            .into_iter()
            .find(|kind| *kind as u64 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Dump => "dump",
            Kind::Restore => "restore",
            Kind::PreDump => "pre-dump",
            Kind::Notify => "notify",
            Kind::FeatureCheck => "feature check",
            Kind::Version => "version",
        }
    }
}

/// criu_cg_mode, as far as it can be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupMode {
    #[default]
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

/// criu_opts: what is left at its default is not sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    pub images_dir: i32,
    pub pid: Option<i32>,
    pub leave_running: bool,
    pub external_sockets: bool,
    pub tcp_established: bool,
    pub evasive_devices: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub log_level: i32,
    pub log_file: String,
    /// (address, port)
    pub page_server: Option<(String, u16)>,
    pub root: String,
    pub parent_images: Option<String>,
    pub track_memory: bool,
    pub auto_dedup: bool,
    pub work_dir: Option<i32>,
    pub link_remap: bool,
    /// (the mount's place in the container, where it comes from)
    pub external_mounts: Vec<(String, String)>,
    pub restore_as_sibling: bool,
    /// (key, descriptor of criu's)
    pub inherited: Vec<(String, i32)>,
    pub cgroups: CgroupMode,
    pub external: Vec<String>,
    /// `CLONE_NEW*` of namespaces whose inside is left alone.
    pub empty_namespaces: u32,
    /// (kind, file)
    pub joined_namespaces: Vec<(String, String)>,
    pub freeze_cgroup: Option<String>,
    pub tcp_skip_in_flight: bool,
    pub lazy_pages: bool,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

impl Options {
    fn encode(&self) -> Message {
        let mut m = Message::default();
        m.int(1, self.images_dir);
        if let Some(pid) = self.pid {
            m.int(2, pid);
        }
        let flags = [
            (3, self.leave_running),
            (4, self.external_sockets),
            (5, self.tcp_established),
            (6, self.evasive_devices),
            (7, self.shell_job),
            (8, self.file_locks),
            (12, true),
            (15, self.track_memory),
            (16, self.auto_dedup),
            (18, self.link_remap),
            (26, self.restore_as_sibling),
            (46, self.tcp_skip_in_flight),
            (48, self.lazy_pages),
            (50, true),
        ];
        flags.into_iter().for_each(|(field, on)| m.flag(field, on));
        m.int(9, self.log_level);
        m.bytes(10, self.log_file.as_bytes());
        if let Some((address, port)) = &self.page_server {
            let mut server = Message::default();
            server.bytes(1, address.as_bytes());
            server.int(2, i32::from(*port));
            m.message(11, &server);
        }
        let texts = [(14, &self.parent_images), (44, &self.freeze_cgroup), (53, &self.lsm_profile), (63, &self.lsm_mount_context)];
        texts.into_iter().for_each(|(field, text)| text.iter().for_each(|text| m.bytes(field, text.as_bytes())));
        if !self.root.is_empty() {
            m.bytes(13, self.root.as_bytes());
        }
        if let Some(dir) = self.work_dir {
            m.int(17, dir);
        }
        // The older of the two fields for cgroups cannot say "ignore" to every version: the newer one overrides it.
        m.number(34, self.cgroups as u64);
        self.external_mounts.iter().for_each(|(key, value)| m.message(23, &pair(key, value)));
        for (key, fd) in &self.inherited {
            let mut inherited = Message::default();
            inherited.bytes(1, key.as_bytes());
            inherited.int(2, *fd);
            m.message(27, &inherited);
        }
        self.external.iter().for_each(|external| m.bytes(37, external.as_bytes()));
        if self.empty_namespaces != 0 {
            m.number(38, self.empty_namespaces.into());
        }
        self.joined_namespaces.iter().for_each(|(kind, file)| m.message(39, &pair(kind, file)));
        m
    }
}

/// Two texts.
fn pair(first: &str, second: &str) -> Message {
    let mut m = Message::default();
    m.bytes(1, first.as_bytes());
    m.bytes(2, second.as_bytes());
    m
}

/// A request of this kind.
pub fn request(kind: Kind, options: Option<&Options>) -> Vec<u8> {
    let mut m = Message::default();
    m.number(1, kind as u64);
    if let Some(options) = options {
        m.message(2, &options.encode());
    }
    m.into_bytes()
}

/// The answer to a notification.
pub fn notified(success: bool) -> Vec<u8> {
    let mut m = Message::default();
    m.number(1, Kind::Notify as u64);
    m.number(3, success.into());
    m.into_bytes()
}

/// What criu and the kernel may be able to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    pub track_memory: bool,
    pub lazy_pages: bool,
}

/// The question for these.
pub fn feature_check(wanted: Features) -> Vec<u8> {
    let mut features = Message::default();
    features.flag(1, wanted.track_memory);
    features.flag(2, wanted.lazy_pages);
    let mut m = Message::default();
    m.number(1, Kind::FeatureCheck as u64);
    m.message(5, &features);
    m.into_bytes()
}

/// criu_resp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub kind: Kind,
    pub success: bool,
    /// The first process of what was restored.
    pub restored: Option<i32>,
    /// (the moment, the first process where there is one)
    pub notification: Option<(String, Option<i32>)>,
    pub errno: i32,
    pub message: String,
    pub features: Features,
    /// As 31701 for 3.17.1.
    pub version: Option<u32>,
}

impl Answer {
    /// None: this is no answer of criu's.
    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let found = fields(bytes)?;
        let kind = Kind::of(number(&found, 1)?)?;
        let inner = |field| message(&found, field);
        Some(Answer {
            kind,
            success: number(&found, 2)? != 0,
            restored: inner(4).and_then(|f| int(&f?, 1)),
            notification: inner(5).and_then(|f| {
                let f = f?;
                Some((text(&f, 1)?, int(&f, 2)))
            }),
            errno: int(&found, 7).unwrap_or_default(),
            message: text(&found, 9).unwrap_or_default(),
            features: inner(8)
                .and_then(|f| {
                    let f = f?;
                    let on = |field| number(&f, field).is_some_and(|n| n != 0);
                    Some(Features { track_memory: on(1), lazy_pages: on(2) })
                })
                .unwrap_or_default(),
            version: inner(10).and_then(|f| {
                let f = f?;
                let part = |field| number(&f, field).and_then(|n| u32::try_from(n).ok()).filter(|n| *n < 10_000);
                Some(part(1)? * 10_000 + part(2)? * 100 + part(4).unwrap_or_default())
            }),
        })
    }
}

type Fields<'a> = [(u32, Value<'a>)];

/// The last of a field counts.
fn number(found: &Fields<'_>, wanted: u32) -> Option<u64> {
    found.iter().rev().find_map(|(field, value)| match value {
        Value::Number(number) if *field == wanted => Some(*number),
        _ => None,
    })
}

fn int(found: &Fields<'_>, wanted: u32) -> Option<i32> {
    number(found, wanted).and_then(|n| i32::try_from(n.cast_signed()).ok())
}

fn bytes<'a>(found: &Fields<'a>, wanted: u32) -> Option<&'a [u8]> {
    found.iter().rev().find_map(|(field, value)| match value {
        Value::Bytes(bytes) if *field == wanted => Some(*bytes),
        _ => None,
    })
}

fn text(found: &Fields<'_>, wanted: u32) -> Option<String> {
    bytes(found, wanted).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// None: there is none; Some(None): it is there, and no message.
fn message<'a>(found: &Fields<'a>, wanted: u32) -> Option<Option<Vec<(u32, Value<'a>)>>> {
    bytes(found, wanted).map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_fields_of_rpc_proto() {
        let options = Options {
            images_dir: 7,
            pid: Some(42),
            log_level: 4,
            log_file: "d".into(),
            root: "/r".into(),
            external_mounts: vec![("/a".into(), "/b".into())],
            inherited: vec![("pipe:[1]".into(), 1)],
            empty_namespaces: 0x4000_0000,
            ..Options::default()
        };
        let bytes = request(Kind::Dump, Some(&options));
        let found = fields(&bytes).unwrap();
        assert_eq!(found[0], (1, Value::Number(1)));
        let inner = message(&found, 2).unwrap().unwrap();
        let numbers: Vec<(u32, u64)> =
            inner.iter().filter_map(|(f, v)| if let Value::Number(n) = v { Some((*f, *n)) } else { None }).collect();
        assert_eq!(numbers, [(1, 7), (2, 42), (12, 1), (50, 1), (9, 4), (34, 0), (38, 0x4000_0000)]);
        assert_eq!(text(&inner, 13).unwrap(), "/r");
        assert_eq!(bytes_of(&inner, 23), b"\x0a\x02/a\x12\x02/b");
        assert_eq!(bytes_of(&inner, 27), b"\x0a\x08pipe:[1]\x10\x01");
    }

    fn bytes_of<'a>(found: &Fields<'a>, wanted: u32) -> &'a [u8] {
        super::bytes(found, wanted).unwrap()
    }

    #[test]
    fn answers_are_read_and_garbage_is_none() {
        let mut version = Message::default();
        version.number(1, 3);
        version.number(2, 17);
        version.number(4, 1);
        let mut answer = Message::default();
        answer.number(1, 10);
        answer.number(2, 1);
        answer.message(10, &version);
        let answer = Answer::parse(&answer.into_bytes()).unwrap();
        assert_eq!((answer.kind, answer.success, answer.version), (Kind::Version, true, Some(31_701)));
        let mut notify = Message::default();
        notify.bytes(1, b"post-restore");
        notify.int(2, 77);
        let mut answer = Message::default();
        answer.number(1, 6);
        answer.number(2, 1);
        answer.message(5, &notify);
        let answer = Answer::parse(&answer.into_bytes()).unwrap();
        assert_eq!(answer.notification, Some(("post-restore".into(), Some(77))));
        for garbage in [&b""[..], b"\x08\x0a", b"\x08\x63\x10\x01", b"hello"] {
            assert_eq!(Answer::parse(garbage), None, "{garbage:?}");
        }
    }
}
