//! Nothing of runtime-spec is accepted and ignored: every field that the specification's Rust types have is read, and each either
//! changes what is done or is refused by name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::collections::BTreeSet;
use std::path::Path;

use rrun_core::plan::{CgroupView, CreateOptions, ExecPlan, Filter, HostFacts, exec_steps, plan, plan_process};
use rrun_core::seccomp::{Profile, Program};
use rrun_core::spec::{parse_spec, validate};
use serde::de::value::Error as Stop;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde_json::{Value, json};

/// Of other systems, or spelled otherwise in config.json; each with its reason.
const ELSEWHERE: [(&str, &str); 11] = [
    ("linux.intelRdt.enableCmt", "taken out of the specification by 1.3, in favour of enableMonitoring"),
    ("linux.intelRdt.enableMbm", "taken out of the specification by 1.3, in favour of enableMonitoring"),
    ("solaris", "not Linux"),
    ("windows", "not Linux"),
    ("zos", "not Linux"),
    ("vm", "virtual machines"),
    ("uidMappings", "at the top of config.json the specification has no such field"),
    ("gidMappings", "at the top of config.json the specification has no such field"),
    ("process.commandLine", "not Linux"),
    ("process.user.username", "not Linux"),
    ("linux.resources.memory.kernel", "deprecated by the specification, which lets runtimes ignore it; told in a warning"),
];

/// Read, judged, and then without effect.
const INERT: [(&str, &str); 3] = [
    ("ociVersion", "what of it is not known is refused; states tell the version that they comply with"),
    ("process.scheduler.priority", "0 but for SCHED_FIFO and SCHED_RR, which have no times"),
    ("linux.resources.memory.useHierarchy", "true is what kernels since 5.11 always do; false is told in a warning"),
];

fn is_elsewhere(path: &str) -> bool {
    ELSEWHERE
        .iter()
        .any(|(prefix, _)| path == *prefix || path.starts_with(&format!("{prefix}.")) || path.starts_with(&format!("{prefix}TCP")))
}

/// Every field of the specification for Linux, set.
fn full() -> Value {
    let hook = || json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]);
    let maps = || json!([{"containerID": 1, "hostID": 1000, "size": 10}]);
    let throttle = || json!([{"major": 8, "minor": 1, "rate": 600}]);
    json!({
        "ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true}, "hostname": "h", "domainname": "d",
        "annotations": {"a": "b"},
        "mounts": [{"destination": "/x", "type": "bind", "source": "/src", "options": ["ro"], "uidMappings": maps(), "gidMappings": maps()}],
        "hooks": {"prestart": hook(), "createRuntime": hook(), "createContainer": hook(), "startContainer": hook(), "poststart": hook(), "poststop": hook()},
        "process": {
            "terminal": true, "consoleSize": {"height": 3, "width": 4}, "args": ["sh"], "env": ["A=b"], "cwd": "/w", "noNewPrivileges": true,
            "user": {"uid": 1, "gid": 2, "umask": 63, "additionalGids": [3]},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
            "apparmorProfile": "p", "oomScoreAdj": 5, "selinuxLabel": "l",
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "scheduler": {"policy": "SCHED_DEADLINE", "nice": 1, "priority": 0, "flags": ["SCHED_FLAG_RECLAIM"], "runtime": 2000, "deadline": 3000, "period": 4000},
            "execCPUAffinity": {"initial": "0", "final": "1"}
        },
        "linux": {
            "uidMappings": maps(), "gidMappings": maps(), "sysctl": {"net.core.somaxconn": "1"}, "cgroupsPath": "/c",
            "netDevices": {"eth0": {"name": "x"}},
            "intelRdt": {"closID": "x", "schemata": ["L2:0=f"], "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=5", "enableMonitoring": true},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}, {"type": "cgroup", "path": "/c"}, {"type": "time"}],
            "devices": [{"path": "/dev/x", "type": "b", "major": 7, "minor": 8, "fileMode": 384, "uid": 1, "gid": 2}],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY", "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}, {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]
            },
            "rootfsPropagation": "private", "maskedPaths": ["/m"], "readonlyPaths": ["/r"], "mountLabel": "label",
            "personality": {"domain": "LINUX32", "flags": ["x"]},
            "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 9, "minor": 9, "access": "r"}],
                "memory": {"limit": 900, "reservation": 800, "swap": 1000, "swappiness": 5, "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 100, "quota": 2000, "burst": 7, "period": 3000, "realtimeRuntime": 4, "realtimePeriod": 5, "cpus": "0", "mems": "0", "idle": 1},
                "pids": {"limit": 5},
                "blockIO": {"weight": 100, "leafWeight": 200, "weightDevice": [{"major": 8, "minor": 1, "weight": 300, "leafWeight": 400}],
                    "throttleReadBpsDevice": throttle(), "throttleWriteBpsDevice": throttle(), "throttleReadIOPSDevice": throttle(), "throttleWriteIOPSDevice": throttle()},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
                "network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 6}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}}
            }
        }
    })
}

