//! Socket options of the programs that measure.

use std::io;

use socket2::SockRef;

/// Sets no delay; and no pacing on loopback, as what is measured there has none (docs/decisions/0012).
pub(crate) fn tune<'a>(stream: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = stream.into();
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    if socket.peer_addr()?.as_socket().is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        // Refused only if an administrator allows other algorithms alone.
        let _ = socket.set_tcp_congestion(b"reno");
    }
    Ok(())
}

#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 256 * 1024;

/// Like [`tune`], with little unsent in the kernel: two hundred streams with full buffers hold more than all TCP of one
/// machine may (`net.ipv4.tcp_mem`), beyond which it drops what arrives. The measured programs need that memory too.
pub(crate) fn tune_load<'a>(stream: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = stream.into();
    tune(&*socket)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn load_on_loopback_is_not_paced_and_keeps_little_unsent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune_load(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert!(socket.tcp_nodelay().unwrap());
    }
}
