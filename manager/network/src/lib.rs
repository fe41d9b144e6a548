//! Networks of containers: a request becomes a [`plan`] (pure), the plan becomes netlink messages and one nftables transaction.
//!
//! ```text
//! AttachRequest ─plan→ Attachment (address, mac, ports) ─apply→ veth pair, routes (netlink), port map elements (nft)
//! ```
//!
//! The whole state is what the kernel holds plus the [`BridgeNetwork`]s and [`Attachment`]s that the caller persists:
//! [`Network::define`] and [`Network::restore`] rebuild address and port bookkeeping and every rule from them, so there is no second
//! database to disagree with.

pub mod check;
pub mod dns;
pub mod files;
pub mod model;
pub mod netd;

mod bridges;
mod firewall;
mod ipam;
mod netlink;
mod netns;
mod network;
mod ports;
mod sysctl;
mod veth;
mod watch;

pub use model::{AttachRequest, Attachment, BoundPort, BridgeInfo, BridgeNetwork, DEFAULT_NETWORK, NetworkConfig, PortRequest, Protocol};
pub use network::Network;
pub use watch::Watch;