/// Refused by name, whatever they hold.
fn refused() -> Value {
    json!({"linux.resources.unified": {"memory.high": "5"}})
}

/// What is done with a configuration, as text; or why nothing is.
fn effect(config: &Value) -> Result<String, String> {
    let spec = parse_spec(config.to_string().as_bytes()).map_err(|e| e.to_string())?;
    validate(&spec).map_err(|e| e.to_string())?;
    let v1 = |controller: &str| rrun_cgroup::Dir {
        version: rrun_cgroup::Version::V1,
        controllers: vec![controller.to_string()],
        mount_point: Path::new("/sys/fs/cgroup").join(controller),
        path: Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(spec.linux.cgroups_path.as_deref().unwrap_or("/none").trim_start_matches('/')),
    };
    let controllers = ["cpuset", "memory", "cpu", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma", "devices"];
    let location = rrun_cgroup::Location { dirs: controllers.map(v1).to_vec(), unit: None };
    let cgroups = CgroupView { location: location.clone(), ours: true };
    let host = HostFacts { capabilities: u64::MAX, cgroups, selinux: true, apparmor: true, ..HostFacts::default() };
    let program: Option<(Profile, Program)> = spec
        .linux
        .seccomp
        .as_ref()
        .map(|json| {
            let profile = Profile::parse(json.get()).map_err(|e| format!("linux.seccomp: {e}"))?;
            let program = Program::compile(&profile).map_err(|e| format!("linux.seccomp: {e}"))?;
            Ok::<_, String>((profile, program))
        })
        .transpose()?;
    let options = CreateOptions { id: "x".into(), bundle: "/b".into(), filter: Filter::Plain, ..CreateOptions::default() };
    let planned = plan(&spec, &host, &options).map_err(|e| e.to_string())?;
    let resources = spec.linux.resources.clone().unwrap_or_default();
    let written = rrun_cgroup::Plan::for_update(&location, &resources, rrun_cgroup::PlanOptions::default()).map_err(|e| e.to_string())?;
    // v1's kernel checks by itself.
    let dir =
        rrun_cgroup::Dir { version: rrun_cgroup::Version::V2, controllers: Vec::new(), mount_point: "/c".into(), path: "/c/x".into() };
    let check = resources.memory.as_ref().and_then(|m| m.check_before_update);
    let memory = Some(rrun_cgroup::Memory { limit: Some(5), check_before_update: check, ..rrun_cgroup::Memory::default() });
    let resources = rrun_cgroup::Resources { memory, ..rrun_cgroup::Resources::default() };
    let unified = rrun_cgroup::Location { dirs: vec![dir], unit: None };
    let checked = rrun_cgroup::Plan::for_update(&unified, &resources, rrun_cgroup::PlanOptions::default()).map_err(|e| e.to_string())?;
    let process = plan_process(spec.process.as_ref().unwrap(), u64::MAX, &mut Vec::new());
    let exec = ExecPlan {
        linux: &spec.linux,
        namespaces: 0,
        user_namespace: false,
        filter: Filter::None,
        change_root: false,
        preserve_fds: 0,
        child_waits: false,
        entrances: Vec::new(),
        keyring: None,
    };
    let steps = exec_steps(&process, &exec);
    // Kept in the state file: hooks of the runtime's namespace, annotations.
    Ok(format!("{planned:?}{location:?}{written:?}{checked:?}{program:?}{steps:?}{:?}{:?}", spec.hooks, spec.annotations))
}

/// The paths of all leaves, with the numbers of list elements left out.
fn leaves(value: &Value, at: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = match at {
                    "" => key.clone(),
                    // Maps of records: the key is data, no field.
                    "linux.timeOffsets" | "linux.resources.rdma" | "linux.netDevices" => at.to_string(),
                    _ => format!("{at}.{key}"),
                };
                leaves(value, &path, &format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (n, value) in list.iter().enumerate() {
                leaves(value, at, &format!("{pointer}/{n}"), found);
            }
        }
        _ => found.push((at.to_string(), pointer.to_string())),
    }
}

fn all_leaves() -> Vec<(String, String)> {
    let mut found = Vec::new();
    leaves(&full(), "", "", &mut found);
    found
}

#[test]
fn the_full_configuration_is_accepted() {
    effect(&full()).unwrap();
}

#[test]
fn every_field_is_read() {
    for (path, pointer) in all_leaves() {
        let mut config = full();
        let value = config.pointer_mut(&pointer).unwrap();
        *value = if value.is_object() || value.is_array() { json!(5) } else { json!({"no": ["such", "type"]}) };
        assert!(effect(&config).is_err(), "{path}: a value of a wrong type went unnoticed");
    }
}

