//! Messages inside a record: `kind:u8 || len:u32be || body`, then padding. docs/protocol.md, "Records".

use bytes::{BufMut, BytesMut};
use mykube_protocol::{
    channel::{Control, StreamId, Upkeep},
    frame::{self, kind},
    limits::{PAD_BELOW, PAD_BLOCK, RECORD_PLAINTEXT_MAX},
};

/// `kind || len`.
pub(crate) const HEAD: usize = 5;
/// Head and stream id of a data message.
pub(crate) const DATA_HEAD: usize = HEAD + 4;
/// Length of a credit message, or a little more: see [`control_len`].
pub(crate) const CREDIT_LEN: usize = CONTROL_LEN + "18446744073709551615".len();
/// Length of a control message, or a little more, without what follows its stream.
const CONTROL_LEN: usize = HEAD + "credit:4294967295:".len();
/// The type byte before the plaintext.
const TYPE: usize = 1;

/// A record whose plaintext is not a sequence of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record that is not a sequence of messages")]
pub(crate) struct MessageError;

/// One message, borrowed from its record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'r> {
    /// Kind 1.
    Handshake(&'r [u8]),
    /// Kind 2.
    Control(Control),
    /// Kind 3: the stream and where its payload lies in the plaintext.
    Data(StreamId, std::ops::Range<usize>),
    /// Kind 4.
    Upkeep(Upkeep),
    /// Kind 5: whether it is the last part, and the part.
    Welcome(bool, &'r [u8]),
}

/// Length of a control message, or a little more.
pub(crate) fn control_len(control: &Control) -> usize {
    match control {
        Control::New { target, .. } => CONTROL_LEN + target.as_ref().map_or(0, String::len),
        Control::Done { reason, .. } => CONTROL_LEN + reason.as_ref().map_or(0, String::len),
        Control::Bye { reason } => CONTROL_LEN + reason.len(),
        Control::Credit { .. } => CREDIT_LEN,
        Control::Eof { .. } => CONTROL_LEN,
    }
}

/// Starts a frame: the type byte.
pub(crate) fn start_record(frame: &mut BytesMut) {
    frame.put_u8(frame::RECORD);
}

/// Bytes of plaintext that still fit.
pub(crate) fn space(frame: &BytesMut) -> usize {
    (RECORD_PLAINTEXT_MAX + TYPE).saturating_sub(frame.len())
}

fn put_head(frame: &mut BytesMut, kind: u8, len: usize) {
    frame.put_u8(kind);
    frame.put_u32(u32::try_from(len).expect("a body is shorter than a record"));
}

pub(crate) fn put_handshake(frame: &mut BytesMut, body: &[u8]) {
    put_head(frame, kind::HANDSHAKE, body.len());
    frame.put_slice(body);
}

fn put_text(frame: &mut BytesMut, kind: u8, text: &impl std::fmt::Display) {
    use std::fmt::Write;
    let start = frame.len();
    put_head(frame, kind, 0);
    write!(frame, "{text}").expect("a BytesMut takes any text");
    let len = u32::try_from(frame.len() - start - HEAD).expect("a control text is at most 4 KiB");
    frame[start + 1..start + HEAD].copy_from_slice(&len.to_be_bytes());
}

pub(crate) fn put_control(frame: &mut BytesMut, control: &Control) {
    put_text(frame, kind::CONTROL, control);
}

pub(crate) fn put_upkeep(frame: &mut BytesMut, upkeep: Upkeep) {
    put_text(frame, kind::UPKEEP, &upkeep);
}

pub(crate) fn put_data(frame: &mut BytesMut, id: StreamId, payload: &[u8]) {
    put_head(frame, kind::DATA, 4 + payload.len());
    frame.put_u32(id);
    frame.put_slice(payload);
}

pub(crate) fn put_welcome(frame: &mut BytesMut, last: bool, part: &[u8]) {
    put_head(frame, kind::WELCOME, 1 + part.len());
    frame.put_u8(u8::from(last));
    frame.put_slice(part);
}

/// Short records to a multiple of 64 bytes, those that carry credentials to the full 16 KiB.
pub(crate) fn pad(frame: &mut BytesMut, full: bool) {
    let len = frame.len() - TYPE;
    let padded = match full {
        true => RECORD_PLAINTEXT_MAX,
        false if len <= PAD_BELOW => len.next_multiple_of(PAD_BLOCK),
        false => len,
    };
    frame.put_bytes(0, padded.saturating_sub(len));
}

/// Reads the messages of a plaintext. Ends at the padding, or after the first error.
pub(crate) fn parse(plaintext: &[u8]) -> impl Iterator<Item = Result<Message<'_>, MessageError>> {
    let mut at = 0;
    let mut over = plaintext.len() > RECORD_PLAINTEXT_MAX;
    let too_long = over.then_some(Err(MessageError));
    too_long.into_iter().chain(std::iter::from_fn(move || {
        if over || at == plaintext.len() {
            return None;
        }
        let message = parse_one(plaintext, &mut at);
        over = !matches!(message, Ok(Some(_)));
        message.transpose()
    }))
}

