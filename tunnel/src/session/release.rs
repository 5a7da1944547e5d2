//! Streams that the application is through with. What it wrote before is owed to the peer, and `done` goes behind it.
//!
//! Neither end's words may wait for the other's for ever. So an end that drops what comes goes on giving credit for it until its
//! own `done` has left: a peer that reads only when it has written comes to read. And of a failed stream whose peer takes nothing
//! all the same the rest is given up. What is complete is waited for: its reader may be a person.

use mykube_protocol::{
    channel::{self, StreamId},
    limits::RELEASED_UNTAKEN,
};

use super::Session;
use crate::{stream::Item, time::Time};

impl Session {
    /// The application is through with a stream. If both ends had ended their directions it closes cleanly, else it
    /// fails with `reason` at the peer, after all that was written: what came before a failure is owed to the peer, and
    /// a direction that was finished is whole. Only where the peer takes nothing for [`RELEASED_UNTAKEN`] is the rest dropped.
    pub fn release(&mut self, now: Time, id: StreamId, reason: Option<&str>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let unread = stream.clear_inbox();
        stream.released = true;
        if !stream.done_queued {
            stream.done_queued = true;
            let clean = reason.is_none() && stream.eof_sent && stream.eof_received;
            let reason = (!clean).then(|| channel::reason(reason.unwrap_or("closed")));
            stream.outbox.push_back(Item::Done(reason));
        }
        if stream.is_owed() {
            stream.dry_since = now;
            self.untaken_due.get_or_insert(now + RELEASED_UNTAKEN);
        }
        self.consumed(now, id, unread);
        self.activate(now, id, false);
        self.forget_if_over(id);
    }

    /// Another transport stands, and the wait begins anew: without a transport the peer could take nothing.
    pub(super) fn wait_anew(&mut self, now: Time) {
        if self.untaken_due.is_some() {
            self.untaken_due = Some(now + RELEASED_UNTAKEN);
            self.streams.values_mut().for_each(|stream| stream.dry_since = now);
        }
    }

    /// Drops what waits of failed streams whose peer has left them without credit for too long; their `done` goes at once.
    pub(super) fn give_up_untaken(&mut self, now: Time) {
        if !self.is_attached() || self.untaken_due.is_none_or(|due| due > now) {
            return;
        }
        let since = |credit: u64, dry_since: Time| if credit > 0 { now } else { dry_since };
        let owed = self.streams.iter().filter(|(_, stream)| stream.is_owed());
        let mut owed: Vec<_> =
            owed.map(|(id, stream)| (since(stream.credit, stream.dry_since) + RELEASED_UNTAKEN, *id)).collect();
        owed.sort_unstable();
        let late = owed.partition_point(|(due, _)| *due <= now);
        // After a farewell nothing is sent.
        self.untaken_due = owed.get(late).map(|(due, _)| *due).filter(|_| !self.farewell.is_over());
        for (_, id) in &owed[..late] {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.clear_outbox();
                self.activate(now, *id, false);
            }
        }
    }
}
