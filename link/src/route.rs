//! Changes of this machine's devices, addresses and routes (netlink on Linux), so that a changed network is noticed at
//! once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// How long to wait for more changes after one: a device that is up has its routes a moment later.
const SETTLES: Duration = Duration::from_millis(50);

/// Hears of changes. Where the system tells nothing, nothing is heard: silence on the line is noticed anyway.
pub(crate) struct Routes {
    #[cfg(target_os = "linux")]
    socket: Option<tokio::net::UnixDatagram>,
    /// A change was heard of which the caller of [`Routes::settled`] was not told yet.
    heard: AtomicBool,
}

impl Routes {
    /// The next change, with all that follows it at once. None is lost when this is not waited for to its end.
    pub(crate) async fn settled(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.changed().await;
            self.heard.store(true, Ordering::Relaxed);
        }
        tokio::time::sleep(SETTLES).await;
        self.drain();
        self.heard.store(false, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
impl Routes {
    pub(crate) fn watch() -> Self {
        // A datagram socket like any other to tokio, which knows no netlink: it is only ever received from.
        let socket = netlink().and_then(|socket| tokio::net::UnixDatagram::from_std(socket.into()));
        if let Err(error) = &socket {
            tracing::debug!(%error, "changes of the network are not told");
        }
        Self { socket: socket.ok(), heard: AtomicBool::new(false) }
    }

    async fn changed(&self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        // What changed is not read; an overrun (ENOBUFS) means that much did.
        let _ = socket.recv(&mut [0; 1024]).await;
    }

    fn drain(&self) {
        let Some(socket) = &self.socket else { return };
        let mut more = 0;
        while more < 10_000 && socket.try_recv(&mut [0; 1024]).is_ok() {
            more += 1;
        }
    }
}

#[cfg(target_os = "linux")]
fn netlink() -> std::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with};

    /// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE` of
    /// `rtnetlink(7)`. The IPv4 routes of a device that goes down go without a word: only the device is told.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    // No protocol is protocol 0: NETLINK_ROUTE.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

#[cfg(not(target_os = "linux"))]
impl Routes {
    pub(crate) fn watch() -> Self {
        Self { heard: AtomicBool::new(false) }
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    fn drain(&self) {}
}

/// Whether the system would still reach `peer` from `local`. Nothing is sent.
pub(crate) fn still_routed(local: std::net::SocketAddr, peer: std::net::SocketAddr) -> bool {
    let any: std::net::IpAddr = match peer {
        std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = std::net::UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(peer)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == local.ip())
}
