//! linux.intelRdt on a directory that stands for resctrl: the kernel of most test machines has none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

mod support;
use support::{Host, text};

struct Resctrl {
    host: Host,
    root: PathBuf,
}

impl Resctrl {
    fn new(name: &str) -> Resctrl {
        let host = Host::new(name);
        let root = host.dir.path().join("resctrl");
        for dir in ["info/L3", "info/MB", "shared/mon_groups"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("shared/schemata"), "MB:0=100\nL3:0=0ff\n").unwrap();
        Resctrl { host, root }
    }

    fn rrun(&self, args: &[&str]) -> String {
        text(&self.host.command(args).env("RRUN_TEST_RESCTRL", &self.root).stdin(Stdio::null()).output().unwrap())
    }

    fn quiet(&self, args: &[&str]) {
        let mut command = self.host.command(args);
        command.env("RRUN_TEST_RESCTRL", &self.root).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{args:?}");
    }

    fn refused(&self, rdt: &Value) -> String {
        self.host.configure(&["true"], |c| c["linux"]["intelRdt"] = rdt.clone());
        let said = self.rrun(&["run", &self.host.id(0)]);
        assert!(said.contains("linux.intelRdt"), "{said}");
        self.host.assert_clean();
        said
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).unwrap()
    }
}

#[test]
fn a_group_is_made_named_after_the_container_and_goes_with_it() {
    let r = Resctrl::new("rdt-own");
    let id = r.host.id(0);
    r.host.configure(&["sleep", "1000"], |c| {
        c["linux"]["intelRdt"] = json!({"schemata": ["L3:1=f"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=7f0"});
    });
    r.quiet(&["create", "--pid-file", "pid", &id]);
    let pid = fs::read_to_string(r.host.dir.path().join("pid")).unwrap();
    assert_eq!(r.read(&format!("{id}/schemata")), "L3:0=7f0\nMB:0=20\nL3:1=f\n");
    assert_eq!(r.read(&format!("{id}/tasks")), format!("{pid}\n"));
    r.quiet(&["start", &id]);
    r.quiet(&["exec", &id, "true"]);
    assert_eq!(r.read(&format!("{id}/tasks")).lines().count(), 2, "an exec'd process is in the group, too");
    r.quiet(&["delete", "--force", &id]);
    assert!(!r.root.join(&id).exists());
    r.host.assert_clean();
}

#[test]
fn a_class_that_others_use_is_joined_counted_apart_and_kept() {
    let r = Resctrl::new("rdt-class");
    let id = r.host.id(0);
    r.host.configure(&["sleep", "1000"], |c| {
        c["linux"]["intelRdt"] = json!({"closID": "shared", "schemata": ["L3:0=FF"], "enableMonitoring": true});
    });
    r.quiet(&["create", &id]);
    assert_eq!(r.read("shared/tasks"), r.read(&format!("shared/mon_groups/{id}/tasks")));
    assert_eq!(r.read("shared/schemata"), "MB:0=100\nL3:0=0ff\n", "an existing class is never rewritten");
    r.quiet(&["delete", "--force", &id]);
    assert!(r.root.join("shared/schemata").exists() && !r.root.join(format!("shared/mon_groups/{id}")).exists());
}

#[test]
fn what_the_host_or_the_class_does_not_have_is_refused_before_anything_is_made() {
    let r = Resctrl::new("rdt-bad");
    assert!(r.refused(&json!({"closID": "absent"})).contains("must be there before"));
    assert!(r.refused(&json!({"closID": "shared", "l3CacheSchema": "L3:0=f"})).contains("which others may use"));
    assert!(r.refused(&json!({"closID": "info"})).contains("one directory of resctrl"));
    fs::remove_dir(r.root.join("info/MB")).unwrap();
    assert!(r.refused(&json!({"memBwSchema": "MB:0=5"})).contains("cannot allocate MB"));
    let plain = r.host.rrun(&["run", &r.host.id(0)]);
    assert!(text(&plain).contains("Intel RDT is not enabled"), "{}", text(&plain));
}

#[test]
fn a_create_that_fails_later_takes_the_group_back() {
    let r = Resctrl::new("rdt-undo");
    r.host.configure(&["/nosuch"], |c| c["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=f"}));
    assert!(r.rrun(&["run", &r.host.id(0)]).contains("/nosuch"));
    assert!(!r.root.join(r.host.id(0)).exists());
    r.host.assert_clean();
}

#[test]
fn update_and_events_know_the_group() {
    let r = Resctrl::new("rdt-events");
    let id = r.host.id(0);
    for (file, text) in
        [("info/L3/cbm_mask", "7ff"), ("info/L3/num_closids", "16"), ("info/MB/min_bandwidth", "10"), ("schemata", "MB:0=100\nL3:0=7ff\n")]
    {
        fs::write(r.root.join(file), text).unwrap();
    }
    r.host.configure(&["sleep", "1000"], |c| c["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=f", "enableMonitoring": false}));
    r.quiet(&["create", &id]);
    let counts = r.root.join(&id).join("mon_data/mon_L3_00");
    fs::create_dir_all(&counts).unwrap();
    fs::write(counts.join("mbm_total_bytes"), "123\n").unwrap();
    fs::write(counts.join("llc_occupancy"), "456\n").unwrap();
    r.quiet(&["update", "--l3-cache-schema", "L3:0=3", "--mem-bw-schema", "MB:0=20", &id]);
    assert_eq!(r.read(&format!("{id}/schemata")), "L3:0=3\nMB:0=20\n");
    let event: Value = serde_json::from_str(&r.rrun(&["events", "--stats", &id])).unwrap();
    let told = json!({"l3_cache_info": {"cbm_mask": "7ff", "num_closids": 16}, "l3_cache_schema_root": "L3:0=7ff", "l3_cache_schema": "L3:0=3",
        "mem_bw_info": {"min_bandwidth": 10}, "mem_bw_schema_root": "MB:0=100", "mem_bw_schema": "MB:0=20",
        "mbm_stats": [{"mbm_total_bytes": 123}], "cmt_stats": [{"llc_occupancy": 456}]});
    assert_eq!(event["data"]["intel_rdt"], told);
    r.quiet(&["delete", "--force", &id]);
    // A class that others may use is not changed behind their backs, and without a group there is nothing to change.
    r.host.configure(&["sleep", "1000"], |c| c["linux"]["intelRdt"] = json!({"closID": "shared"}));
    r.quiet(&["create", &id]);
    assert!(r.rrun(&["update", "--l3-cache-schema", "L3:0=1", &id]).contains("others may use this class"));
    r.quiet(&["delete", "--force", &id]);
    r.host.configure(&["sleep", "1000"], |c| c["linux"]["intelRdt"] = Value::Null);
    r.quiet(&["create", &id]);
    assert!(r.rrun(&["update", "--mem-bw-schema", "MB:0=1", &id]).contains("has no group of resctrl"));
}
