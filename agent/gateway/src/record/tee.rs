//! A session that is recorded while it passes: a plain copy both ways that also reads the frames.

use std::io;

use mykube_dial::drain_until;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::{Mutex, Notify},
};

use super::{Notice, Recording, UNWRITABLE, frames::Frames};
use crate::endings::{linger, outlive, pass_on};

/// Bytes of one copy, each way: twice what the API server puts into a frame.
const BUFFER: usize = 64 * 1024;
/// Most bytes of a frame that wait for the rest of it.
const HELD_MAX: usize = 48 * 1024;

/// How a recorded session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// One side closed in order.
    Over,
    /// A connection failed.
    Broken,
    /// The recording could not be written any more, so we ended it; the reason is for the operator.
    Unrecorded(String),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// The client's side of the connection.
struct Downstream<W> {
    writer: W,
    /// The bytes written so far end with a whole frame.
    at_boundary: bool,
}

/// Copies both ways, each direction with its own end, and records.
pub(crate) async fn copy_and_record<C, U>(client: &mut C, upstream: &mut U, recording: Recording) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, to_client) = split(client);
    let (from_upstream, mut to_upstream) = split(upstream);
    let notice = recording.notice;
    let (recording, down_over, up_over) = (Mutex::new(recording), Notify::new(), Notify::new());
    let mut to_client = Downstream { writer: to_client, at_boundary: true };
    let down = async {
        if let Some(Notice { channel, text }) = notice {
            to_client.frame(0x82, &[&[channel], text.as_bytes()].concat()).await?;
        }
        down(from_upstream, &mut to_client, &recording, &up_over).await?;
        down_over.notify_one();
        Ok(())
    };
    let up = async {
        up(&mut from_client, &mut to_upstream, &recording, &down_over).await?;
        up_over.notify_one();
        Ok(())
    };
    let ended = tokio::try_join!(down, up).err();
    let ended = match ended {
        Some(Ended::Unrecorded(why)) => Ended::Unrecorded(why),
        ended => match recording.into_inner().end().await {
            Ok(()) => ended.unwrap_or(Ended::Over),
            Err(error) => Ended::Unrecorded(error.to_string()),
        },
    };
    if matches!(ended, Ended::Unrecorded(_)) {
        let _ = to_upstream.shutdown().await;
        if to_client.at_boundary && to_client.give_up().await.is_ok() {
            linger(from_client).await;
        }
    }
    ended
}

/// From the pod: recorded, then passed on.
async fn down(
    mut from: impl AsyncRead + Unpin,
    to: &mut Downstream<impl AsyncWrite + Unpin>,
    recording: &Mutex<Recording>,
    up_over: &Notify,
) -> Result<(), Ended> {
    let (mut frames, mut buffer) = (Frames::default(), vec![0; BUFFER]);
    // Bytes at the front of `buffer` that are recorded and not passed on yet.
    let mut held = 0;
    loop {
        let read = from.read(&mut buffer[held..]).await;
        if !matches!(read, Ok(1..)) {
            to.writer.write_all(&buffer[..held]).await?;
            to.writer.flush().await?;
        }
        let read = read?;
        if read == 0 {
            return Ok(to.writer.shutdown().await?);
        }
        let (end, mut lines) = (held + read, String::new());
        {
            let mut recording = recording.lock().await;
            let come = &buffer[held..end];
            let parsed = frames.read(come, |channel, bytes| recording.output(channel, bytes, &mut lines));
            parsed.map_err(unrecorded)?;
            recording.write(lines).await.map_err(unrecorded)?;
        }
        // Holds a part of a frame back: the client could not use it, and after it we could not send a message of ours.
        let open = usize::try_from(frames.open()).ok().filter(|open| *open <= end.min(HELD_MAX)).unwrap_or(0);
        let whole = end - open;
        if whole > 0 {
            to.at_boundary = false;
            if let Err(error) = pass_on(&mut to.writer, &buffer[..whole]).await {
                outlive(&mut from, up_over).await;
                return Err(error.into());
            }
            to.at_boundary = frames.open() == open as u64;
            buffer.copy_within(whole..end, 0);
        }
        held = open;
    }
}

