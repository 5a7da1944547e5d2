//! PROXY protocol version 2 (HAProxy's specification, section 2.2): the client's address, from a proxy in front.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest addresses and extensions together, in bytes; those of the specification fit.
const LEN_MAX: u16 = 1024;

/// Reads the header. `None`: the proxy speaks for itself (LOCAL), or names no IP address.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let (signature, [version_command, family, len @ ..]) = head.split_at(12) else {
        return Err(invalid("no PROXY protocol header"));
    };
    if signature != SIGNATURE {
        return Err(invalid("no PROXY protocol version 2 header: does the proxy send one?"));
    }
    let len = len.try_into().map_or(u16::MAX, u16::from_be_bytes);
    if len > LEN_MAX {
        return Err(invalid("the PROXY protocol header is too long"));
    }
    let mut rest = vec![0; usize::from(len)];
    stream.read_exact(&mut rest).await?;
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(invalid("not version 2 of the PROXY protocol")),
    };
    let short = || invalid("the PROXY protocol header is too short");
    match family >> 4 {
        _ if local => Ok(None),
        1 => Ok(Some(Ipv4Addr::from(*rest.first_chunk::<4>().ok_or_else(short)?).into())),
        2 => Ok(Some(IpAddr::V6(Ipv6Addr::from(*rest.first_chunk::<16>().ok_or_else(short)?)).to_canonical())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &len, addresses, b"GET"].concat()
    }

    #[tokio::test]
    async fn headers_give_the_client_and_nothing_behind_them() {
        let v4 = header(0x21, 0x11, &[203, 0, 113, 7, 10, 0, 0, 1, 0, 80, 1, 187]);
        let mut input = v4.as_slice();
        assert_eq!(read(&mut input).await.unwrap(), Some("203.0.113.7".parse().unwrap()));
        assert_eq!(input, b"GET");

        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        let v6 = header(0x21, 0x21, &v6);
        assert_eq!(read(&mut v6.as_slice()).await.unwrap(), Some("2001::".parse().unwrap()));

        assert_eq!(read(&mut header(0x20, 0, &[]).as_slice()).await.unwrap(), None);
        assert_eq!(read(&mut header(0x21, 0x31, &[0; 216]).as_slice()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        for bad in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            header(0x11, 0x11, &[0; 12]),
            header(0x21, 0x11, &[0; 3]),
            header(0x21, 0x11, &[0; 2000]),
            SIGNATURE.to_vec(),
        ] {
            assert!(read(&mut bad.as_slice()).await.is_err(), "{bad:x?}");
        }
    }
}
