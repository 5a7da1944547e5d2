//! Forgetting what is over, a little at a time.
//!
//! A clock that is wrong must not make a relay forget what it refuses. So rows are judged by a time of the database's own: it
//! follows the relay's clock by a [`DAY`] with each sweep at most, and a row stays for [`MARGIN`] after it could matter.

use std::time::Duration;

use mykube_relay_accounts::{device_code, login_code, portal_session, provider_state, refresh, time::UnixTime};
use sqlx::Row as _;

use crate::{database::Store, error::StoreError};

const DAY: Duration = Duration::from_hours(24);
/// How long what is over is kept: a clock must be wrong for a month of sweeps before anything is forgotten too early.
pub const MARGIN: Duration = Duration::from_hours(30 * 24);
/// How long lines of audit logs are kept.
pub const AUDIT: Duration = Duration::from_hours(365 * 24);
/// Rows of one table that are forgotten at once: others wait meanwhile.
const AT_ONCE: i64 = 256;

/// What is over, by table: what each is given is the time before which it must lie. What refers to a row goes before it.
/// The last line of an audit log stays, as the next one's number follows from it.
const FORGET: [(&str, Duration); 9] = [
    ("DELETE FROM device_codes WHERE device_code IN
        (SELECT device_code FROM device_codes WHERE created_at <= $1 LIMIT $2)", device_code::LIFE),
    ("DELETE FROM provider_states WHERE state IN
        (SELECT state FROM provider_states WHERE created_at <= $1 LIMIT $2)", provider_state::LIFE),
    ("DELETE FROM login_codes WHERE code IN
        (SELECT code FROM login_codes WHERE created_at <= $1 LIMIT $2)", login_code::LIFE),
    ("DELETE FROM denied_tokens WHERE jti IN (SELECT jti FROM denied_tokens WHERE until <= $1 LIMIT $2)", MARGIN),
    ("DELETE FROM browser_sessions WHERE hash IN
        (SELECT hash FROM browser_sessions WHERE created_at <= $1 LIMIT $2)", portal_session::LIFE),
    ("DELETE FROM families WHERE sid IN (SELECT sid FROM families WHERE created_at <= $1 LIMIT $2)", OVER),
    ("DELETE FROM sign_ins WHERE sid IN (SELECT sid FROM sign_ins WHERE denied_until <= $1
        AND sid NOT IN (SELECT sid FROM families) AND sid NOT IN (SELECT sid FROM browser_sessions) LIMIT $2)", MARGIN),
    ("DELETE FROM sign_ins WHERE sid IN (SELECT sid FROM sign_ins WHERE signed_in_at <= $1 AND ended_at IS NULL
        AND sid NOT IN (SELECT sid FROM families) AND sid NOT IN (SELECT sid FROM browser_sessions) LIMIT $2)", OVER),
    ("DELETE FROM audit WHERE (organisation, number) IN (SELECT organisation, number FROM audit AS line WHERE at <= $1
        AND number < (SELECT MAX(number) FROM audit WHERE organisation = line.organisation) LIMIT $2)", AUDIT),
];
/// Nothing that came of a sign-in is good for longer.
const OVER: Duration = refresh::LIFE.saturating_add(MARGIN);

impl Store {
    /// Brings the database's own time nearer to the relay's clock. Says what it is: what was over then can be forgotten.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn swept_at(&self, now: UnixTime) -> Result<UnixTime, StoreError> {
        const READ: &str = "SELECT at FROM swept";
        const BEGIN: &str = "INSERT INTO swept (one, at) VALUES (1, $1)";
        const WRITE: &str = "UPDATE swept SET at = $1";
        let Some(row) = sqlx::query(READ).fetch_optional(&self.pool).await? else {
            sqlx::query(BEGIN).bind(now.millis()).execute(&self.pool).await?;
            return Ok(now);
        };
        let time = now.min(UnixTime::from_millis(row.try_get("at")?) + DAY);
        sqlx::query(WRITE).bind(time.millis()).execute(&self.pool).await?;
        Ok(time)
    }

    /// Forgets some of what was over at a time that [`Store::swept_at`] said. Says whether there may be more.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn forget(&self, time: UnixTime) -> Result<bool, StoreError> {
        let mut more = false;
        for (forget, after) in FORGET {
            let gone = sqlx::query(forget).bind((time - after).millis()).bind(AT_ONCE).execute(&self.pool).await?;
            more |= gone.rows_affected() >= AT_ONCE.unsigned_abs();
        }
        Ok(more)
    }
}
