//! Rows that wait for somebody, and that anybody may have made: how many there may be, in all and of one network.

use std::time::Duration;

use mykube_relay_accounts::time::UnixTime;
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, transaction::Transaction};

/// A table of such rows.
pub(crate) struct Waiting {
    /// Its name, for an error.
    pub(crate) table: &'static str,
    /// How long a row is good.
    pub(crate) life: Duration,
    /// Deletes what was made until `$1`.
    pub(crate) forget: &'static str,
    /// `count` of all.
    pub(crate) count: &'static str,
    /// `count` of those of the network `$1`.
    pub(crate) count_of: &'static str,
    /// Deletes the oldest that waits in the network that has the most.
    pub(crate) evict: &'static str,
}

impl Transaction {
    /// Whether one more of this network may be kept, where there are `most` in all and `most_of_network` of one: those that
    /// are over are forgotten, and where there is no room, the oldest that waits in the network that has the most.
    pub(crate) async fn has_room(
        &mut self,
        waiting: &Waiting,
        network: &str,
        (most, most_of_network): (usize, usize),
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let reached = |row: AnyRow, most: usize| {
            let count: i64 = row.try_get("count")?;
            usize::try_from(count).map(|count| count >= most).map_err(|_| StoreError::Damaged(waiting.table))
        };
        sqlx::query(waiting.forget).bind((now - waiting.life).millis()).execute(self.connection()).await?;
        let of_network = sqlx::query(waiting.count_of).bind(network.to_owned()).fetch_one(self.connection()).await?;
        if reached(of_network, most_of_network)? {
            return Ok(false);
        }
        if !reached(sqlx::query(waiting.count).fetch_one(self.connection()).await?, most)? {
            return Ok(true);
        }
        Ok(sqlx::query(waiting.evict).execute(self.connection()).await?.rows_affected() > 0)
    }
}