fn parse_one<'r>(plaintext: &'r [u8], at: &mut usize) -> Result<Option<Message<'r>>, MessageError> {
    let rest = &plaintext[*at..];
    if rest[0] == kind::PADDING {
        return if rest.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(MessageError) };
    }
    let (head, rest) = rest.split_first_chunk::<HEAD>().ok_or(MessageError)?;
    let [kind, len @ ..] = *head;
    let len = usize::try_from(u32::from_be_bytes(len)).map_err(|_| MessageError)?;
    let body = rest.get(..len).ok_or(MessageError)?;
    let start = *at + HEAD;
    *at = start + len;
    match kind {
        kind::HANDSHAKE => Ok(Message::Handshake(body)),
        kind::CONTROL => text(body)?.parse().map(Message::Control).map_err(|_| MessageError),
        kind::UPKEEP => text(body)?.parse().map(Message::Upkeep).map_err(|_| MessageError),
        kind::DATA => match body.split_first_chunk::<4>() {
            Some((id, payload)) if !payload.is_empty() => {
                Ok(Message::Data(u32::from_be_bytes(*id), start + 4..start + len))
            }
            _ => Err(MessageError),
        },
        kind::WELCOME => match body.split_first() {
            Some((last @ (0 | 1), part)) => Ok(Message::Welcome(*last == 1, part)),
            _ => Err(MessageError),
        },
        _ => Err(MessageError),
    }
    .map(Some)
}

fn text(body: &[u8]) -> Result<&str, MessageError> {
    std::str::from_utf8(body).map_err(|_| MessageError)
}

/// Whether a plaintext is a sequence of messages and padding.
#[must_use]
pub fn is_valid(plaintext: &[u8]) -> bool {
    parse(plaintext).all(|message| message.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_one_form() {
        let mut frame = BytesMut::new();
        start_record(&mut frame);
        put_control(&mut frame, &Control::New { id: 1, target: None });
        put_data(&mut frame, 1, b"hi");
        put_upkeep(&mut frame, Upkeep::Ack(7));
        put_welcome(&mut frame, true, b"{}");
        pad(&mut frame, false);
        assert_eq!(
            data(&frame),
            "05 02 00000005 6e65773a31 03 00000006 00000001 6869 04 00000005 61636b3a37 05 00000003 01 7b7d"
                .replace(' ', "")
                + &"00".repeat(64 - 39)
        );
        let messages: Vec<_> = parse(&frame[1..]).map(Result::unwrap).collect();
        assert_eq!(
            messages,
            [
                Message::Control(Control::New { id: 1, target: None }),
                Message::Data(1, 19..21),
                Message::Upkeep(Upkeep::Ack(7)),
                Message::Welcome(true, b"{}"),
            ]
        );
    }

    fn data(frame: &[u8]) -> String {
        use std::fmt::Write;
        frame.iter().fold(String::new(), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bad in [
            &[1][..],
            &[1, 0, 0, 0, 1],
            &[6, 0, 0, 0, 0],
            &[3, 0, 0, 0, 4, 0, 0, 0, 1],
            &[3, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0],
            &[5, 0, 0, 0, 1, 2],
            &[2, 0, 0, 0, 1, 0xff],
            &[0, 0, 1],
            &[1, 0xff, 0xff, 0xff, 0xff],
            &vec![0; RECORD_PLAINTEXT_MAX + 1],
        ] {
            assert!(!is_valid(bad), "{:?}", &bad[..bad.len().min(12)]);
        }
        assert!(is_valid(&[0; 64]));
    }

    #[test]
    fn credentials_are_padded_to_the_full_record() {
        let mut frame = BytesMut::new();
        start_record(&mut frame);
        put_welcome(&mut frame, true, b"{}");
        pad(&mut frame, true);
        assert_eq!(frame.len(), 1 + RECORD_PLAINTEXT_MAX);
    }
}
