//! Checks that all bytes arrive as they were sent, also after a half-close.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    thread,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use super::{Load, Service};

/// What came back.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
pub struct IntegrityFigures {
    /// No byte differs from what was sent.
    pub same: bool,
    /// All 8 MiB of an echo came back.
    pub complete: bool,
    /// 256 KiB and an end of file at once: all of it and the end of file came back.
    pub half_close: bool,
}

struct Returned {
    same: bool,
    bytes: usize,
    ended: bool,
}

impl Load {
    /// Random bytes through the echo.
    #[must_use]
    pub fn integrity(&self) -> IntegrityFigures {
        let whole = self.there_and_back(8 << 20, false);
        let half = self.there_and_back(256 << 10, true);
        let is = |result: &Option<Returned>, test: fn(&Returned) -> bool| result.as_ref().is_some_and(test);
        IntegrityFigures {
            same: is(&whole, |it| it.same) && is(&half, |it| it.same),
            complete: is(&whole, |it| it.bytes == 8 << 20),
            half_close: is(&half, |it| it.bytes == 256 << 10 && it.ended),
        }
    }

    fn there_and_back(&self, size: usize, end: bool) -> Option<Returned> {
        let mut sent = vec![0; size];
        StdRng::seed_from_u64(size as u64).fill_bytes(&mut sent);
        let mut stream = self.open(Service::Echo).ok()?;
        let mut writer = stream.try_clone().ok()?;
        let mut returned = Vec::with_capacity(size);
        let mut ended = false;
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = writer.write_all(&sent);
                if end {
                    let _ = writer.shutdown(Shutdown::Write);
                }
            });
            let mut buffer = vec![0; 64 << 10];
            while end || returned.len() < size {
                match stream.read(&mut buffer) {
                    Ok(0) => {
                        ended = true;
                        break;
                    }
                    Ok(count) => returned.extend_from_slice(&buffer[..count]),
                    Err(_) => break,
                }
            }
            // Does not join a writer that hangs.
            let _ = stream.shutdown(Shutdown::Both);
        });
        Some(Returned { same: sent.starts_with(&returned), bytes: returned.len(), ended })
    }
}
