//! Seccomp profiles in the field's format (`archMap`, `includes`, `excludes`): parsed once, resolved for a host and a set of
//! capabilities into the OCI runtime spec's `linux.seccomp`.

use rcontainerd_types::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const BUILTIN: &str = include_str!("profiles/seccomp.json");

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: String,
}

/// What decides which rules apply.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// Go's word: `amd64`.
    pub arch: &'a str,
    /// `6.1.0-13-cloud-amd64`
    pub kernel: &'a str,
    pub capabilities: &'a [&'static str],
}

impl Profile {
    /// # Errors
    /// `InvalidArgument` with the place in the JSON.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|err| Error::invalid(format!("Decoding seccomp profile failed: {err}")))
    }

    /// The profile that containers get unless asked otherwise.
    ///
    /// # Errors
    /// Never: a test parses it.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN)
    }

    /// The OCI runtime spec's `linux.seccomp`.
    pub fn resolve(&self, target: &Target<'_>) -> Value {
        let syscalls: Vec<Value> = self.syscalls.iter().filter(|rule| rule.applies(target)).map(Rule::to_spec).collect();
        let mut seccomp = json!({ "defaultAction": self.default_action, "architectures": self.architectures_for(target.arch) });
        if let Some(errno) = self.default_errno_ret {
            seccomp["defaultErrnoRet"] = errno.into();
        }
        if !self.flags.is_empty() {
            seccomp["flags"] = json!(self.flags);
        }
        seccomp["syscalls"] = Value::Array(syscalls);
        seccomp
    }

    fn architectures_for(&self, arch: &str) -> Vec<String> {
        let native = native_architecture(arch);
        match self.arch_map.iter().find(|map| map.architecture == native) {
            Some(map) => std::iter::once(map.architecture.clone()).chain(map.sub_architectures.clone().unwrap_or_default()).collect(),
            None => self.architectures.clone(),
        }
    }
}

impl Rule {
    fn applies(&self, target: &Target<'_>) -> bool {
        let capable = |name: &String| target.capabilities.contains(&name.as_str());
        let included = self.includes.as_ref().is_none_or(|filter| {
            (filter.arches.is_empty() || filter.arches.iter().any(|arch| arch == target.arch))
                && filter.caps.iter().all(capable)
                && kernel_at_least(target.kernel, &filter.min_kernel)
        });
        let excluded = self.excludes.as_ref().is_some_and(|filter| {
            filter.arches.iter().any(|arch| arch == target.arch)
                || filter.caps.iter().any(capable)
                || (!filter.min_kernel.is_empty() && kernel_at_least(target.kernel, &filter.min_kernel))
        });
        included && !excluded
    }

    fn to_spec(&self) -> Value {
        let names: Vec<&String> = self.names.iter().chain((!self.name.is_empty()).then_some(&self.name)).collect();
        let mut rule = json!({ "names": names, "action": self.action });
        if let Some(errno) = self.errno_ret {
            rule["errnoRet"] = errno.into();
        }
        if let Some(args) = self.args.as_ref().filter(|args| !args.is_empty()) {
            rule["args"] = json!(args);
        }
        rule
    }
}

fn native_architecture(arch: &str) -> &'static str {
    match arch {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "ppc64le" => "SCMP_ARCH_PPC64LE",
        "s390x" => "SCMP_ARCH_S390X",
        "loong64" => "SCMP_ARCH_LOONGARCH64",
        _ => "",
    }
}

fn kernel_at_least(kernel: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> (u32, u32) {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    wanted.is_empty() || numbers(kernel) >= numbers(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(capabilities: &[&'static str], syscall: &str) -> Vec<String> {
        let profile = Profile::builtin().expect("builtin profile");
        let resolved = profile.resolve(&Target { arch: "amd64", kernel: "6.1.0", capabilities });
        let rules = resolved["syscalls"].as_array().expect("rules").clone();
        let named = rules.into_iter().filter(|rule| rule["names"].as_array().is_some_and(|names| names.iter().any(|name| name == syscall)));
        named.map(|rule| format!("{} {}", rule["action"].as_str().unwrap_or_default(), rule["args"])).collect()
    }

    #[test]
    fn namespaces_need_sys_admin() {
        assert!(actions(&[], "unshare").is_empty());
        assert_eq!(actions(&["CAP_SYS_ADMIN"], "unshare").len(), 1);
        assert_eq!(actions(&[], "clone3"), ["SCMP_ACT_ERRNO null"]);
        assert_eq!(actions(&["CAP_SYS_ADMIN"], "clone3"), ["SCMP_ACT_ALLOW null"]);
    }

    #[test]
    fn alg_and_vsock_sockets_are_never_allowed() {
        let allowed = |family: u64| {
            let profile = Profile::builtin().expect("builtin profile");
            let resolved = profile.resolve(&Target { arch: "amd64", kernel: "6.1.0", capabilities: crate::capabilities::ALL });
            let rules = resolved["syscalls"].as_array().expect("rules").clone();
            rules.iter().filter(|rule| rule["names"].as_array().is_some_and(|names| names.iter().any(|name| name == "socket"))).any(
                |rule| {
                    let arg = &rule["args"][0];
                    let value = arg["value"].as_u64().expect("value");
                    match arg["op"].as_str().expect("op") {
                        "SCMP_CMP_LT" => family < value,
                        "SCMP_CMP_EQ" => family == value,
                        "SCMP_CMP_GT" => family > value,
                        other => panic!("unexpected comparison {other}"),
                    }
                },
            )
        };
        for (family, expected) in [(1, true), (2, true), (10, true), (37, true), (38, false), (39, true), (40, false), (41, true)] {
            assert_eq!(allowed(family), expected, "family {family}");
        }
        assert!(actions(&[], "socketcall")[0].contains("SCMP_CMP_GT"));
    }

    #[test]
    fn foreign_architectures_rules_are_left_out() {
        assert!(actions(&[], "cacheflush").is_empty());
        assert!(kernel_at_least("6.1.0-13", "4.8") && !kernel_at_least("4.4.0", "4.8"));
    }
}
