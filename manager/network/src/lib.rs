//! Networks of containers: a request becomes a [`plan`] (pure), the plan becomes netlink messages and one nftables transaction.
//!
//! ```text
//! AttachRequest ─plan→ Attachment (address, mac, ports) ─apply→ veth pair, routes (netlink), port map elements (nft)
//! ```
//!
//! The whole state is what the kernel holds plus the [`Attachment`]s that the caller persists: [`Network::restore`] rebuilds
//! address and port bookkeeping from them, so there is no second database to disagree with.

pub mod check;
pub mod files;
pub mod model;

mod firewall;
mod ipam;
mod netlink;
mod netns;
mod network;
mod ports;
mod sysctl;

pub use model::{AttachRequest, Attachment, BoundPort, BridgeInfo, NetworkConfig, PortRequest, Protocol};
pub use network::Network;
