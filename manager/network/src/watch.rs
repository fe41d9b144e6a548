//! Puts the rules back when another program removed them: `nft flush ruleset`, a restart of the host's firewall service.
//!
//! The kernel tells every change of a table on the multicast group `NFNLGRP_NFTABLES` (nfnetlink.h). Our own transactions replace the
//! table as well, so a deletion means something only if the table is not there afterwards.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rcontainerd_types::{Error, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::Network;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_GETTABLE` and `NFT_MSG_DELTABLE` of linux/netfilter/nf_tables.h.
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
/// `NLMSG_ERROR` and `NLM_F_REQUEST` of linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;

/// Watches until it is dropped.
pub struct Watch {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Starts to watch the rules, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, or no thread can be started.
    pub fn watch(self: &Arc<Self>) -> Result<Watch> {
        let events = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.add_membership(GROUP)?;
            Ok(socket)
        };
        let events = events().map_err(|err| Error::io("watch the nftables rules", err))?;
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(std::io::Error::from);
        let stop = eventfd().map_err(|err| Error::io("make an eventfd", err))?;
        let heard = stop.try_clone().map_err(|err| Error::io("make an eventfd", err))?;
        let network = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("nft-watch".into()).spawn(move || follow(&events, &heard, &network));
        Ok(Watch { stop, thread: Some(thread.map_err(|err| Error::io("start a thread to watch the nftables rules", err))?) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let told = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (told, self.thread.take()) {
            // A panic of the thread was printed when it happened.
            let _printed = thread.join();
        }
    }
}

fn follow(events: &Socket, stop: &OwnedFd, network: &Weak<Network>) {
    loop {
        let mut waited = [PollFd::new(stop, PollFlags::IN), PollFd::new(events, PollFlags::IN)];
        match rustix::event::poll(&mut waited, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return tracing::error!("wait for changes of the nftables rules: {errno}; they are watched no longer"),
        }
        if !waited[0].revents().is_empty() {
            return;
        }
        if deletes_table(events) {
            let Some(network) = network.upgrade() else { return };
            put_back(&network);
        }
    }
}

fn put_back(network: &Network) {
    let put_back = || -> Result<bool> {
        if network.rules_stand()? {
            return Ok(false);
        }
        network.repair().map(|()| true)
    };
    match put_back() {
        Ok(true) => tracing::warn!("another program removed the nftables rules of the container networks; they are back"),
        Ok(false) => {}
        Err(err) => tracing::error!("put back the nftables rules that another program removed: {err}"),
    }
}

/// Reads one datagram of events; events that the kernel had to drop may have been such.
fn deletes_table(events: &Socket) -> bool {
    match events.recv_from_full() {
        Ok((datagram, _)) => message_types(&datagram).any(|kind| kind == DELETE_TABLE),
        Err(err) => err.raw_os_error() == Some(libc::ENOBUFS),
    }
}

/// The types of the netlink messages in a datagram (netlink(7): length, type, flags, sequence, port; aligned to 4 bytes).
fn message_types(mut datagram: &[u8]) -> impl Iterator<Item = u16> + '_ {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        datagram = datagram.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        Some(kind)
    })
}

/// Whether `table ip NAME` exists in this network namespace.
pub fn table_exists(name: &str) -> Result<bool> {
    let ask = || {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.send(&get_table(name), 0)?;
        socket.recv_from_full()
    };
    let (answer, _) = ask().map_err(|err| Error::io(format!("look for the nftables table {name}"), err))?;
    match message_types(&answer).next() {
        // The header is followed by a negative errno.
        Some(NLMSG_ERROR) => match answer.get(HEADER..HEADER + 4).map(|code| i32::from_ne_bytes([code[0], code[1], code[2], code[3]])) {
            Some(code) if code == -libc::ENOENT => Ok(false),
            Some(0) => Ok(true),
            code => {
                let err = std::io::Error::from_raw_os_error(-code.unwrap_or(-libc::EBADMSG));
                Err(Error::io(format!("look for the nftables table {name}"), err))
            }
        },
        kind => Ok(kind.is_some()),
    }
}

/// A request for one table: netlink header, nfgenmsg (family, version, resource), attribute `NFTA_TABLE_NAME` = 1.
fn get_table(name: &str) -> Vec<u8> {
    let attribute = 4 + name.len() + 1;
    let length = HEADER + 4 + attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).expect("table names are short").to_ne_bytes());
    for field in [GET_TABLE, NLM_F_REQUEST] {
        message.extend(field.to_ne_bytes());
    }
    message.extend([0; 8]);
    // AF_INET is NFPROTO_IPV4.
    message.extend([2, 0, 0, 0]);
    message.extend(u16::try_from(attribute).expect("table names are short").to_ne_bytes());
    message.extend(1_u16.to_ne_bytes());
    message.extend(name.as_bytes());
    message.resize(length, 0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_datagram_are_walked_whatever_their_length_says() {
        let message = |length: u32, kind: u16, size: usize| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(size, 0);
            bytes
        };
        let two = [message(18, 7, 20), message(16, 8, 16)].concat();
        assert_eq!(message_types(&two).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(message_types(&message(0, 7, 16)).collect::<Vec<_>>(), [7], "no endless loop on a length of 0");
        assert_eq!(message_types(&message(999, 7, 16)).collect::<Vec<_>>(), [7]);
        assert_eq!(message_types(&[1, 2, 3]).count(), 0);
    }
}
