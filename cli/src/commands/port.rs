//! `port`.

use proto_docker::host_config::PortBinding;
use proto_docker::inspect::ContainerInspect;

use crate::cli::Cli;
use crate::client::path_segment;
use crate::cmdline::{Args, Command, Matches, Outcome, leaf};
use crate::failure::Failure;
use crate::output;

pub static COMMAND: Command = Command {
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    names: &["container port", "port"],
    args: Args::Between(1, 2),
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.arg(0);
    let container: ContainerInspect = cli.client()?.get(format!("/containers/{}/json", path_segment(name))).fetch().await?;
    let ports = &container.network_settings.ports;
    if let Some(wanted) = matches.args.get(1) {
        let key = port_key(wanted)?;
        let Some(Some(bindings)) = ports.get(&key) else {
            return Err(Failure::message(format!("Error: No public port '{wanted}' published for {name}")));
        };
        return output::print(&bindings.iter().map(|binding| format!("{}\n", address(binding))).collect::<String>());
    }
    let mut all: Vec<(u16, &str, &PortBinding)> = Vec::new();
    for (port, bindings) in ports {
        let number = port.split('/').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        all.extend(bindings.iter().flatten().map(|binding| (number, port.as_str(), binding)));
    }
    all.sort_by_key(|(number, port, _)| (*number, *port));
    output::print(&all.iter().map(|(_, port, binding)| format!("{port} -> {}\n", address(binding))).collect::<String>())
}

fn port_key(text: &str) -> Result<String, Failure> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match port.parse::<u16>() {
        Ok(number) => Ok(format!("{number}/{}", protocol.to_lowercase())),
        Err(_) => Err(Failure::message(format!("Error: invalid port '{port}': invalid syntax"))),
    }
}

fn address(binding: &PortBinding) -> String {
    if binding.host_ip.contains(':') {
        format!("[{}]:{}", binding.host_ip, binding.host_port)
    } else {
        format!("{}:{}", binding.host_ip, binding.host_port)
    }
}
