//! `linux.seccomp` of an OCI config.json (runtime-spec 1.2, config-linux.md#seccomp), as written; meaning is given by `lower`.

use serde::Deserialize;

/// A seccomp profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// `SCMP_ACT_…`, required.
    pub default_action: String,
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`; none: the native one alone.
    pub architectures: Option<Vec<String>>,
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: Option<Vec<String>>,
    /// The socket that receives the notify fd.
    pub listener_path: Option<String>,
    pub listener_metadata: Option<String>,
    pub syscalls: Option<Vec<SyscallRule>>,
}

impl Profile {
    /// `text`: the JSON of `linux.seccomp`.
    pub fn parse(text: &str) -> super::Result<Profile> {
        serde_json::from_str(text).map_err(|e| super::Error(crate::spec::located(text.as_bytes(), &e)))
    }
}

/// One action for some system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    pub args: Option<Vec<Arg>>,
}

/// A comparison of one argument; all of a rule's comparisons must hold (several of one index: any of them).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arg {
    /// 0 to 5.
    pub index: u32,
    pub value: u64,
    /// For `SCMP_CMP_MASKED_EQ`: `argument & value == valueTwo`.
    pub value_two: Option<u64>,
    /// `SCMP_CMP_…`.
    pub op: String,
}
