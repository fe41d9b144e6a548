//! The portable part of a container's configuration (`Config`), also found in images.

use crate::null::{dto, is_default};
use crate::{StringMap, StringSet};
use serde::{Deserialize, Deserializer};

dto! {
    /// What to run, independent of the host.
    pub struct Config {
        pub hostname: String,
        pub domainname: String,
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        /// Keys such as `80/tcp`.
        #[serde(skip_serializing_if = "is_none_or_empty")]
        pub exposed_ports: Option<StringSet>,
        pub tty: bool,
        pub open_stdin: bool,
        pub stdin_once: bool,
        pub env: Option<Vec<String>>,
        pub cmd: Option<StrSlice>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<HealthConfig>,
        #[serde(skip_serializing_if = "is_default")]
        pub args_escaped: bool,
        pub image: String,
        pub volumes: Option<StringSet>,
        pub working_dir: String,
        pub entrypoint: Option<StrSlice>,
        #[serde(skip_serializing_if = "is_default")]
        pub network_disabled: bool,
        #[serde(skip_serializing_if = "is_default")]
        pub mac_address: String,
        pub on_build: Option<Vec<String>>,
        pub labels: Option<StringMap>,
        #[serde(skip_serializing_if = "is_default")]
        pub stop_signal: String,
        /// Seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "is_none_or_empty_list")]
        pub shell: Option<StrSlice>,
    }

    /// How to find out whether the container is well. Times are nanoseconds; zero inherits.
    pub struct HealthConfig {
        #[serde(skip_serializing_if = "is_default")]
        pub test: Vec<String>,
        #[serde(skip_serializing_if = "is_default")]
        pub interval: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub timeout: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub start_period: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub start_interval: i64,
        #[serde(skip_serializing_if = "is_default")]
        pub retries: i64,
    }
}

/// A list of strings that may also be written as one bare string (`"Cmd": "true"`).
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl From<Vec<String>> for StrSlice {
    fn from(list: Vec<String>) -> Self {
        Self(list)
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            List(Vec<String>),
            One(String),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::List(list) => Self(list),
            Form::One(one) => Self(vec![one]),
        })
    }
}

fn is_none_or_empty(map: &Option<StringSet>) -> bool {
    map.as_ref().is_none_or(StringSet::is_empty)
}

fn is_none_or_empty_list(list: &Option<StrSlice>) -> bool {
    list.as_ref().is_none_or(|l| l.0.is_empty())
}
