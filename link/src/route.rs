//! Changes of this machine's addresses and routes (netlink on Linux), so that a changed network is noticed at once.

/// Hears of changes. Where the system tells nothing, nothing is heard: silence on the line is noticed anyway.
pub(crate) struct Routes {
    #[cfg(target_os = "linux")]
    socket: Option<tokio::net::UnixDatagram>,
}

#[cfg(target_os = "linux")]
impl Routes {
    pub(crate) fn watch() -> Self {
        // A datagram socket like any other to tokio, which knows no netlink: it is only ever received from.
        let socket = netlink().and_then(|socket| tokio::net::UnixDatagram::from_std(socket.into()));
        if let Err(error) = &socket {
            tracing::debug!(%error, "changes of the network are not told");
        }
        Self { socket: socket.ok() }
    }

    /// The next change, several at once taken together.
    pub(crate) async fn changed(&self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        // What changed is not read; an overrun (ENOBUFS) means that much did.
        let mut buffer = [0; 1024];
        let _ = socket.recv(&mut buffer).await;
        let mut more = 0;
        while more < 10_000 && socket.try_recv(&mut buffer).is_ok() {
            more += 1;
        }
    }
}

#[cfg(target_os = "linux")]
fn netlink() -> std::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with};

    /// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE` of `rtnetlink(7)`.
    const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

    // No protocol is protocol 0: NETLINK_ROUTE.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

#[cfg(not(target_os = "linux"))]
impl Routes {
    pub(crate) fn watch() -> Self {
        Self {}
    }

    pub(crate) async fn changed(&self) {
        std::future::pending().await
    }
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
