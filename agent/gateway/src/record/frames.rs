//! Reads what the channels of a Kubernetes WebSocket carry from a copy of one direction's bytes.
//!
//! No I/O. The bytes may be cut anywhere; a message's content is passed on as it arrives, so nothing is gathered. A
//! message's first byte is its channel. Text and binary messages are treated alike, as the API server does.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

/// Longest header of a frame (RFC 6455 section 5.2).
const HEADER_MAX: usize = 14;

/// The bytes are not WebSocket as Kubernetes speaks it: nothing after them can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what passes is not WebSocket as Kubernetes speaks it")]
pub(super) struct NotFrames;

/// One direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: Vec<u8>,
    payload: Option<Payload>,
    /// Set while a message goes on in another frame: its channel, or `None` while its first byte has not come.
    message: Option<Option<u8>>,
    unmasked: Vec<u8>,
    /// How many bytes of an unfinished frame have come.
    open: u64,
}

/// The rest of a frame.
#[derive(Debug)]
struct Payload {
    left: u64,
    control: bool,
    last: bool,
    mask: Option<[u8; 4]>,
    /// The position in the mask of the next byte.
    turn: usize,
}

impl Frames {
    /// Reads the next bytes, and calls `each` with a channel and what it carries.
    ///
    /// # Errors
    /// The bytes are no frames, or use an extension's bits.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<(), NotFrames> {
        loop {
            if self.payload.is_none() {
                let rest = self.header(bytes)?;
                self.open += (bytes.len() - rest.map_or(0, <[u8]>::len)) as u64;
                let Some(rest) = rest else { return Ok(()) };
                bytes = rest;
            }
            let Some(payload) = &mut self.payload else { return Ok(()) };
            let here = usize::try_from(payload.left).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(here);
            bytes = rest;
            payload.left -= here as u64;
            self.open += here as u64;
            if !payload.control && here > 0 {
                let part = payload.unmask(part, &mut self.unmasked);
                let channel = self.message.as_mut().ok_or(NotFrames)?;
                match (*channel, part) {
                    (Some(channel), _) => each(channel, part),
                    (None, [first, rest @ ..]) => {
                        *channel = Some(*first);
                        each(*first, rest);
                    }
                    (None, []) => {}
                }
            }
            if payload.left > 0 {
                return Ok(());
            }
            if payload.last && !payload.control {
                self.message = None;
            }
            (self.payload, self.open) = (None, 0);
        }
    }

    /// How many of the bytes read so far belong to an unfinished frame.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// Reads a header; returns the bytes after it, or `None` while it is not whole.
    fn header<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, NotFrames> {
        let known = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEADER_MAX - known)]);
        let mut cursor = Cursor::new(&self.head);
        let Some((header, left)) = FrameHeader::parse(&mut cursor).map_err(|_| NotFrames)? else { return Ok(None) };
        let used = usize::try_from(cursor.position()).map_err(|_| NotFrames)? - known;
        self.head.clear();
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(NotFrames);
        }
        let (control, begins) = match header.opcode {
            OpCode::Control(_) => (true, false),
            OpCode::Data(data) => (false, data != Data::Continue),
        };
        if !control {
            // A frame that begins a message within another, or that continues none.
            if begins == self.message.is_some() {
                return Err(NotFrames);
            }
            self.message.get_or_insert(None);
        }
        self.payload = Some(Payload { left, control, last: header.is_final, mask: header.mask, turn: 0 });
        Ok(Some(&bytes[used..]))
    }
}

