//! What older API versions see and send: transforms of bodies, one function per body, no version is looked at elsewhere but for
//! the content type of streams.

use proto_docker::container::{ContainerSummary, CreateRequest};
use proto_docker::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};
use proto_docker::image::{ImageInspect, ImageSummary};
use proto_docker::inspect::ContainerInspect;
use proto_docker::network::{EndpointSettings, Network};
use proto_docker::system::{DiskUsage, Info};
use rcontainerd_core::Filters;

use crate::wire::raw_stream::{Framing, MULTIPLEXED, RAW};
use crate::wire::version::ApiVersion;

const V1_25: ApiVersion = ApiVersion::v1(25);
const V1_28: ApiVersion = ApiVersion::v1(28);
const V1_35: ApiVersion = ApiVersion::v1(35);
const V1_40: ApiVersion = ApiVersion::v1(40);
const V1_41: ApiVersion = ApiVersion::v1(41);
const V1_42: ApiVersion = ApiVersion::v1(42);
const V1_43: ApiVersion = ApiVersion::v1(43);
const V1_44: ApiVersion = ApiVersion::v1(44);
const V1_45: ApiVersion = ApiVersion::v1(45);
const V1_48: ApiVersion = ApiVersion::v1(48);

/// Members that did not exist yet are ignored, as the daemons of their time ignored them.
pub(crate) fn create_request(version: ApiVersion, body: &mut CreateRequest) {
    let Some(host) = body.host_config.as_mut() else { return };
    if version < V1_25 {
        body.config.stop_timeout = None;
        host.init = None;
    }
    if version < V1_40 {
        host.device_requests = None;
    }
    if version < V1_41 {
        host.cgroupns_mode.clear();
    }
    if version < V1_42 {
        host.console_size = [0, 0];
        for bind in host.mounts.iter_mut().flatten().filter_map(|mount| mount.bind_options.as_mut()) {
            bind.create_mountpoint = false;
        }
    } else {
        host.kernel_memory = 0;
    }
    if version < V1_43 {
        host.annotations = None;
    }
    if version < V1_44 {
        for bind in host.mounts.iter_mut().flatten().filter_map(|mount| mount.bind_options.as_mut()) {
            bind.read_only_force_recursive = false;
            bind.read_only_non_recursive = false;
        }
    }
    if version < V1_45 {
        for volume in host.mounts.iter_mut().flatten().filter_map(|mount| mount.volume_options.as_mut()) {
            volume.subpath.clear();
        }
    }
}

/// As [`create_request`].
pub(crate) fn exec_create(version: ApiVersion, body: &mut ExecCreateRequest) {
    if version < V1_25 {
        body.env = None;
    }
    if version < V1_35 {
        body.working_dir.clear();
    }
    if version < V1_42 {
        body.console_size = None;
    }
}

/// As [`create_request`].
pub(crate) fn exec_start(version: ApiVersion, body: &mut ExecStartRequest) {
    if version < V1_42 {
        body.console_size = None;
    }
}

/// Before 1.44 an exec that could not be started ended with 126 whatever the reason; since then a missing program is 127.
pub(crate) fn failed_exec(version: ApiVersion, body: &mut ExecInspect) {
    if version < V1_44 {
        body.exit_code = Some(126);
    }
}

/// Content type of a stream of output.
pub(crate) fn stream_type(version: ApiVersion, framing: Framing) -> &'static str {
    if framing == Framing::Multiplexed && version >= V1_42 { MULTIPLEXED } else { RAW }
}

pub(crate) fn container_inspect(version: ApiVersion, body: &mut ContainerInspect) {
    if version < V1_43 {
        body.host_config.annotations = None;
    }
    body.network_settings.networks.values_mut().for_each(|endpoint| endpoint_settings(version, endpoint));
}

pub(crate) fn container_summary(version: ApiVersion, body: &mut ContainerSummary) {
    if version < V1_43 {
        body.host_config.annotations.clear();
    }
    body.network_settings.networks.values_mut().for_each(|endpoint| endpoint_settings(version, endpoint));
}

fn endpoint_settings(version: ApiVersion, body: &mut EndpointSettings) {
    if version < V1_44 {
        body.dns_names = None;
    }
}

/// `VirtualSize` was the same as `Size` and went with 1.44.
pub(crate) fn image_summary(version: ApiVersion, body: &mut ImageSummary) {
    body.virtual_size = (version < V1_44).then_some(body.size);
}

pub(crate) fn image_inspect(version: ApiVersion, body: &mut ImageInspect) {
    body.virtual_size = (version < V1_44).then_some(body.size);
    if version < V1_45 {
        body.container = Some(String::new());
        body.container_config = Some(proto_docker::config::Config::default());
    }
    if version < V1_44 && body.created.is_empty() {
        crate::wire::time::NEVER.clone_into(&mut body.created);
    }
}

