//! `--security-opt`, capabilities.

use rcontainerd_types::{Error, Result};

use super::super::config::HostConfig;

/// What the security options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub seccomp: SeccompChoice,
    pub no_new_privileges: bool,
    pub apparmor: Option<String>,
    /// `systempaths=unconfined` from clients that leave it to the server.
    pub unmask_paths: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeccompChoice {
    #[default]
    Builtin,
    Unconfined,
    /// A profile's content (clients send the file).
    Profile(String),
}

impl Security {
    /// # Errors
    /// `InvalidArgument` naming the option.
    pub fn parse(host: &HostConfig) -> Result<Self> {
        let mut security = Self::default();
        if host.privileged {
            security.seccomp = SeccompChoice::Unconfined;
        }
        for option in &host.security_opt {
            security.apply(option)?;
        }
        Ok(security)
    }

    fn apply(&mut self, option: &str) -> Result<()> {
        let invalid = || Error::invalid(format!("invalid --security-opt: {option:?}"));
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "unconfined") => self.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => self.seccomp = SeccompChoice::Builtin,
            ("seccomp", profile) if profile.trim_start().starts_with('{') => self.seccomp = SeccompChoice::Profile(profile.to_owned()),
            ("seccomp", path) => {
                return Err(Error::invalid(format!(
                    "opening seccomp profile ({path}) failed: the server takes the profile's content, not its path"
                )));
            }
            ("apparmor", "unconfined") => self.apparmor = None,
            ("apparmor", profile) if !profile.is_empty() => self.apparmor = Some(profile.to_owned()),
            ("systempaths", "unconfined") => self.unmask_paths = true,
            // Without SELinux on the host a label has no effect in Docker either.
            ("label", value) if !value.is_empty() => {}
            _ => return Err(invalid()),
        }
        Ok(())
    }
}

pub(super) fn check(host: &HostConfig) -> Result<()> {
    let security = Security::parse(host)?;
    if let SeccompChoice::Profile(text) = &security.seccomp {
        crate::seccomp::Profile::parse(text)?;
    }
    if let Some(profile) = security.apparmor {
        return Err(Error::unsupported(format!("--security-opt apparmor={profile} is not supported: use apparmor=unconfined")));
    }
    crate::capabilities::resolve(&host.cap_add, &host.cap_drop, host.privileged).map(|_| ())
}