impl Payload {
    fn unmask<'b>(&mut self, part: &'b [u8], buffer: &'b mut Vec<u8>) -> &'b [u8] {
        let Some(mask) = self.mask else { return part };
        buffer.clear();
        buffer.extend(part.iter().zip(mask.iter().cycle().skip(self.turn)).map(|(byte, mask)| byte ^ mask));
        self.turn = (self.turn + part.len()) % mask.len();
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match u16::try_from(payload.len()) {
            Ok(len @ ..126) => out.push(masked | u8::try_from(len).unwrap()),
            Ok(len) => {
                out.push(masked | 126);
                out.extend(len.to_be_bytes());
            }
            Err(_) => {
                out.push(masked | 127);
                out.extend((payload.len() as u64).to_be_bytes());
            }
        }
        out.extend(mask.iter().flatten());
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])));
        out
    }

    /// What each channel carried.
    fn carried(frames: &mut Frames, pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, NotFrames> {
        let mut out: Vec<(u8, Vec<u8>)> = Vec::new();
        for piece in pieces {
            frames.read(piece, |channel, bytes| match out.last_mut() {
                Some((last, known)) if *last == channel => known.extend_from_slice(bytes),
                _ => out.push((channel, bytes.to_vec())),
            })?;
        }
        Ok(out)
    }

    /// Masked and plain, in one frame and in several, control frames between, all three forms of a length.
    fn stream() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let (medium, long) = (vec![b'm'; 300], vec![b'l'; 70_000]);
        let bytes = [
            frame(0x82, None, b"\x01hello "),
            frame(0x89, None, b"ping"),
            frame(0x82, Some([1, 2, 3, 4]), b"\x01world"),
            frame(0x02, None, b"\x02er"),
            frame(0x89, Some([9, 8, 7, 6]), b"ping"),
            frame(0x00, Some([5, 0, 255, 4]), b"r"),
            frame(0x8a, None, b""),
            frame(0x80, None, b"or"),
            // The channel comes with the second frame.
            frame(0x01, None, b""),
            frame(0x80, None, b"\x04{}"),
            frame(0x82, None, b""),
            frame(0x81, None, b"\x01t"),
            frame(0x82, None, &[b"\x02", &medium[..]].concat()),
            frame(0x82, Some([3; 4]), &[b"\x01", &long[..]].concat()),
            frame(0x88, None, b"\x03\xe8bye"),
        ];
        let carried = vec![
            (1, b"hello world".to_vec()),
            (2, b"error".to_vec()),
            (4, b"{}".to_vec()),
            (1, b"t".to_vec()),
            (2, medium),
            (1, long),
        ];
        (bytes.concat(), carried)
    }

    #[test]
    fn the_same_however_it_is_cut() {
        let (bytes, expected) = stream();
        let interesting = bytes.len() - 70_000 - 40;
        for at in (0..interesting).chain(bytes.len() - 12..=bytes.len()) {
            let mut frames = Frames::default();
            assert_eq!(carried(&mut frames, &[&bytes[..at], &bytes[at..]]).unwrap(), expected, "cut at {at}");
            assert_eq!(frames.open(), 0);
        }
        let bytewise: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(carried(&mut Frames::default(), &bytewise).unwrap(), expected);
    }

    #[test]
    fn it_knows_how_much_of_a_frame_there_is() {
        for payload in [&b"\x01abc"[..], b"", &[1; 300]] {
            let bytes = [frame(0x89, None, b"whole"), frame(0x82, Some([1, 2, 3, 4]), payload)].concat();
            let begins = 7;
            for at in begins..bytes.len() {
                let mut frames = Frames::default();
                frames.read(&bytes[..at], |_, _| {}).unwrap();
                assert_eq!(frames.open(), (at - begins) as u64);
                frames.read(&bytes[at..], |_, _| {}).unwrap();
                assert_eq!(frames.open(), 0);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for bytes in [
            frame(0xc2, None, b"\x01compressed"),
            frame(0x92, None, b"\x01reserved bit"),
            frame(0x83, None, b"\x01unknown opcode"),
            frame(0x8b, None, b""),
            frame(0x80, None, b"the rest of nothing"),
            [frame(0x02, None, b"\x01a"), frame(0x82, None, b"\x01another within")].concat(),
        ] {
            assert_eq!(carried(&mut Frames::default(), &[&bytes]), Err(NotFrames), "{bytes:?}");
        }
    }

    #[test]
    fn nothing_is_gathered() {
        let mut frames = Frames::default();
        let mut head = vec![0x82, 0xff];
        head.extend(u64::MAX.to_be_bytes());
        head.extend([7; 4]);
        frames.read(&head, |_, _| {}).unwrap();
        let mut seen = 0;
        for _ in 0..1000 {
            frames.read(&[7; 4096], |_, bytes| seen += bytes.len()).unwrap();
        }
        assert_eq!(seen, 4096 * 1000 - 1);
        assert!(frames.unmasked.capacity() <= 2 * 4096 && frames.head.capacity() <= 64);
    }
}
