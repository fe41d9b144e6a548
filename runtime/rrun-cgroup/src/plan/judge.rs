//! What is wrong with limits whatever the host: told with the key, the value and the rule before anything is written. What only the
//! kernel knows (how many CPUs there are) is its to refuse.

use std::fmt::Display;

use crate::error::{Error, Result};
use crate::resources::{BlockIo, Cpu, Memory, Resources};

fn refuse<T>(key: &str, value: impl Display, rule: &str) -> Result<T> {
    Err(Error::Invalid(format!("{key}: {value}: {rule}")))
}

pub(super) fn judge(resources: &Resources) -> Result<()> {
    resources.memory.as_ref().map_or(Ok(()), memory)?;
    resources.cpu.as_ref().map_or(Ok(()), cpu)?;
    resources.block_io.as_ref().map_or(Ok(()), block_io)
}

fn memory(memory: &Memory) -> Result<()> {
    let sizes = [
        ("limit", memory.limit),
        ("reservation", memory.reservation),
        ("swap", memory.swap),
        ("kernel", memory.kernel),
        ("kernelTCP", memory.kernel_tcp),
    ];
    match sizes.into_iter().find_map(|(name, size)| Some((name, size.filter(|s| *s < -1)?))) {
        Some((name, size)) => refuse(&format!("memory.{name}"), size, "must be a number of bytes, or -1 for no limit"),
        None => Ok(()),
    }
}

/// The bounds are the kernel's (kernel/sched/core.c: tg_set_bandwidth()).
fn cpu(cpu: &Cpu) -> Result<()> {
    if let Some(quota) = cpu.quota.filter(|q| (1..1000).contains(q)) {
        return refuse("cpu.quota", quota, "must be at least 1000 microseconds, or -1 for no limit");
    }
    if let Some(period) = cpu.period.filter(|p| *p != 0 && !(1000..=1_000_000).contains(p)) {
        return refuse("cpu.period", period, "must be from 1000 to 1000000 microseconds");
    }
    if let Some(idle) = cpu.idle.filter(|i| !(0..=1).contains(i)) {
        return refuse("cpu.idle", idle, "must be 0 or 1");
    }
    for (name, list) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
        if let Some(list) = list.as_ref().filter(|list| !is_list(list)) {
            return refuse(&format!("cpu.{name}"), format!("{list:?}"), "must be a list such as 0-3,7");
        }
    }
    Ok(())
}

/// The kernel's lists (bitmap_parselist()): numbers, ranges, every so many of a range.
fn is_list(text: &str) -> bool {
    let number = |text: &str| ["N", "n"].contains(&text) || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let region = |text: &str| {
        let (range, step) = text.split_once(':').map_or((text, None), |(range, step)| (range, Some(step)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let stepped = step.is_none_or(|step| step.split_once('/').is_some_and(|(used, of)| number(used) && number(of)));
        (text == "all" || number(first) && number(last)) && stepped
    };
    text.split([',', ' ', '\n']).map(str::trim).filter(|part| !part.is_empty()).all(region)
}

fn block_io(io: &BlockIo) -> Result<()> {
    let weights = [("weight", io.weight), ("leafWeight", io.leaf_weight)];
    if let Some((name, weight)) = weights.into_iter().find_map(|(name, weight)| Some((name, weight.filter(|w| *w > 1000)?))) {
        return refuse(&format!("blockIO.{name}"), weight, "must be from 10 to 1000");
    }
    for (n, device) in io.weight_device.iter().flatten().enumerate() {
        number(&format!("blockIO.weightDevice[{n}]"), device.major, device.minor)?;
        if let Some(weight) = device.weight.into_iter().chain(device.leaf_weight).find(|w| *w > 1000) {
            return refuse(&format!("blockIO.weightDevice[{n}].weight"), weight, "must be from 10 to 1000");
        }
    }
    let throttles = [
        ("throttleReadBpsDevice", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", &io.throttle_write_iops_device),
    ];
    let devices = throttles.iter().flat_map(|(name, list)| list.iter().flatten().enumerate().map(move |(n, device)| (name, n, device)));
    devices.into_iter().try_for_each(|(name, n, device)| number(&format!("blockIO.{name}[{n}]"), device.major, device.minor))
}

/// A device's numbers: 12 and 20 bits.
fn number(key: &str, major: i64, minor: i64) -> Result<()> {
    for (name, number, limit) in [("major", major, 1 << 12), ("minor", minor, 1 << 20)] {
        if !(0..limit).contains(&number) {
            return refuse(&format!("{key}.{name}"), number, &format!("must be from 0 to {}", limit - 1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_limit_is_told_with_its_key_its_value_and_the_rule() {
        let table = [
            (r#"{"memory":{"limit":-5}}"#, "memory.limit: -5: must be a number of bytes, or -1 for no limit"),
            (r#"{"memory":{"kernelTCP":-2}}"#, "memory.kernelTCP: -2: must be a number of bytes, or -1 for no limit"),
            (r#"{"cpu":{"quota":999}}"#, "cpu.quota: 999: must be at least 1000 microseconds, or -1 for no limit"),
            (r#"{"cpu":{"period":1000001}}"#, "cpu.period: 1000001: must be from 1000 to 1000000 microseconds"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle: 2: must be 0 or 1"),
            (r#"{"cpu":{"cpus":"0-3;5"}}"#, "cpu.cpus: \"0-3;5\": must be a list such as 0-3,7"),
            (r#"{"cpu":{"mems":"a"}}"#, "cpu.mems: \"a\": must be a list such as 0-3,7"),
            (r#"{"blockIO":{"weight":1001}}"#, "blockIO.weight: 1001: must be from 10 to 1000"),
            (r#"{"blockIO":{"weightDevice":[{"major":-1,"minor":0}]}}"#, "blockIO.weightDevice[0].major: -1: must be from 0 to 4095"),
            (
                r#"{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":0},{"major":8,"minor":1048576}]}}"#,
                "blockIO.throttleReadIOPSDevice[1].minor: 1048576: must be from 0 to 1048575",
            ),
        ];
        for (json, told) in table {
            let resources: Resources = serde_json::from_str(json).unwrap();
            assert_eq!(judge(&resources).unwrap_err().to_string(), format!("cgroup: {told}"));
        }
        let good = r#"{"memory":{"limit":-1,"swap":0},"cpu":{"quota":-1,"period":0,"cpus":"0-3,7, 9-31:1/2","mems":"all"},"blockIO":{"weight":0}}"#;
        judge(&serde_json::from_str(good).unwrap()).unwrap();
    }
}