#[test]
fn every_field_changes_something() {
    let whole = effect(&full()).unwrap();
    let mut idle = Vec::new();
    for (path, pointer) in all_leaves() {
        let mut config = full();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap().as_object_mut().map(|map| map.remove(&key.replace("~1", "/").replace("~0", "~")));
        let without = effect(&config);
        if without.as_ref() == Ok(&whole) && !INERT.iter().any(|(inert, _)| *inert == path) {
            idle.push(path);
        }
    }
    assert!(idle.is_empty(), "taking these away changes nothing: {idle:?}");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (path, value) in refused().as_object().unwrap() {
        let mut config = full();
        config.pointer_mut(&format!("/{}", path.rsplit_once('.').unwrap().0.replace('.', "/"))).unwrap()
            [path.rsplit('.').next().unwrap()] = value.clone();
        let error = effect(&config).unwrap_err();
        assert!(error.contains(path.rsplit('.').next().unwrap()), "{path}: {error}");
    }
}

/// The fields are those of the specification's own Rust types: whatever a new version of them brings has to be decided here.
#[test]
fn the_specifications_types_have_no_other_field() {
    let mut walk = Walk::default();
    // Where a value is needed that it cannot guess, the walk ends in an error: the next one leaves that field out.
    while oci_spec::runtime::Spec::deserialize(At(&mut walk)).is_err() {
        match walk.failed.take() {
            Some(path) => assert!(walk.skipped.insert(path.clone()), "{path} fails though it is left out"),
            None => break,
        }
    }
    assert!(walk.found.len() > 100, "the walk ended early: {:?}", walk.found);
    let mut known: BTreeSet<String> = all_leaves().into_iter().map(|(path, _)| path).collect();
    known.extend(refused().as_object().unwrap().keys().cloned());
    let is_known =
        |path: &String| known.iter().any(|k| k == path || k.starts_with(&format!("{path}.")) || path.starts_with(&format!("{k}.")));
    let unknown: Vec<&String> = walk.found.iter().filter(|path| !is_elsewhere(path) && !is_known(path)).collect();
    assert!(unknown.is_empty(), "decide what becomes of {unknown:?}");
}

/// Follows the types that deserialization asks for, and notes the name of every field.
#[derive(Default)]
struct Walk {
    at: String,
    found: BTreeSet<String>,
    skipped: BTreeSet<String>,
    /// The innermost field that could not be made.
    failed: Option<String>,
}

impl Walk {
    fn path(&self, field: &str) -> String {
        if self.at.is_empty() { field.to_string() } else { format!("{}.{field}", self.at) }
    }
}

struct At<'a>(&'a mut Walk);

macro_rules! guess {
    ($($method:ident => $visit:ident($($value:expr)?)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> { visitor.$visit($($value)?) })*
    };
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Stop;

    guess! {
        deserialize_bool => visit_bool(true), deserialize_i8 => visit_i8(1), deserialize_i16 => visit_i16(1), deserialize_i32 => visit_i32(1),
        deserialize_i64 => visit_i64(1), deserialize_u8 => visit_u8(1), deserialize_u16 => visit_u16(1), deserialize_u32 => visit_u32(1),
        deserialize_u64 => visit_u64(1), deserialize_f32 => visit_f32(1.0), deserialize_f64 => visit_f64(1.0), deserialize_char => visit_char('x'),
        deserialize_str => visit_str("x"), deserialize_string => visit_str("x"), deserialize_bytes => visit_bytes(b"x"),
        deserialize_byte_buf => visit_bytes(b"x"), deserialize_unit => visit_unit(), deserialize_identifier => visit_str("x"),
        deserialize_any => visit_str("x"), deserialize_ignored_any => visit_unit(),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Once { walk: self.0, done: false })
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_map(Once { walk: self.0, done: false })
    }
    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_map(Fields { walk: self.0, left: fields.iter(), field: "" })
    }
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, variants: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_enum(variants.first().copied().unwrap_or("x").into_deserializer())
    }
}

/// A list or map of one element.
struct Once<'a> {
    walk: &'a mut Walk,
    done: bool,
}

impl<'de> de::SeqAccess<'de> for Once<'_> {
    type Error = Stop;
    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if std::mem::replace(&mut self.done, true) { Ok(None) } else { seed.deserialize(At(self.walk)).map(Some) }
    }
}

impl<'de> de::MapAccess<'de> for Once<'_> {
    type Error = Stop;
    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        if std::mem::replace(&mut self.done, true) { Ok(None) } else { seed.deserialize("monotonic".into_deserializer()).map(Some) }
    }
    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(At(self.walk))
    }
}

/// Every field of a struct in turn; a field whose value cannot be guessed does not end the walk of the others.
struct Fields<'a> {
    walk: &'a mut Walk,
    left: std::slice::Iter<'static, &'static str>,
    field: &'static str,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = Stop;
    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let walk = &mut *self.walk;
        let next = self.left.find(|field| {
            walk.found.insert(walk.path(field));
            !walk.skipped.contains(&walk.path(field))
        });
        let Some(field) = next else { return Ok(None) };
        self.field = field;
        seed.deserialize((*field).into_deserializer()).map(Some)
    }
    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let path = self.walk.path(self.field);
        let before = std::mem::replace(&mut self.walk.at, path);
        let value = seed.deserialize(At(self.walk));
        let path = std::mem::replace(&mut self.walk.at, before);
        if value.is_err() {
            self.walk.failed.get_or_insert(path);
        }
        value
    }
}
