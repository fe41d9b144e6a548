//! A criu for tests: `criu swrk 3`, of which it has the protocol alone.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use prost::Message;
use serde_json::{Map, Value, json};

/// What it is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub version: (i32, i32),
    pub features: String,
    /// Moments that it tells of, in this order.
    pub notify: Vec<String>,
    /// How it ends: "" with success.
    pub end: String,
    /// What is "restored" instead of the bundle's config.json.
    pub config: Option<Value>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { version: (3, 17), features: String::new(), notify: Vec::new(), end: String::new(), config: None }
    }
}

impl Plan {
    /// What criu 3.17 tells of during a restore.
    pub fn restore() -> Plan {
        let moments = ["pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore", "network-unlock", "pre-resume"];
        Plan { notify: moments.map(str::to_string).to_vec(), ..Plan::default() }
    }

    pub fn to_json(&self) -> Value {
        json!({"version": [self.version.0, self.version.1], "features": self.features, "notify": self.notify, "end": self.end, "config": self.config})
    }

    fn read(path: &Path) -> Plan {
        let v: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let number = |n: usize| i32::try_from(v["version"][n].as_i64().unwrap()).unwrap();
        Plan {
            version: (number(0), number(1)),
            features: v["features"].as_str().unwrap().to_string(),
            notify: v["notify"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_string()).collect(),
            end: v["end"].as_str().unwrap().to_string(),
            config: Some(v["config"].clone()).filter(|c| !c.is_null()),
        }
    }
}

/// What it was asked for, and what its notifications were answered with.
#[derive(Debug, Default)]
pub struct Heard {
    pub kind: String,
    pub options: Value,
    pub images: String,
    pub answers: Vec<bool>,
}

impl Heard {
    pub fn from_json(v: &Value) -> Heard {
        Heard {
            kind: v["kind"].as_str().unwrap().to_string(),
            options: v["options"].clone(),
            images: v["images"].as_str().unwrap().to_string(),
            answers: v["answers"].as_array().unwrap().iter().map(|a| a.as_bool().unwrap()).collect(),
        }
    }

    fn write(&self, dir: &Path) {
        let v = json!({"kind": self.kind, "options": self.options, "images": self.images, "answers": self.answers});
        fs::write(dir.join("heard.json"), v.to_string()).unwrap();
    }
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, required, tag = "1")]
    first: String,
    #[prost(string, required, tag = "2")]
    second: String,
}

#[derive(Clone, PartialEq, Message)]
struct Inherit {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(int32, required, tag = "2")]
    fd: i32,
}

