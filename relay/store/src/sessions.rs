//! Where a person is signed in, for the person to see.

use mykube_relay_accounts::{
    id::{AccountId, SignInId},
    time::UnixTime,
};
use sqlx::Row as _;

use crate::{
    error::StoreError,
    sign_ins::{SignIn, sign_in},
    transaction::Transaction,
};

/// A sign-in that has not ended, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The sign-in.
    pub sign_in: SignIn,
    /// Where it came from.
    pub address: String,
    /// What whoever signed in called itself: a claim, perhaps empty.
    pub program: String,
    /// When its browser used it last, if it is one's.
    pub browser_at: Option<UnixTime>,
    /// When its tokens were renewed last, if a machine's key renews them.
    pub renewed_at: Option<UnixTime>,
}

impl Transaction {
    /// An account's sign-ins that have not ended, the newest first; this many at most.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn sign_ins_of(&mut self, account: AccountId, most: u32) -> Result<Vec<Session>, StoreError> {
        const ALL: &str =
            "SELECT sign_ins.sid, sign_ins.account, method, signed_in_at, address, program, used_at, refreshed_at
            FROM sign_ins LEFT JOIN browser_sessions ON browser_sessions.sid = sign_ins.sid
                LEFT JOIN families ON families.sid = sign_ins.sid
            WHERE sign_ins.account = $1 AND sign_ins.ended_at IS NULL
            ORDER BY signed_in_at DESC, sign_ins.sid LIMIT $2";
        let all = sqlx::query(ALL).bind(account.to_string()).bind(i64::from(most));
        let rows = all.fetch_all(self.connection()).await?;
        let session = |row: &sqlx::any::AnyRow| {
            let time = |column: &str| row.try_get::<Option<i64>, _>(column).map(|at| at.map(UnixTime::from_millis));
            Ok(Session {
                sign_in: sign_in(row)?,
                address: row.try_get("address")?,
                program: row.try_get("program")?,
                browser_at: time("used_at")?,
                renewed_at: time("refreshed_at")?,
            })
        };
        rows.iter().map(session).collect()
    }

    /// Keeps what whoever signed in called itself.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn set_program(&mut self, id: SignInId, program: &str) -> Result<(), StoreError> {
        const SET: &str = "UPDATE sign_ins SET program = $1 WHERE sid = $2";
        let set = sqlx::query(SET).bind(program.to_owned()).bind(id.as_bytes().to_vec());
        set.execute(self.connection()).await?;
        Ok(())
    }

    /// Keeps when the person proved who they are, where that was before this sign-in began.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn set_auth_time(&mut self, id: SignInId, at: UnixTime) -> Result<(), StoreError> {
        const SET: &str = "UPDATE sign_ins SET auth_time = $1 WHERE sid = $2";
        let set = sqlx::query(SET).bind(at.millis()).bind(id.as_bytes().to_vec());
        set.execute(self.connection()).await?;
        Ok(())
    }

    /// When the person proved who they are, by whom this sign-in is; none of one that has ended.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn auth_time(&mut self, id: SignInId) -> Result<Option<UnixTime>, StoreError> {
        const FIND: &str =
            "SELECT COALESCE(auth_time, signed_in_at) AS at FROM sign_ins WHERE sid = $1 AND ended_at IS NULL";
        let row = sqlx::query(FIND).bind(id.as_bytes().to_vec()).fetch_optional(self.connection()).await?;
        Ok(row.map(|row| row.try_get("at")).transpose()?.map(UnixTime::from_millis))
    }
}
