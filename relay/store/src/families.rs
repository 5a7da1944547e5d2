//! Refresh families: a row each, which a rule is given and gives back.

use mykube_relay_accounts::{
    id::{SignInId, TokenId},
    keyed_hash::Digest,
    refresh::{End, Family, Successor},
    statement::MachineKey,
    time::UnixTime,
};
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, sign_ins::bytes, transaction::Transaction};

impl Transaction {
    /// The family of a sign-in, for a rule that changes it: [`Transaction::change_family`] then keeps what came of that.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn family(&mut self, id: SignInId) -> Result<Option<Family>, StoreError> {
        const FIND: &str = "SELECT sid, account, machine_key, created_at, refreshed_at, signed_at, current_token,
            successor, successor_access, ended_at, ended_why FROM families WHERE sid = $1";
        let row = sqlx::query(FIND).bind(id.as_bytes().to_vec()).fetch_optional(self.connection()).await?;
        row.as_ref().map(family).transpose()
    }

    /// Keeps a new family.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn begin_family(&mut self, family: &Family) -> Result<(), StoreError> {
        const KEEP: &str = "INSERT INTO families (sid, account, machine_key, created_at, refreshed_at, signed_at,
                current_token, successor, successor_access, ended_at, ended_why)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let Family { sid, account, key, created_at, refreshed_at, signed_at, current, successor, ended } = family;
        let keep = sqlx::query(KEEP).bind(sid.as_bytes().to_vec()).bind(account.to_string());
        let keep = keep.bind(key.to_bytes().to_vec()).bind(created_at.millis()).bind(refreshed_at.millis());
        let keep = keep.bind(signed_time(*signed_at)).bind(current.to_bytes().to_vec());
        let keep = keep.bind(successor.map(|successor| successor.token.to_bytes().to_vec()));
        let keep = keep.bind(successor.map(|successor| successor.access.as_bytes().to_vec()));
        let keep = keep.bind(ended.map(|(at, _)| at.millis())).bind(ended.map(|(_, why)| name(why)));
        keep.execute(self.connection()).await?;
        Ok(())
    }

    /// Keeps what a rule made of a family that was read as `before`.
    ///
    /// # Errors
    /// The database gives no answer, or another has changed the family since it was read ([`StoreError::Changed`]): of two
    /// who show one token at the same time, only one may get its successor.
    pub async fn change_family(&mut self, before: &Family, family: &Family) -> Result<(), StoreError> {
        const CHANGE: &str =
            "UPDATE families SET refreshed_at = $1, signed_at = $2, current_token = $3, successor = $4,
                successor_access = $5, ended_at = $6, ended_why = $7
            WHERE sid = $8 AND signed_at = $9 AND ended_at IS NULL";
        let Family { sid, refreshed_at, signed_at, current, successor, ended, .. } = family;
        let change = sqlx::query(CHANGE).bind(refreshed_at.millis()).bind(signed_time(*signed_at));
        let change = change.bind(current.to_bytes().to_vec());
        let change = change.bind(successor.map(|successor| successor.token.to_bytes().to_vec()));
        let change = change.bind(successor.map(|successor| successor.access.as_bytes().to_vec()));
        let change = change.bind(ended.map(|(at, _)| at.millis())).bind(ended.map(|(_, why)| name(why)));
        let change = change.bind(sid.as_bytes().to_vec()).bind(signed_time(before.signed_at));
        let changed = change.execute(self.connection()).await?.rows_affected();
        if changed == 1 { Ok(()) } else { Err(StoreError::Changed) }
    }
}

/// A statement's time is near the relay's own, which fits.
fn signed_time(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

const fn name(why: End) -> &'static str {
    match why {
        End::Theft => "theft",
        End::Revoked => "revoked",
    }
}

fn family(row: &AnyRow) -> Result<Family, StoreError> {
    let time = |column: &str| row.try_get(column).map(UnixTime::from_millis);
    let is_some = |column: &str| row.try_get::<Option<Vec<u8>>, _>(column).map(|bytes| bytes.is_some());
    let successor = if is_some("successor")? {
        let token = bytes(row, "successor").map(Digest::from_bytes)?;
        Some(Successor { token, access: bytes(row, "successor_access").map(TokenId::from_bytes)? })
    } else {
        None
    };
    let ended: (Option<i64>, Option<String>) = (row.try_get("ended_at")?, row.try_get("ended_why")?);
    let ended = match (ended.0, ended.1.as_deref()) {
        (None, None) => None,
        (Some(at), Some("theft")) => Some((UnixTime::from_millis(at), End::Theft)),
        (Some(at), Some("revoked")) => Some((UnixTime::from_millis(at), End::Revoked)),
        _ => return Err(StoreError::Damaged("families.ended_why")),
    };
    let account: String = row.try_get("account")?;
    let signed_at: i64 = row.try_get("signed_at")?;
    Ok(Family {
        sid: bytes(row, "sid").map(SignInId::from_bytes)?,
        account: account.parse().map_err(|_| StoreError::Damaged("families.account"))?,
        key: MachineKey::from_bytes(&bytes::<65>(row, "machine_key")?)
            .map_err(|_| StoreError::Damaged("families.machine_key"))?,
        created_at: time("created_at")?,
        refreshed_at: time("refreshed_at")?,
        signed_at: u64::try_from(signed_at).map_err(|_| StoreError::Damaged("families.signed_at"))?,
        current: bytes(row, "current_token").map(Digest::from_bytes)?,
        successor,
        ended,
    })
}