macro_rules! options {
    ($($name:ident $kind:ident $tag:literal)*) => {
        #[derive(Clone, PartialEq, Message)]
        struct Opts {
            $(#[prost($kind, optional, tag = $tag)] $name: Option<options!(@$kind)>,)*
            #[prost(message, repeated, tag = "23")]
            ext_mnt: Vec<Pair>,
            #[prost(message, repeated, tag = "27")]
            inherit_fd: Vec<Inherit>,
            #[prost(string, repeated, tag = "37")]
            external: Vec<String>,
            #[prost(message, repeated, tag = "39")]
            join_ns: Vec<Pair>,
        }

        impl Opts {
            fn to_json(&self) -> Value {
                let mut all = Map::new();
                $(if let Some(value) = &self.$name { all.insert(stringify!($name).into(), json!(value)); })*
                let pairs = |all: &[Pair]| json!(all.iter().map(|p| json!([p.first, p.second])).collect::<Vec<_>>());
                if !self.ext_mnt.is_empty() { all.insert("ext_mnt".into(), pairs(&self.ext_mnt)); }
                if !self.join_ns.is_empty() { all.insert("join_ns".into(), pairs(&self.join_ns)); }
                let inherited: Vec<Value> = self.inherit_fd.iter().map(|i| json!([i.key, i.fd])).collect();
                all.insert("inherit_fd".into(), json!(inherited));
                all.insert("external".into(), json!(self.external));
                Value::Object(all)
            }
        }
    };
    (@bool) => { bool };
    (@int32) => { i32 };
    (@uint32) => { u32 };
    (@string) => { String };
}

// As criu's rpc.proto has them.
options! {
    images_dir_fd int32 "1"
    pid int32 "2"
    leave_running bool "3"
    ext_unix_sk bool "4"
    tcp_established bool "5"
    evasive_devices bool "6"
    shell_job bool "7"
    file_locks bool "8"
    log_level int32 "9"
    log_file string "10"
    notify_scripts bool "12"
    root string "13"
    parent_img string "14"
    track_mem bool "15"
    auto_dedup bool "16"
    work_dir_fd int32 "17"
    link_remap bool "18"
    rst_sibling bool "26"
    manage_cgroups_mode int32 "34"
    empty_ns uint32 "38"
    freeze_cgroup string "44"
    tcp_skip_in_flight bool "46"
    lazy_pages bool "48"
    orphan_pts_master bool "50"
    lsm_profile string "53"
}

#[derive(Clone, PartialEq, Message)]
struct Features {
    #[prost(bool, optional, tag = "1")]
    mem_track: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    lazy_pages: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct Req {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    opts: Option<Opts>,
    #[prost(bool, optional, tag = "3")]
    notify_success: Option<bool>,
    #[prost(message, optional, tag = "5")]
    features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
struct Restored {
    #[prost(int32, required, tag = "1")]
    pid: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Notify {
    #[prost(string, optional, tag = "1")]
    script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pid: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(int32, required, tag = "1")]
    major: i32,
    #[prost(int32, required, tag = "2")]
    minor: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Resp {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(bool, required, tag = "2")]
    success: bool,
    #[prost(message, optional, tag = "4")]
    restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    cr_errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    features: Option<Features>,
    #[prost(message, optional, tag = "10")]
    version: Option<Version>,
}

const DUMP: i32 = 1;
const RESTORE: i32 = 2;
const PRE_DUMP: i32 = 4;
const NOTIFY: i32 = 6;
const FEATURE_CHECK: i32 = 9;
const VERSION: i32 = 10;

/// Serves one request, and ends.
pub fn serve(dir: &Path) -> ! {
    let plan = Plan::read(&dir.join("plan.json"));
    let mut socket = fs::File::from(rrun_sys::process::adopt_fd(3).expect("swrk 3"));
    let req = receive(&mut socket).expect("a request");
    let answer = |kind| Resp { kind, success: true, ..Resp::default() };
    match req.kind {
        VERSION => {
            let version = Version { major: plan.version.0, minor: plan.version.1 };
            send(&mut socket, &Resp { version: Some(version), ..answer(VERSION) });
        }
        FEATURE_CHECK => {
            let can = |what| Some(plan.features.contains(what));
            send(
                &mut socket,
                &Resp { features: Some(Features { mem_track: can("mem"), lazy_pages: can("lazy") }), ..answer(FEATURE_CHECK) },
            );
        }
        kind => work(dir, &plan, &mut socket, kind, &req.opts.expect("options")),
    }
    std::process::exit(0)
}

fn work(dir: &Path, plan: &Plan, socket: &mut fs::File, kind: i32, opts: &Opts) {
    let caller = |fd: i32| format!("/proc/{}/fd/{fd}", std::os::unix::process::parent_id());
    let name = match kind {
        DUMP => "dump",
        PRE_DUMP => "pre-dump",
        _ => "restore",
    };
    let images = fs::read_link(caller(opts.images_dir_fd.unwrap())).unwrap().display().to_string();
    let mut heard = Heard { kind: name.into(), options: opts.to_json(), images, answers: Vec::new() };
    heard.write(dir);
    let log = Path::new(&caller(opts.work_dir_fd.unwrap())).join(opts.log_file.as_ref().unwrap());
    fs::write(log, "(00.1) Error (criu/mount.c:1): mnt: one\n(00.2) Error (criu/x.c:2): two\n").unwrap();
    if plan.end == "die" {
        std::process::abort();
    }
    let mut pid = opts.pid;
    if kind == RESTORE {
        pid = Some(restored(dir, plan, opts));
    }
    for moment in plan.notify.iter().filter(|m| plan.end != "unjudged" || *m != "pre-resume") {
        let with_pid = ["setup-namespaces", "post-restore"].contains(&moment.as_str());
        let notify = Notify { script: Some(moment.clone()), pid: pid.filter(|_| with_pid) };
        send(socket, &Resp { kind: NOTIFY, success: true, notify: Some(notify), ..Resp::default() });
        let Some(said) = receive(socket) else { std::process::exit(1) };
        assert_eq!(said.kind, NOTIFY);
        heard.answers.push(said.notify_success.unwrap());
        heard.write(dir);
        if said.notify_success != Some(true) {
            end(pid.filter(|_| kind == RESTORE));
            send(socket, &Resp { kind, success: false, ..Resp::default() });
            std::process::exit(1);
        }
    }
    finish(plan, socket, kind, opts, pid);
}

fn finish(plan: &Plan, socket: &mut fs::File, kind: i32, opts: &Opts, pid: Option<i32>) {
    let good = Resp { kind, success: true, restore: pid.filter(|_| kind == RESTORE).map(|pid| Restored { pid }), ..Resp::default() };
    match plan.end.as_str() {
        "fail" => {
            end(pid.filter(|_| kind == RESTORE));
            send(socket, &Resp { success: false, cr_errno: Some(3), ..good });
        }
        "die frozen" => {
            fs::write(Path::new(opts.freeze_cgroup.as_ref().unwrap()).join("freezer.state"), "FROZEN").unwrap();
            std::process::abort();
        }
        "garbage" => socket.write_all(b"Usage: criu [OPTIONS]").unwrap(),
        "another" => send(socket, &Resp { kind: VERSION, ..good }),
        "code" => {
            send(socket, &good);
            std::process::exit(3);
        }
        _ => {
            end(pid.filter(|_| kind == DUMP && opts.leave_running != Some(true)));
            send(socket, &good);
        }
    }
}

/// Another rrun makes what is said to come from the images: in the cgroup and the mount namespace that this process is in.
fn restored(dir: &Path, plan: &Plan, opts: &Opts) -> i32 {
    let host = dir.parent().unwrap();
    let config = dir.join("config.json");
    match &plan.config {
        Some(other) => fs::write(&config, other.to_string()).unwrap(),
        None => drop(fs::copy(host.join("config.json"), &config).unwrap()),
    }
    let mut bundle: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    bundle.as_object_mut().unwrap().remove("hooks");
    bundle["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    bundle["linux"].as_object_mut().unwrap().remove("resources");
    if bundle["root"]["path"] == "rootfs" {
        bundle["root"]["path"] = json!(opts.root);
    }
    fs::write(&config, bundle.to_string()).unwrap();
    let mut command = Command::new(std::env::var_os("FAKE_RRUN").unwrap());
    let root = dir.join("others");
    command
        .arg("--root")
        .arg(&root)
        .args(["--cgroup-manager", "disabled", "run", "--detach", "--bundle"])
        .arg(dir)
        .arg("--pid-file")
        .arg(dir.join("pid"));
    let null = || Stdio::null();
    let said = command.arg("restored").stdin(null()).stdout(null()).stderr(null()).status().unwrap();
    assert!(said.success(), "what is to be restored cannot be made");
    // Its record is not what this is about.
    fs::remove_dir_all(root).unwrap();
    fs::read_to_string(dir.join("pid")).unwrap().parse().unwrap()
}

fn end(pid: Option<i32>) {
    if let Some(pid) = pid {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
}

fn receive(socket: &mut fs::File) -> Option<Req> {
    let mut buffer = vec![0; 1 << 20];
    let n = socket.read(&mut buffer).ok().filter(|n| *n > 0)?;
    Some(Req::decode(&buffer[..n]).expect("criu's protocol"))
}

fn send(socket: &mut fs::File, answer: &Resp) {
    socket.write_all(&answer.encode_to_vec()).expect("somebody who listens");
}
