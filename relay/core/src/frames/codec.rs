//! WebSocket frames on the wire (RFC 6455 section 5): headers and masks. A relay does not put messages together.

/// Continuation of a fragmented message.
pub const CONTINUATION: u8 = 0;
/// Text.
pub const TEXT: u8 = 1;
/// Binary.
pub const BINARY: u8 = 2;
/// Close.
pub const CLOSE: u8 = 8;
/// Ping.
pub const PING: u8 = 9;
/// Pong.
pub const PONG: u8 = 10;

/// RFC 6455 section 7.4.1: protocol error.
pub const PROTOCOL_ERROR: u16 = 1002;
/// Longest header a server sends (it never masks).
pub const HEADER_MAX: usize = 10;
/// Payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_MAX: usize = 125;

/// A frame header from an end, which always masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether it is the last frame of its message.
    pub fin: bool,
    /// [`CONTINUATION`] to [`PONG`].
    pub opcode: u8,
    /// Bytes of payload.
    pub len: u64,
    /// The mask of the payload.
    pub key: [u8; 4],
    /// Bytes of the header itself.
    pub size: usize,
}

/// A frame that breaks RFC 6455; the text is the close reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Reads a header; `None` while it is incomplete.
///
/// # Errors
/// It breaks RFC 6455.
pub fn parse(buf: &[u8]) -> Result<Option<Header>, Malformed> {
    let [first, second, rest @ ..] = buf else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Err(Malformed("reserved bits are set"));
    }
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(Malformed("unknown opcode"));
    }
    if second & 0x80 == 0 {
        return Err(Malformed("a client's frames must be masked"));
    }
    let (len, extra) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(len) => (u64::from(u16::from_be_bytes(*len)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(len) => (u64::from_be_bytes(*len), 8),
            None => return Ok(None),
        },
        len => (u64::from(len), 0),
    };
    if (extra == 2 && len < 126) || (extra == 8 && (len <= 0xffff || len >> 63 != 0)) {
        return Err(Malformed("a length is not in its shortest form"));
    }
    if opcode >= CLOSE && (!fin || len > CONTROL_MAX as u64) {
        return Err(Malformed("a control frame is fragmented or too long"));
    }
    let Some(key) = rest.get(extra..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
    Ok(Some(Header { fin, opcode, len, key: *key, size: 2 + extra + 4 }))
}

/// Writes an unmasked header to the start of `out`, which holds [`HEADER_MAX`] bytes; returns its size.
pub fn put_header(out: &mut [u8], fin: bool, opcode: u8, len: usize) -> usize {
    out[0] = u8::from(fin) << 7 | opcode;
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..126), _) => {
            out[1] = short;
            2
        }
        (_, Ok(medium)) => {
            out[1] = 126;
            out[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    }
}

/// A whole frame of a relay's own: control frames and short texts.
#[must_use]
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_MAX];
    let size = put_header(&mut out, true, opcode, payload.len());
    out.truncate(size);
    out.extend_from_slice(payload);
    out
}

/// A close frame. The reason is cut to what a control frame holds, between two characters.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let end = (0..=reason.len().min(CONTROL_MAX - 2)).rev().find(|at| reason.is_char_boundary(*at));
    payload.extend_from_slice(&reason.as_bytes()[..end.unwrap_or_default()]);
    frame(CLOSE, &payload)
}

/// `dst = src XOR key`, 8 bytes at a time; both have the same length.
pub fn unmask(src: &[u8], dst: &mut [u8], key: [u8; 4]) {
    debug_assert_eq!(src.len(), dst.len());
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (src, src_rest) = src.as_chunks::<8>();
    let (dst, dst_rest) = dst.as_chunks_mut::<8>();
    for (dst, src) in dst.iter_mut().zip(src) {
        *dst = (u64::from_ne_bytes(*src) ^ wide).to_ne_bytes();
    }
    for (i, (dst, src)) in dst_rest.iter_mut().zip(src_rest).enumerate() {
        *dst = src ^ key[i % 4];
    }
}

/// The key for a payload's rest after `done` bytes of it.
#[must_use]
pub fn rotate(mut key: [u8; 4], done: usize) -> [u8; 4] {
    key.rotate_left(done % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(fin: bool, opcode: u8, len: usize) -> Vec<u8> {
        let mut out = vec![0; HEADER_MAX];
        let size = put_header(&mut out, fin, opcode, len);
        out.truncate(size);
        out[1] |= 0x80;
        out.extend([1, 2, 3, 4]);
        out
    }

    #[test]
    fn headers_round_trip_and_wait_for_every_byte() {
        for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 24] {
            let bytes = masked(true, BINARY, len);
            let header = Header { fin: true, opcode: BINARY, len: len as u64, key: [1, 2, 3, 4], size: bytes.len() };
            assert_eq!(parse(&bytes), Ok(Some(header)));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        let refused = |bytes: &[u8]| assert!(parse(bytes).is_err(), "{bytes:x?}");
        refused(&[0x82, 0x05]);
        refused(&[0xc2, 0x85]);
        refused(&[0x83, 0x85]);
        refused(&[0x8b, 0x85]);
        refused(&[0x82, 0xfe, 0, 125]);
        refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        refused(&masked(false, PING, 3));
        refused(&masked(true, CLOSE, 126));
    }

    #[test]
    fn no_header_panics() {
        for first in 0..=255 {
            for second in 0..=255 {
                for len in 2..16 {
                    let mut bytes = [0xff; 16];
                    (bytes[0], bytes[1]) = (first, second);
                    let _ = parse(&bytes[..len]);
                }
            }
        }
    }

    #[test]
    fn unmasking_is_the_rfcs_xor_at_every_length_and_offset() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
        for start in 0..9 {
            for end in start..plain.len() {
                let mut out = vec![0; end - start];
                unmask(&masked[start..end], &mut out, rotate(key, start));
                assert_eq!(out, plain[start..end]);
            }
        }
        let mut hello = [0; 5];
        unmask(&[0x7f, 0x9f, 0x4d, 0x51, 0x58], &mut hello, key);
        assert_eq!(&hello, b"Hello", "RFC 6455 section 5.7");
    }

    #[test]
    fn long_close_reasons_fit() {
        assert_eq!(close_frame(1000, &"x".repeat(500)).len(), 2 + CONTROL_MAX);
        assert_eq!(close_frame(1000, &"\u{fc}".repeat(99)).len(), 2 + 2 + 122, "and stay UTF-8");
        assert_eq!(close_frame(4401, "no"), [0x88, 4, 0x11, 0x31, b'n', b'o']);
    }
}
