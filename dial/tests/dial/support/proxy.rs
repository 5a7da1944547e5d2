//! Proxies that connect every target to one address, and note their requests.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{Boxed, Seen, listen, read_head};

/// What a proxy does.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    /// TLS on the proxy's own port.
    pub(crate) tls: Option<TlsAcceptor>,
    /// The `Proxy-Authorization` it wants.
    pub(crate) authorization: Option<&'static str>,
    /// Ends TLS to the target with a certificate of its own, and passes on plain text.
    pub(crate) intercept: Option<TlsAcceptor>,
}

pub(crate) struct Proxy {
    pub(crate) at: SocketAddr,
    pub(crate) seen: Seen,
}

/// An HTTP proxy that knows CONNECT.
pub(crate) async fn connect(to: SocketAddr, rules: Rules) -> Proxy {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let at = listen(rules.tls.clone(), move |stream| serve_connect(stream, to, rules.clone(), Arc::clone(&log))).await;
    Proxy { at, seen }
}

async fn serve_connect(mut stream: Boxed, to: SocketAddr, rules: Rules, log: Seen) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    log.lock().unwrap().push(head.clone());
    if let Some(wanted) = rules.authorization
        && !head.to_ascii_lowercase().contains(&format!("proxy-authorization: {}\r\n", wanted.to_ascii_lowercase()))
    {
        let refusal = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refusal.as_bytes()).await?;
        return stream.shutdown().await;
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut onward = TcpStream::connect(to).await?;
    match rules.intercept {
        None => copy_bidirectional(&mut stream, &mut onward).await?,
        Some(tls) => copy_bidirectional(&mut tls.accept(stream).await?, &mut onward).await?,
    };
    Ok(())
}

/// A SOCKS 5 proxy (RFC 1928), with user name and password (RFC 1929) where `login` is `user:password`.
pub(crate) async fn socks5(to: SocketAddr, login: Option<&'static str>) -> Proxy {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let at = listen(None, move |stream| serve_socks5(stream, to, login, Arc::clone(&log))).await;
    Proxy { at, seen }
}

async fn serve_socks5(mut stream: Boxed, to: SocketAddr, login: Option<&str>, log: Seen) -> io::Result<()> {
    let _version = stream.read_u8().await?;
    let methods = short(&mut stream).await?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        stream.write_all(&[5, 0xff]).await?;
        return stream.shutdown().await;
    }
    stream.write_all(&[5, method]).await?;
    if let Some(login) = login {
        let _version = stream.read_u8().await?;
        let user = short(&mut stream).await?;
        let password = short(&mut stream).await?;
        let right = [user, password].join(&b':') == login.as_bytes();
        stream.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return stream.shutdown().await;
        }
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    assert_eq!(head, [5, 1, 0, 3], "CONNECT with a name: the proxy resolves");
    let name = short(&mut stream).await?;
    let port = stream.read_u16().await?;
    log.lock().unwrap().push(format!("{}:{port}", String::from_utf8(name).unwrap()));
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    let mut onward = TcpStream::connect(to).await?;
    copy_bidirectional(&mut stream, &mut onward).await?;
    Ok(())
}

async fn short(stream: &mut Boxed) -> io::Result<Vec<u8>> {
    let length = stream.read_u8().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
