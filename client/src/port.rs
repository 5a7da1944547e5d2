//! The port to which kubectl connects: on 127.0.0.1, and also on an address of the session's own, so that kubectl can
//! tell clusters at the same port apart.
//!
//! kubectl caches for hours what a server offers, in a directory named after host and port. With `--port` every cluster
//! has the same host and port, and the first commands after a change of clusters would fail with `NotFound`. On Linux
//! all of 127.0.0.0/8 is this machine's, so a session takes one of its 16 million addresses.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    net::Ipv4Addr,
};

use tokio::net::{TcpListener, TcpStream};

/// How many addresses are tried: the port may be taken at each, which happens at one in a million.
const TRIES: usize = 4;

/// The listening sockets.
pub struct Port {
    first: TcpListener,
    own: Option<(Ipv4Addr, TcpListener)>,
}

impl Port {
    /// Binds a port of 127.0.0.1, any free one for 0; with `own` also of another address, if the system has more
    /// loopback addresses.
    ///
    /// # Errors
    /// The system's error: mostly, the port is taken.
    pub async fn bind(port: u16, own: bool) -> io::Result<Self> {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = first.local_addr()?.port();
        let mut bound = None;
        for _ in 0..if own && cfg!(target_os = "linux") { TRIES } else { 0 } {
            let host = any();
            if let Ok(listener) = TcpListener::bind((host, port)).await {
                bound = Some((host, listener));
                break;
            }
        }
        Ok(Self { first, own: bound })
    }

    /// The address that goes into the kubeconfig.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        self.own.as_ref().map_or(Ipv4Addr::LOCALHOST, |(host, _)| *host)
    }

    /// Its number.
    ///
    /// # Errors
    /// The system's error.
    pub fn number(&self) -> io::Result<u16> {
        Ok(self.first.local_addr()?.port())
    }

    /// The next connection. Safe to cancel.
    ///
    /// # Errors
    /// The system's error: mostly, out of descriptors.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let Some((_, own)) = &self.own else { return Ok(self.first.accept().await?.0) };
        tokio::select! {
            accepted = self.first.accept() => Ok(accepted?.0),
            accepted = own.accept() => Ok(accepted?.0),
        }
    }
}

/// 127.x.y.z, where no byte is 0 or 255.
fn any() -> Ipv4Addr {
    let random = RandomState::new().build_hasher().finish().to_le_bytes();
    let [x, y, z] = [random[0], random[1], random[2]].map(|byte| byte % 254 + 1);
    Ipv4Addr::new(127, x, y, z)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_port_has_an_address_for_each_session() {
        let first = Port::bind(0, true).await.unwrap();
        let number = first.number().unwrap();
        let hosts = [first.host(), Ipv4Addr::LOCALHOST];
        assert!(hosts[0].is_loopback() && hosts[0] != hosts[1], "{hosts:?}");
        for host in hosts {
            let (dialed, accepted) = tokio::join!(TcpStream::connect((host, number)), first.accept());
            assert_eq!(accepted.unwrap().local_addr().unwrap().ip(), host);
            drop(dialed);
        }
        drop(first);
        let second = Port::bind(number, true).await.unwrap();
        assert_ne!(second.host(), hosts[0], "another cluster is not taken for the first");
        assert_eq!(Port::bind(0, false).await.unwrap().host(), Ipv4Addr::LOCALHOST);
    }
}
