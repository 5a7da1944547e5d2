//! Mail that the relay sends, off the way of any answer: a queue, a few workers, and whether the server can be reached.
//!
//! Nobody learns from it who is known here. A letter that is not to be sent takes the same way, up to the point where the server
//! would be told whom it is for; and that the server is away is found out, and told, for everybody alike.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

mod letter;
mod settings;
mod smtp;

pub(crate) use letter::Letter;
pub use settings::{Mail, MailError};

/// Letters that wait at most: what a server that is slow makes the relay keep (about 1 KiB each).
const WAITING_MAX: usize = 256;
/// Letters that are sent at once. One server takes them, and some allow few connections.
const WORKERS: usize = 4;
/// How long a server may take to be ready for a letter, and then to take it (RFC 5321, section 4.5.3.2, has minutes, in which
/// a code would grow old).
const ATTEMPT: Duration = Duration::from_secs(30);
/// A letter that has waited for so long is not sent any more: whoever asked for its code has asked again, or gone.
const DEADLINE: Duration = Duration::from_mins(2);
/// How often a server that is away is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// What waits.
pub(crate) struct Job {
    /// Nothing, where nobody is to get one.
    pub(crate) letter: Option<Letter>,
    until: Instant,
}

/// The way to the mail server.
pub(crate) struct Mailer {
    jobs: mpsc::Sender<Job>,
    server: Arc<Server>,
}

#[derive(Default)]
struct Server {
    /// It could not be reached when it was tried last.
    is_away: AtomicBool,
}

/// No mail can be sent now, whoever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away;

/// A place in the queue.
pub(crate) struct Place<'a>(mpsc::Permit<'a, Job>);

impl Mailer {
    /// Sends by this server, on the runtime that this is called on, until it is dropped.
    pub(crate) fn start(mail: Mail) -> Self {
        let (mailer, jobs) = Self::queue();
        let (mail, jobs) = (Arc::new(mail), Arc::new(Mutex::new(jobs)));
        for _ in 0..WORKERS {
            tokio::spawn(work(mail.clone(), mailer.server.clone(), jobs.clone()));
        }
        tokio::spawn(watch(mail, mailer.server.clone(), mailer.jobs.downgrade()));
        mailer
    }

    /// The queue alone.
    pub(crate) fn queue() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        (Self { jobs, server: Arc::default() }, waiting)
    }

    /// A place for a letter, or for none.
    ///
    /// # Errors
    /// The server is away, or too many wait.
    pub(crate) fn place(&self) -> Result<Place<'_>, Away> {
        if self.server.is_away.load(Relaxed) {
            return Err(Away);
        }
        self.jobs.try_reserve().map(Place).map_err(|_| Away)
    }

    #[cfg(test)]
    pub(crate) fn set_away(&self, is_away: bool) {
        self.server.is_away.store(is_away, Relaxed);
    }
}

impl Place<'_> {
    pub(crate) fn take(self, letter: Option<Letter>) {
        self.0.send(Job { letter, until: Instant::now() + DEADLINE });
    }
}

impl Server {
    /// A connection, ready for a letter. What comes of it is known to all.
    async fn reach(&self, mail: &Mail) -> Option<smtp::Connection> {
        match timeout(ATTEMPT, mail.connect()).await.unwrap_or(Err(smtp::Fault::Slow)) {
            Ok(connection) => {
                if self.is_away.swap(false, Relaxed) {
                    info!("the mail server is there again");
                }
                Some(connection)
            }
            Err(fault) => {
                if !self.is_away.swap(true, Relaxed) {
                    warn!(%fault, "the mail server cannot be used: nobody gets a code by email");
                }
                None
            }
        }
    }
}

async fn work(mail: Arc<Mail>, server: Arc<Server>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    loop {
        let job = jobs.lock().await.recv().await;
        let Some(job) = job else { return };
        // A fault in it ends this one letter, not the worker.
        if tokio::spawn(deliver(mail.clone(), server.clone(), job)).await.is_err() {
            error!("a fault in this program while a letter was sent");
        }
    }
}

async fn deliver(mail: Arc<Mail>, server: Arc<Server>, job: Job) {
    while Instant::now() < job.until {
        let Some(mut connection) = server.reach(&mail).await else {
            sleep(RETRY).await;
            continue;
        };
        if let Some(letter) = &job.letter {
            // What the server has against this one letter is for the operator alone, and without whom it is for.
            let sent = timeout(ATTEMPT, connection.send(&mail, letter)).await.unwrap_or(Err(smtp::Fault::Slow));
            if let Err(fault) = sent {
                warn!(%fault, "the mail server did not take a letter");
            }
        }
        let _ = timeout(ATTEMPT, connection.quit()).await;
        return;
    }
    if job.letter.is_some() {
        warn!("a letter waited too long for the mail server, and is dropped");
    }
}

/// Tries the server at the start, so that a wrong setting is told then, and again while it is away, when nobody's request
/// does.
async fn watch(mail: Arc<Mail>, server: Arc<Server>, jobs: mpsc::WeakSender<Job>) {
    let mut is_first = true;
    while jobs.upgrade().is_some() {
        if (is_first || server.is_away.load(Relaxed))
            && let Some(connection) = server.reach(&mail).await
        {
            let _ = timeout(ATTEMPT, connection.quit()).await;
            if is_first {
                info!("the mail server is there");
            }
        }
        is_first = false;
        sleep(RETRY).await;
    }
}
