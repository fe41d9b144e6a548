//! `info`.

use proto_docker::system::Info;
use serde_json::{Value, json};

use super::common::json_format_flag;
use crate::cli::Cli;
use crate::cmdline::{Command, Flag, Matches, Outcome, leaf};
use crate::failure::Failure;
use crate::output::template::{Answers, Subject};
use crate::output::{self, units};

static FLAGS: &[Flag] = &[json_format_flag("f")];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    names: &["system info", "info"],
    flags: &[FLAGS],
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let answer = fetch(cli).await;
    if let Some(format) = matches.str("format") {
        return formatted(cli, format, answer);
    }
    let mut text = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION"),
        cli.context_name()
    );
    match answer {
        Ok(value) => {
            let info: Info =
                serde_json::from_value(value).map_err(|err| Failure::message(format!("the daemon's answer is not understood: {err}")))?;
            describe(&mut text, &info);
            text.push('\n');
            output::print(&text)?;
            for warning in info.warnings.iter().flatten() {
                eprintln!("{warning}");
            }
            Ok(())
        }
        Err(failure) => {
            output::print(&text)?;
            Err(Failure::message(format!("ERROR: {}\nerrors pretty printing info", failure.text().unwrap_or_default())))
        }
    }
}

async fn fetch(cli: &Cli) -> Result<Value, Failure> {
    Ok(cli.client()?.get("/info").fetch().await?)
}

fn formatted(cli: &Cli, format: &str, answer: Result<Value, Failure>) -> Outcome {
    let template = Answers::parse(format, Subject::Info)?;
    let client =
        json!({"Debug": false, "Version": env!("CARGO_PKG_VERSION"), "Context": cli.context_name(), "Plugins": [], "Warnings": null});
    let (mut document, failure) = match answer {
        Ok(value) => (value, None),
        Err(failure) => (json!({"ServerErrors": [failure.text().unwrap_or_default()]}), Some(failure)),
    };
    if let Some(object) = document.as_object_mut() {
        object.insert("ClientInfo".to_owned(), client);
    }
    let mut text = String::new();
    let done = template.execute(Subject::Info, &document, &mut text);
    output::line(&text)?;
    done?;
    failure.map_or(Ok(()), Err)
}

struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn put(&mut self, label: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{label} {value}\n"));
    }

    fn put_set(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.put(label, value);
        }
    }

    fn list<'b>(&mut self, label: &str, values: impl Iterator<Item = &'b String>) {
        let mut values = values.peekable();
        if values.peek().is_some() {
            self.0.push_str(&format!(" {label}:\n"));
        }
        for value in values {
            self.0.push_str(&format!("  {value}\n"));
        }
    }
}

fn describe(text: &mut String, info: &Info) {
    let mut lines = Lines(text);
    lines.put(" Containers:", info.containers);
    lines.put("  Running:", info.containers_running);
    lines.put("  Paused:", info.containers_paused);
    lines.put("  Stopped:", info.containers_stopped);
    lines.put(" Images:", info.images);
    lines.put_set(" Server Version:", &info.server_version);
    lines.put_set(" Storage Driver:", &info.driver);
    for [name, value] in info.driver_status.iter().flatten() {
        lines.put(&format!("  {name}:"), value);
    }
    lines.put_set(" Logging Driver:", &info.logging_driver);
    lines.put_set(" Cgroup Driver:", &info.cgroup_driver);
    lines.put_set(" Cgroup Version:", &info.cgroup_version);
    lines.0.push_str(" Plugins:\n");
    let joined = |list: &Option<Vec<String>>| list.as_deref().unwrap_or_default().join(" ");
    lines.put("  Volume:", joined(&info.plugins.volume));
    lines.put("  Network:", joined(&info.plugins.network));
    lines.put_set("  Authorization:", &joined(&info.plugins.authorization));
    lines.put("  Log:", joined(&info.plugins.log));
    lines.list("CDI spec directories", info.cdi_spec_dirs.iter().flatten());
    lines.put(" Swarm:", &info.swarm.local_node_state);
    if !info.runtimes.is_empty() {
        lines.put(" Runtimes:", info.runtimes.keys().cloned().collect::<Vec<_>>().join(" "));
        lines.put(" Default Runtime:", &info.default_runtime);
    }
    if info.os_type == "linux" {
        lines.put(" Init Binary:", &info.init_binary);
        lines.put(" containerd version:", &info.containerd_commit.id);
        lines.put(" runc version:", &info.runc_commit.id);
        lines.put(" init version:", &info.init_commit.id);
        security(&mut lines, info);
    }
    host(&mut lines, info);
}

/// Options such as `name=seccomp,profile=builtin`.
fn security(lines: &mut Lines<'_>, info: &Info) {
    if info.security_options.is_empty() {
        return;
    }
    lines.0.push_str(" Security Options:\n");
    for option in &info.security_options {
        for (key, value) in option.split(',').map(|pair| pair.split_once('=').unwrap_or(("name", pair))) {
            match key {
                "name" => lines.0.push_str(&format!("  {value}\n")),
                "profile" => lines.0.push_str(&format!("   Profile: {value}\n")),
                _ => {}
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
fn host(lines: &mut Lines<'_>, info: &Info) {
    lines.put_set(" Kernel Version:", &info.kernel_version);
    lines.put_set(" Operating System:", &info.operating_system);
    lines.put_set(" OSType:", &info.os_type);
    lines.put_set(" Architecture:", &info.architecture);
    lines.put(" CPUs:", info.ncpu);
    lines.put(" Total Memory:", units::bytes_size(info.mem_total as f64));
    lines.put_set(" Name:", &info.name);
    lines.put_set(" ID:", &info.id);
    lines.put(" Docker Root Dir:", &info.docker_root_dir);
    lines.put(" Debug Mode:", info.debug);
    if info.debug {
        lines.put("  File Descriptors:", info.n_fd);
        lines.put("  Goroutines:", info.n_goroutines);
        lines.put("  System Time:", &info.system_time);
        lines.put("  EventsListeners:", info.n_events_listener);
    }
    lines.put_set(" HTTP Proxy:", &info.http_proxy);
    lines.put_set(" HTTPS Proxy:", &info.https_proxy);
    lines.put_set(" No Proxy:", &info.no_proxy);
    lines.list("Labels", info.labels.iter());
    lines.put(" Experimental:", info.experimental_build);
    if let Some(registry) = &info.registry_config {
        let insecure = registry.index_configs.values().filter(|index| !index.secure).map(|index| &index.name);
        lines.list("Insecure Registries", insecure.chain(&registry.insecure_registry_cidrs));
        lines.list("Registry Mirrors", registry.mirrors.iter().flatten());
    }
    lines.put(" Live Restore Enabled:", info.live_restore_enabled);
    lines.put_set(" Product License:", &info.product_license);
    if !info.default_address_pools.is_empty() {
        lines.0.push_str(" Default Address Pools:\n");
        for pool in &info.default_address_pools {
            lines.0.push_str(&format!("   Base: {}, Size: {}\n", pool.base, pool.size));
        }
    }
}
