//! The driver against a stand-in for the bus and systemd, which answers as they do and writes down what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::resources::Resources;

/// What was asked: member and body, without the greetings.
type Asked = Vec<(String, Vec<Value>)>;

struct StandIn {
    dir: PathBuf,
    asked: Receiver<Asked>,
}

/// The answer to the nth call of a member: a result, or an error's name; and how its job ends.
type Script = fn(member: &str, nth: usize) -> std::result::Result<Vec<Value>, &'static str>;

impl StandIn {
    fn new(name: &str, script: Script, job_result: &'static str) -> (StandIn, Systemd) {
        let dir = std::env::temp_dir().join(format!("rrun-bus-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let (told, asked) = channel();
        std::thread::spawn(move || serve(listener.accept().unwrap().0, script, job_result, &told));
        let bus = Bus::connect(&Address::Path(path), true).unwrap();
        (StandIn { dir, asked }, Systemd { bus, version: None })
    }

    /// Everything that was asked, once the connection is closed.
    fn asked(self, systemd: Systemd) -> Asked {
        drop(systemd);
        self.asked.recv().unwrap()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn serve(stream: UnixStream, script: Script, job_result: &str, told: &Sender<Asked>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "\0AUTH EXTERNAL\r\n");
    writer.write_all(b"DATA\r\n").unwrap();
    for (expected, answer) in [("DATA\r\n", "OK 0123\r\n"), ("BEGIN\r\n", "")] {
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
        writer.write_all(answer.as_bytes()).unwrap();
    }
    let mut asked: Asked = Vec::new();
    loop {
        let mut header = [0; wire::HEADER];
        if reader.read_exact(&mut header).is_err() {
            break;
        }
        let mut bytes = vec![0; wire::message_length(&header).unwrap()];
        bytes[..wire::HEADER].copy_from_slice(&header);
        reader.read_exact(&mut bytes[wire::HEADER..]).unwrap();
        let serial = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
        let call = wire::decode(&bytes).unwrap();
        let nth = asked.iter().filter(|(member, _)| *member == call.member).count();
        let answer = match call.member.as_str() {
            "Hello" | "AddMatch" => Ok(vec![]),
            member => script(member, nth),
        };
        if ["StartTransientUnit", "StopUnit"].contains(&call.member.as_str()) && answer.is_ok() {
            // The end of a job may be told before the answer that names it.
            for (job, result) in [("/job/0", "failed"), ("/job/1", job_result)] {
                let body = [Value::U32(1), Value::Path(job.into()), Value::text("unit"), Value::text(result)];
                writer.write_all(&wire::encode_as(wire::SIGNAL, "JobRemoved", 0, "", &body)).unwrap();
            }
        }
        let bytes = match answer {
            Ok(body) => wire::encode_as(wire::METHOD_RETURN, "", serial, "", &body),
            Err(name) => wire::encode_as(wire::ERROR, "", serial, name, &[Value::text("no")]),
        };
        writer.write_all(&bytes).unwrap();
        if !["Hello", "AddMatch"].contains(&call.member.as_str()) {
            asked.push((call.member, call.body));
        }
    }
    told.send(asked).unwrap();
}

fn job() -> Vec<Value> {
    vec![Value::Path("/job/1".into())]
}

fn variant(text: &str) -> Vec<Value> {
    vec![Value::Variant(Box::new(Value::text(text)))]
}

fn friendly(member: &str, _: usize) -> std::result::Result<Vec<Value>, &'static str> {
    match member {
        "StartTransientUnit" | "StopUnit" => Ok(job()),
        "Get" => Ok(variant("243.7-1")),
        _ => Ok(vec![]),
    }
}

fn unit() -> Unit {
    Unit::parse(Some("a.slice:p:n"), "n", false).unwrap()
}

fn plan(json: &str) -> Plan {
    let host = Host::from_proc(b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", b"0::/\n");
    let location = host.below_mounts(std::path::Path::new("/a.slice/p-n.scope"));
    let resources: Resources = serde_json::from_str(json).unwrap();
    Plan::for_update(&location, &resources, crate::plan::PlanOptions::default()).unwrap()
}

fn start(systemd: &mut Systemd, json: &str) -> Result<()> {
    let annotations = BTreeMap::from([("org.systemd.property.TimeoutStopSec".to_owned(), "1".to_owned())]);
    let properties = ScopeProperties::from_annotations(&annotations).unwrap();
    let scope = Scope { unit: &unit(), id: "n", pid: 42, properties: &properties, v2: true };
    systemd.start(&scope, &mut plan(json))
}

fn properties_in(body: &[Value]) -> BTreeMap<String, Value> {
    let Value::Array(_, properties) = &body[2] else { panic!("{body:?}") };
    let pair = |p: &Value| match p {
        Value::Struct(pair) => (pair[0].as_text().unwrap().to_owned(), pair[1].clone()),
        other => panic!("{other:?}"),
    };
    properties.iter().map(pair).collect()
}

fn v(value: Value) -> Value {
    Value::Variant(Box::new(value))
}

#[test]
fn a_scope_is_started_around_its_process_with_limits_and_delegation() {
    let (stand_in, mut systemd) = StandIn::new("start", friendly, "done");
    start(&mut systemd, r#"{"pids": {"limit": 5}, "cpu": {"cpus": "0", "quota": 50000, "period": 100000}}"#).unwrap();
    let asked = stand_in.asked(systemd);
    let (member, body) = asked.last().unwrap();
    assert_eq!((member.as_str(), &body[0], &body[1]), ("StartTransientUnit", &Value::text("p-n.scope"), &Value::text("replace")));
    let found = properties_in(body);
    assert_eq!(found["PIDs"], v(Value::Array("u".into(), vec![Value::U32(42)])));
    assert_eq!(found["Slice"], v(Value::text("a.slice")));
    assert_eq!(found["Delegate"], v(Value::Bool(true)));
    assert_eq!(found["TasksMax"], v(Value::U64(5)));
    assert_eq!(found["TimeoutStopUSec"], v(Value::U64(1_000_000)));
    assert_eq!(found["CPUQuotaPerSecUSec"], v(Value::U64(500_000)));
    // This systemd says that it is 243.
    assert!(found.contains_key("CPUQuotaPeriodUSec") && !found.contains_key("AllowedCPUs"), "{found:?}");
}

#[test]
fn what_is_left_of_a_failed_unit_is_reset_once() {
    fn exists_once(member: &str, nth: usize) -> std::result::Result<Vec<Value>, &'static str> {
        if member == "StartTransientUnit" && nth == 0 { Err(UNIT_EXISTS) } else { friendly(member, nth) }
    }
    let (stand_in, mut systemd) = StandIn::new("reset", exists_once, "done");
    start(&mut systemd, "{}").unwrap();
    let members: Vec<String> = stand_in.asked(systemd).into_iter().map(|(member, _)| member).collect();
    assert_eq!(members, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn a_unit_that_lives_is_not_taken_over() {
    fn exists(member: &str, nth: usize) -> std::result::Result<Vec<Value>, &'static str> {
        if member == "StartTransientUnit" { Err(UNIT_EXISTS) } else { friendly(member, nth) }
    }
    let (stand_in, mut systemd) = StandIn::new("exists", exists, "done");
    let e = start(&mut systemd, "{}").unwrap_err().to_string();
    assert!(e.contains("p-n.scope") && e.contains("UnitExists"), "{e}");
    assert!(stand_in.asked(systemd).iter().all(|(member, _)| member != "StopUnit"));
}

#[test]
fn a_job_that_fails_is_an_error() {
    let (stand_in, mut systemd) = StandIn::new("job", friendly, "failed");
    let e = start(&mut systemd, "{}").unwrap_err().to_string();
    assert!(e.contains("p-n.scope") && e.contains("\"failed\""), "{e}");
    drop(stand_in.asked(systemd));
}

#[test]
fn a_unit_is_stopped_and_forgotten_and_one_that_is_gone_is_no_error() {
    let (stand_in, mut systemd) = StandIn::new("stop", friendly, "canceled");
    systemd.stop(&unit()).unwrap();
    let members: Vec<String> = stand_in.asked(systemd).into_iter().map(|(member, _)| member).collect();
    assert_eq!(members, ["StopUnit", "ResetFailedUnit"]);
    let (stand_in, mut systemd) = StandIn::new("gone", |_, _| Err(NO_SUCH_UNIT), "done");
    systemd.stop(&unit()).unwrap();
    drop(stand_in.asked(systemd));
    let (stand_in, mut systemd) = StandIn::new("denied", |_, _| Err("org.freedesktop.DBus.Error.AccessDenied"), "done");
    assert!(systemd.stop(&unit()).unwrap_err().to_string().contains("AccessDenied"));
    drop(stand_in.asked(systemd));
}

#[test]
fn an_update_sets_only_what_is_asked_for() {
    let (stand_in, mut systemd) = StandIn::new("set", friendly, "done");
    systemd.set(&unit(), &mut plan(r#"{"pids": {"limit": 7}}"#), UNLIMITED, true).unwrap();
    systemd.set(&unit(), &mut plan("{}"), UNLIMITED, true).unwrap();
    let asked = stand_in.asked(systemd);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, "SetUnitProperties");
    assert_eq!(properties_in(&asked[0].1), BTreeMap::from([("TasksMax".to_owned(), v(Value::U64(7)))]));
}

#[test]
fn a_user_without_cgroup_v2_is_told() {
    let (stand_in, mut systemd) = StandIn::new("hybrid", friendly, "done");
    let host = Host::from_proc(b"31 23 0:28 / /c rw - cgroup c rw,memory\n", b"4:memory:/\n");
    let e = systemd.locate(&host, Unit::parse(None, "x", true).unwrap()).unwrap_err().to_string();
    assert!(e.contains("cgroup v2"), "{e}");
    drop(stand_in.asked(systemd));
}

#[test]
fn versions_have_many_forms() {
    for (text, version) in [("v252.38-1~deb12u1", 252), ("239", 239), ("\"249.11\"", 249), ("252 (252-18.el9)", 252), ("x", 0)] {
        assert_eq!(parse_version(text), version, "{text}");
    }
}
