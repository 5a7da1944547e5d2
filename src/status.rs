//! The client's one line of status while its session is away.

use std::{convert::Infallible, time::Duration};

use mykube_link::{PeerStatus, clock};
use tokio::{sync::watch, time::timeout};

use crate::{events::JsonEvent, output::Output, waiting::Waiting};

/// An interruption shorter than this is told to scripts only: nobody has noticed it.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// Tells every loss and return. With a child on the terminal it is one line each, else a line that counts.
pub(crate) async fn tell(mut status: watch::Receiver<PeerStatus>, output: Output, has_child: bool) -> Infallible {
    loop {
        let now = status.borrow_and_update().clone();
        let PeerStatus::Away { since, reason } = now else {
            changed(&mut status).await;
            continue;
        };
        output.event(&JsonEvent::Lost { client: None, reason: &reason });
        let noticed = noticed(&mut status).await;
        if let Some(reason) = &noticed {
            let line = (output.spinner && !has_child).then(|| Waiting::lost(output.screen(), reason, since));
            if line.is_none() {
                output.say(&format!("Lost: {reason}. The session waits, and everything in it; retrying."));
            }
            back(&mut status).await;
        }
        let after = clock::now().since(since);
        output.event(&JsonEvent::Back { client: None, after: after.as_secs_f64() });
        if noticed.is_some() {
            output.say(&format!("Back after {}, nothing lost.", self::told(after)));
        }
    }
}

/// Why the session is away, unless it is back before anybody notices: the newest reason, as what answers in the relay's
/// place says what to do about it.
async fn noticed(status: &mut watch::Receiver<PeerStatus>) -> Option<String> {
    if timeout(NOTICEABLE, back(status)).await.is_ok() {
        return None;
    }
    match &*status.borrow_and_update() {
        PeerStatus::Away { reason, .. } => Some(reason.clone()),
        PeerStatus::Up => None,
    }
}

async fn back(status: &mut watch::Receiver<PeerStatus>) {
    while !status.borrow_and_update().is_up() {
        changed(status).await;
    }
}

async fn changed(status: &mut watch::Receiver<PeerStatus>) {
    if status.changed().await.is_err() {
        // The session is over, which is told elsewhere.
        std::future::pending().await
    }
}

/// `0.4 s`, `41 s`, `12 min`, `3 h 20 min`.
pub(crate) fn told(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(reason: &str) -> PeerStatus {
        PeerStatus::Away { since: clock::now(), reason: reason.into() }
    }

    #[tokio::test]
    async fn the_newest_reason_is_told() {
        let (tell, mut status) = watch::channel(away("the connection was reset"));
        let (told, _) = tokio::join!(noticed(&mut status), async { tell.send_replace(away("log in first")) });
        assert_eq!(told.as_deref(), Some("log in first"));
    }

    #[tokio::test]
    async fn a_short_loss_is_not_told() {
        let (tell, mut status) = watch::channel(away("the connection was reset"));
        let (told, _) = tokio::join!(noticed(&mut status), async { tell.send_replace(PeerStatus::Up) });
        assert_eq!(told, None);
    }

    #[test]
    fn times_are_told_as_people_say_them() {
        let told = |seconds| told(Duration::from_secs_f64(seconds));
        assert_eq!([0.42, 9.9, 41.7, 119.0].map(told), ["0.4 s", "9.9 s", "41 s", "119 s"]);
        assert_eq!([120.0, 7199.0, 12_000.0].map(told), ["2 min", "119 min", "3 h 20 min"]);
    }
}