/// To the pod: sizes of the terminal are recorded.
async fn up(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    recording: &Mutex<Recording>,
    down_over: &Notify,
) -> Result<(), Ended> {
    let (mut frames, mut buffer) = (Frames::default(), vec![0; BUFFER]);
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // The pod's side may be closed already.
            let _ = to.shutdown().await;
            return Ok(());
        }
        let (bytes, mut sizes) = (&buffer[..read], Vec::new());
        frames
            .read(bytes, |channel, bytes| {
                if channel == 4 {
                    sizes.extend_from_slice(bytes)
                }
            })
            .map_err(unrecorded)?;
        if !sizes.is_empty() {
            let (mut recording, mut lines) = (recording.lock().await, String::new());
            if recording.input(4, &sizes, &mut lines) {
                recording.resized(lines).await.map_err(unrecorded)?;
            }
        }
        if pass_on(&mut to, bytes).await.is_err() {
            drain_until(&mut from, down_over.notified()).await;
            return Ok(());
        }
    }
}

fn unrecorded(error: impl std::fmt::Display) -> Ended {
    Ended::Unrecorded(error.to_string())
}

impl<W: AsyncWrite + Unpin> Downstream<W> {
    /// Says why there is nothing more on the error channel, which kubectl reads up to a normal close (1000).
    async fn give_up(&mut self) -> io::Result<()> {
        let status = json!({
            "metadata": {}, "status": "Failure", "message": UNWRITABLE, "reason": "ServiceUnavailable", "code": 503,
        });
        self.frame(0x82, format!("\x03{status}").as_bytes()).await?;
        self.frame(0x88, &1000_u16.to_be_bytes()).await?;
        self.writer.shutdown().await
    }