/// Lists of networks told their containers up to 1.27; since then only inspect does.
pub(crate) fn network_list(version: ApiVersion, body: &mut Network) {
    if version >= V1_28 {
        body.containers.clear();
    }
    network(version, body);
}

pub(crate) fn network(version: ApiVersion, body: &mut Network) {
    if version < V1_48 {
        body.enable_ipv4 = None;
    }
}

/// Before 1.25 options were bare words (`seccomp`); old clients warn of a program whose commit is not the expected one.
pub(crate) fn info(version: ApiVersion, body: &mut Info) {
    if version < V1_44 {
        for commit in [&mut body.containerd_commit, &mut body.runc_commit, &mut body.init_commit] {
            commit.expected.clone_from(&commit.id);
        }
    }
    if version >= V1_25 {
        return;
    }
    for option in &mut body.security_options {
        let name = option.split(',').find_map(|pair| pair.strip_prefix("name=")).map(str::to_owned);
        if let Some(name) = name {
            *option = name;
        }
    }
}

pub(crate) fn disk_usage(version: ApiVersion, body: &mut DiskUsage) {
    body.builder_size = (version < V1_42).then_some(0);
    body.images.iter_mut().flatten().for_each(|image| image_summary(version, image));
    body.containers.iter_mut().flatten().for_each(|container| container_summary(version, container));
}

/// Before 1.42 pruning took all unused volumes; since then only anonymous ones unless `all` is asked for.
pub(crate) fn volume_prune(version: ApiVersion, filters: &mut Filters) {
    if version < V1_42 {
        filters.0.insert("all".to_owned(), vec!["true".to_owned()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_docker::host_config::HostConfig;

    /// The versions that clients in use speak: 1.24 (oldest), 20.10 (1.41), 23 to 28.
    #[test]
    fn virtual_size_and_stream_type() {
        let cases = [
            (24, true, RAW),
            (32, true, RAW),
            (41, true, RAW),
            (43, true, MULTIPLEXED),
            (44, false, MULTIPLEXED),
            (51, false, MULTIPLEXED),
        ];
        for (minor, virtual_size, stream) in cases {
            let version = ApiVersion::v1(minor);
            let mut image = ImageSummary { size: 5, ..ImageSummary::default() };
            image_summary(version, &mut image);
            assert_eq!(image.virtual_size, virtual_size.then_some(5), "{version}");
            assert_eq!(stream_type(version, Framing::Multiplexed), stream, "{version}");
            assert_eq!(stream_type(version, Framing::Raw), RAW, "{version}");
        }
    }

    #[test]
    fn members_newer_than_the_version_are_ignored() {
        let host = HostConfig { cgroupns_mode: "private".into(), console_size: [24, 80], init: Some(true), ..HostConfig::default() };
        let body = CreateRequest { host_config: Some(host), ..CreateRequest::default() };
        let seen = |minor| {
            let mut body = body.clone();
            create_request(ApiVersion::v1(minor), &mut body);
            body.host_config.expect("still there")
        };
        let (oldest, v39, v41, newest) = (seen(24), seen(39), seen(41), seen(51));
        assert_eq!((oldest.init, v39.init), (None, Some(true)));
        assert_eq!((v39.cgroupns_mode.as_str(), v41.cgroupns_mode.as_str()), ("", "private"));
        assert_eq!((v41.console_size, newest.console_size), ([0, 0], [24, 80]));
    }

    #[test]
    fn a_missing_program_is_told_by_the_code_of_the_version() {
        let code = |minor| {
            let mut body = ExecInspect { exit_code: Some(127), ..ExecInspect::default() };
            failed_exec(ApiVersion::v1(minor), &mut body);
            body.exit_code
        };
        assert_eq!((code(41), code(51)), (Some(126), Some(127)));
    }

    #[test]
    fn old_clients_prune_all_volumes() {
        let (mut old, mut new) = (Filters::default(), Filters::default());
        volume_prune(ApiVersion::v1(41), &mut old);
        volume_prune(ApiVersion::v1(42), &mut new);
        assert_eq!((old.get("all").to_vec(), new.has("all")), (vec!["true".to_owned()], false));
    }

    #[test]
    fn security_options_were_bare_words_before_1_25() {
        let mut body = Info { security_options: vec!["name=seccomp,profile=builtin".into()], ..Info::default() };
        info(ApiVersion::v1(24), &mut body);
        assert_eq!(body.security_options, ["seccomp"]);
    }
}
