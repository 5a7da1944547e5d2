//! What met another at the database is done again.

use std::time::Duration;

use tokio::time::sleep;

/// How often. Of those that meet one always goes on, and no more than the database's connections meet at once.
const TRIES: u32 = 16;
/// The longest pause before that: so many powers of two of a millisecond.
const PAUSE_MAX: u32 = 6;

/// Does this until it has not met another (`met`), or has too often.
pub(crate) async fn until_alone<F: Future>(mut act: impl FnMut() -> F, met: impl Fn(&F::Output) -> bool) -> F::Output {
    for n in 0..TRIES {
        let done = act().await;
        if !met(&done) {
            return done;
        }
        // Those who met are not to meet again.
        sleep(Duration::from_millis(rand::random_range(0..=1 << n.min(PAUSE_MAX)))).await;
    }
    act().await
}