    /// Writes a frame of our own: a short one, not masked, as servers write them.
    async fn frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(len @ ..126) => bytes.push(len),
            _ => {
                bytes.push(126);
                bytes.extend(u16::try_from(payload.len()).map_err(io::Error::other)?.to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        self.at_boundary = false;
        self.writer.write_all(&bytes).await?;
        self.writer.flush().await?;
        self.at_boundary = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use http::Method;
    use tokio::io::duplex;

    use super::super::{PlannedRecording, Recorder, RequestInfo, lock};
    use super::*;

    async fn recording(dir: &tempfile::TempDir) -> Recording {
        let info = RequestInfo::new(&Method::GET, "/api/v1/namespaces/n/pods/p/exec", None).unwrap();
        let planned = PlannedRecording::new(&info, Some("stdout=true"));
        let mut recording = Recorder::new(dir.path()).unwrap().record(planned, "../a b", "id").await.unwrap();
        assert!(recording.name.ends_with("-.._a_b-n-p-id.cast"), "{}", recording.name);
        recording.begins();
        recording
    }

    #[test]
    fn a_command_that_is_cut_says_so() {
        let info = RequestInfo::new(&Method::GET, "/api/v1/namespaces/n/pods/p/exec", None).unwrap();
        let about =
            |script: &str| PlannedRecording::new(&info, Some(&format!("command=sh&command=-c&command={script}"))).about;
        assert_eq!(about("id%E2%80%AE").command, "sh -c id");
        assert!(about(&"x".repeat(2000)).command.ends_with("x…"));
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[0x82, 127, 0, 0, 0, 0], &length.to_be_bytes()[..], payload].concat()
    }

    #[tokio::test]
    async fn frames_of_any_length_pass_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let lengths = [1, 100, HELD_MAX - 11, HELD_MAX - 10, HELD_MAX, BUFFER - 10, BUFFER, 3 * BUFFER + 7, 20];
        let sent: Vec<_> = lengths.iter().map(|length| frame(&vec![1; *length])).collect();
        let sent = sent.concat();
        let (mut client, mut near) = duplex(10_000);
        let (mut far, mut pod) = duplex(7000);
        let recording = recording(&dir).await;
        let name = recording.name.clone();
        let pod_says = async {
            pod.write_all(&sent).await.unwrap();
            // Half a frame at the end passes too.
            pod.write_all(&frame(&[1; 9])[..15]).await.unwrap();
            pod.shutdown().await.unwrap();
            let mut heard = Vec::new();
            pod.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let client_hears = async {
            client.write_all(&frame(b"\x00typed")).await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let (ended, typed, heard) = tokio::join!(
            async {
                let ended = copy_and_record(&mut near, &mut far, recording).await;
                drop((near, far));
                ended
            },
            pod_says,
            client_hears
        );
        assert!(matches!(ended, Ended::Over), "{ended:?}");
        assert_eq!(typed, frame(b"\x00typed"));
        assert!(heard.len() == sent.len() + 15 && heard.starts_with(&sent));
        let text = fs::read_to_string(dir.path().join(name)).unwrap();
        let shown = lengths.iter().map(|length| length - 1).sum::<usize>() + 4;
        assert_eq!(text.matches("\\u0001").count(), shown);
        assert!(!text.contains("typed"));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        for begun in [&frame(b"\x01seen")[..], b""] {
            let (mut client, mut near) = duplex(10_000);
            let (mut far, mut pod) = duplex(10_000);
            let recording = recording(&dir).await;
            let (name, disk) = (recording.name.clone(), recording.disk.clone());
            let session = async {
                let ended = copy_and_record(&mut near, &mut far, recording).await;
                drop((near, far));
                ended
            };
            let both = async {
                pod.write_all(begun).await.unwrap();
                let mut seen = vec![0; begun.len()];
                client.read_exact(&mut seen).await.unwrap();
                // The frame that has begun is not whole when the disk is full.
                let more = frame(b"\x01unseen");
                pod.write_all(&more[..13]).await.unwrap();
                while !fs::read_to_string(dir.path().join(&name)).unwrap().contains("un") {
                    tokio::task::yield_now().await;
                }
                lock(&disk).file = File::options().write(true).open("/dev/full").unwrap();
                pod.write_all(&more[13..]).await.unwrap();
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.unwrap();
                drop(client);
                heard
            };
            let (ended, heard) = tokio::join!(session, both);
            assert!(matches!(ended, Ended::Unrecorded(_)), "{ended:?}");
            let text = String::from_utf8_lossy(&heard);
            assert!(text.contains("the recording cannot be written") && !text.contains("seen"), "{text:?}");
            assert!(heard.ends_with(&[0x88, 2, 0x03, 0xe8]), "{text:?}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    }

    #[tokio::test]
    async fn no_word_of_ours_stands_within_a_frame() {
        let dir = tempfile::tempdir().unwrap();
        let (mut client, mut near) = duplex(100_000);
        let (mut far, mut pod) = duplex(100_000);
        let recording = recording(&dir).await;
        let disk = recording.disk.clone();
        let session = async {
            let ended = copy_and_record(&mut near, &mut far, recording).await;
            drop((near, far));
            ended
        };
        let both = async {
            let long = frame(&vec![1; BUFFER]);
            let (first, then) = long.split_at(HELD_MAX + 1);
            pod.write_all(first).await.unwrap();
            client.read_exact(&mut vec![0; first.len()]).await.unwrap();
            lock(&disk).file = File::options().write(true).open("/dev/full").unwrap();
            pod.write_all(then).await.unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let (ended, heard) = tokio::join!(session, both);
        assert!(matches!(ended, Ended::Unrecorded(_)), "{ended:?}");
        assert!(heard.is_empty(), "{heard:?}");
    }
}
