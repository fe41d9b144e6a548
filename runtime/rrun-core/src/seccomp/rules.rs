//! The words of a profile → values: actions, architectures, operators, flags. Everything that can be wrong with a profile is
//! found here; `compile` has only the library's errors left.

use std::str::FromStr;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp};

use super::profile::{Arg, Profile};
use super::{Error, Result};

/// A profile whose words are understood.
#[derive(Debug)]
pub(super) struct Rules {
    pub default: ScmpAction,
    pub architectures: Vec<ScmpArch>,
    /// `SECCOMP_FILTER_FLAG_*` bits, without the listener's.
    pub flags: u64,
    pub rules: Vec<Rule>,
}

/// One action for some calls.
#[derive(Debug)]
pub(super) struct Rule {
    pub names: Vec<String>,
    pub action: ScmpAction,
    /// Alternatives; in each, all comparisons must hold. Empty: unconditional.
    pub conditions: Vec<Vec<ScmpArgCompare>>,
    /// The same, as written.
    pub args: Vec<Arg>,
}

impl Rule {
    /// Whether a call whose first argument is this may match.
    pub fn takes_first(&self, value: u64) -> bool {
        let mut about_first = self.args.iter().filter(|arg| arg.index == 0).peekable();
        about_first.peek().is_none() || about_first.any(|arg| holds(arg, value))
    }
}

fn holds(arg: &Arg, value: u64) -> bool {
    match arg.op.as_str() {
        "SCMP_CMP_NE" => value != arg.value,
        "SCMP_CMP_LT" => value < arg.value,
        "SCMP_CMP_LE" => value <= arg.value,
        "SCMP_CMP_GE" => value >= arg.value,
        "SCMP_CMP_GT" => value > arg.value,
        "SCMP_CMP_MASKED_EQ" => value & arg.value == arg.value_two.unwrap_or(0),
        _ => value == arg.value,
    }
}

pub(super) const TSYNC: u64 = 1 << 0;
const SPEC_ALLOW: u64 = 1 << 2;
pub(super) const TSYNC_ESRCH: u64 = 1 << 4;
const WAIT_KILLABLE_RECV: u64 = 1 << 5;

impl Rules {
    pub fn of(profile: &Profile) -> Result<Rules> {
        let default = action(&profile.default_action, profile.default_errno_ret, "defaultAction")?;
        if default == ScmpAction::Notify {
            return Err(Error(
                "defaultAction SCMP_ACT_NOTIFY would stop the container before its supervisor has the listener: name the calls instead"
                    .into(),
            ));
        }
        let rules = profile.syscalls.iter().flatten().enumerate().map(|(n, rule)| {
            let place = format!("syscalls[{n}]");
            let action = action(&rule.action, rule.errno_ret, &place)?;
            if action == ScmpAction::Notify && rule.names.iter().any(|name| name == "write") {
                return Err(Error(format!(
                    "{place}: SCMP_ACT_NOTIFY cannot be used for the write syscall: it would stop the runtime itself"
                )));
            }
            let conditions = conditions(rule.args.as_deref().unwrap_or_default(), &place)?;
            Ok(Rule { names: rule.names.clone(), action, conditions, args: rule.args.clone().unwrap_or_default() })
        });
        let rules = rules.collect::<Result<Vec<_>>>()?;
        let notify = rules.iter().any(|rule| rule.action == ScmpAction::Notify);
        Ok(Rules { default, architectures: architectures(profile)?, flags: flags(profile, notify)?, rules })
    }

    pub fn notifies(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == ScmpAction::Notify)
    }
}

fn action(word: &str, errno: Option<u32>, place: &str) -> Result<ScmpAction> {
    let number = |value: Option<u32>, limit: u16| {
        let value = value.unwrap_or(libc::EPERM as u32);
        u16::try_from(value).ok().filter(|n| *n <= limit).ok_or_else(|| Error(format!("{place}: errnoRet {value} is above {limit}")))
    };
    match word {
        // MAX_ERRNO of the kernel, which would take it instead of a higher one.
        "SCMP_ACT_ERRNO" => Ok(ScmpAction::Errno(number(errno, 4095)?.into())),
        "SCMP_ACT_TRACE" => Ok(ScmpAction::Trace(number(errno, u16::MAX)?)),
        _ if errno.is_some() => Err(Error(format!("{place}: errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not with {word:?}"))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(ScmpAction::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(ScmpAction::KillProcess),
        "SCMP_ACT_TRAP" => Ok(ScmpAction::Trap),
        "SCMP_ACT_ALLOW" => Ok(ScmpAction::Allow),
        "SCMP_ACT_LOG" => Ok(ScmpAction::Log),
        "SCMP_ACT_NOTIFY" => Ok(ScmpAction::Notify),
        _ => Err(Error(format!("{place}: unknown action {word:?}"))),
    }
}

/// The native architecture is always part of the filter: the library starts with it.
fn architectures(profile: &Profile) -> Result<Vec<ScmpArch>> {
    let mut found = vec![ScmpArch::native()];
    for word in profile.architectures.iter().flatten() {
        let arch = ScmpArch::from_str(word).map_err(|_| Error(format!("unknown architecture {word:?}")))?;
        if arch != ScmpArch::Native && !found.contains(&arch) {
            found.push(arch);
        }
    }
    Ok(found)
}

fn flags(profile: &Profile, notify: bool) -> Result<u64> {
    // Since Linux 5.16 filters do not slow speculation down; older ones need to be told.
    let Some(words) = &profile.flags else { return Ok(SPEC_ALLOW) };
    let bits = words.iter().try_fold(0, |bits, word| match word.as_str() {
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(bits | TSYNC),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(bits | 1 << 1),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(bits | SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(bits | WAIT_KILLABLE_RECV),
        _ => Err(Error(format!("unknown flag {word:?}"))),
    })?;
    if bits & WAIT_KILLABLE_RECV != 0 && !notify {
        return Err(Error("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY".into()));
    }
    // The kernel cannot return a thread's id and a listener at once.
    Ok(if bits & TSYNC != 0 && notify { bits | TSYNC_ESRCH } else { bits })
}

/// Comparisons of different arguments must all hold; the library cannot take one argument twice, and what the field means by
/// that is "any of them".
fn conditions(args: &[Arg], place: &str) -> Result<Vec<Vec<ScmpArgCompare>>> {
    let compares = args.iter().map(|arg| compare(arg, place)).collect::<Result<Vec<_>>>()?;
    let repeated = args.iter().enumerate().any(|(n, arg)| args[..n].iter().any(|earlier| earlier.index == arg.index));
    Ok(match (compares.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => compares.into_iter().map(|one| vec![one]).collect(),
        (false, false) => vec![compares],
    })
}

fn compare(arg: &Arg, place: &str) -> Result<ScmpArgCompare> {
    if arg.index > 5 {
        return Err(Error(format!("{place}: argument {} does not exist: there are 0 to 5", arg.index)));
    }
    let (op, datum) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, arg.value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, arg.value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, arg.value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, arg.value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, arg.value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, arg.value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two.unwrap_or(0)),
        word => return Err(Error(format!("{place}: unknown operator {word:?}"))),
    };
    Ok(ScmpArgCompare::new(arg.index, op, datum))
}
