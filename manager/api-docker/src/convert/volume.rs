//! Volumes both ways.

use proto_docker::volume::{Volume as VolumeDto, VolumeCreateRequest, VolumeUsage};
use rcontainerd_core::volumes::{CreateVolume, Volume};

use super::container::signed;
use super::create::some_map;
use crate::wire::error::ApiError;

pub(crate) fn volume(volume: &Volume) -> VolumeDto {
    VolumeDto {
        created_at: crate::wire::time::rfc3339_seconds(volume.created),
        driver: volume.driver.clone(),
        labels: some_map(&volume.labels),
        mountpoint: volume.mountpoint.display().to_string(),
        name: volume.name.clone(),
        options: some_map(&volume.driver_options),
        scope: "local".to_owned(),
        status: None,
        usage_data: None,
    }
}

/// With bytes used and the number of containers that refer to it.
pub(crate) fn with_usage(volume_: &Volume, size: u64, references: u64) -> VolumeDto {
    VolumeDto { usage_data: Some(VolumeUsage { ref_count: signed(references), size: signed(size) }), ..volume(volume_) }
}

/// # Errors
/// When it asks for a cluster volume.
pub(crate) fn create(body: VolumeCreateRequest) -> Result<CreateVolume, ApiError> {
    if body.cluster_volume_spec.is_some() {
        return Err(ApiError::bad_request("cluster volumes need a swarm manager, which this node is not"));
    }
    Ok(CreateVolume {
        name: body.name,
        driver: body.driver,
        driver_options: body.driver_opts.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
    })
}
