//! Sign-ins, the browsers that have one, and what ends them.

use std::net::IpAddr;

use mykube_relay_accounts::{
    id::{AccountId, SignInId, TokenId},
    jwt::DenyList,
    keyed_hash::Digest,
    portal_session::PortalSession,
    sign_in::Method,
    time::UnixTime,
};
use sqlx::{Row as _, any::AnyRow};

use crate::{database::Store, error::StoreError, transaction::Transaction};

/// A sign-in that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Which.
    pub id: SignInId,
    /// Whose.
    pub account: AccountId,
    /// How the person showed who they are.
    pub method: Method,
    /// When it began.
    pub signed_in_at: UnixTime,
}

impl Store {
    /// Every sign-in and every token that is refused, whatever the time is: a clock that is wrong at one start brings
    /// nothing back.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn denied(&self) -> Result<DenyList, StoreError> {
        const SIGN_INS: &str = "SELECT sid, denied_until AS until FROM sign_ins WHERE denied_until IS NOT NULL";
        const TOKENS: &str = "SELECT jti, until FROM denied_tokens";
        let mut denied = DenyList::default();
        for row in sqlx::query(SIGN_INS).fetch_all(&self.pool).await? {
            denied.restore_sign_in(sign_in_id(&row)?, UnixTime::from_millis(row.try_get("until")?));
        }
        for row in sqlx::query(TOKENS).fetch_all(&self.pool).await? {
            let id = bytes(&row, "jti").map(TokenId::from_bytes)?;
            denied.restore_token(id, UnixTime::from_millis(row.try_get("until")?));
        }
        Ok(denied)
    }
}

impl Transaction {
    /// A sign-in begins.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn begin_sign_in(&mut self, sign_in: SignIn, address: IpAddr) -> Result<(), StoreError> {
        const BEGIN: &str = "INSERT INTO sign_ins (sid, account, method, signed_in_at, address, ended_at)
            VALUES ($1, $2, $3, $4, $5, NULL)";
        let begin = sqlx::query(BEGIN).bind(sign_in.id.as_bytes().to_vec()).bind(sign_in.account.to_string());
        let begin = begin.bind(name(sign_in.method)).bind(sign_in.signed_in_at.millis()).bind(address.to_string());
        begin.execute(self.connection()).await?;
        Ok(())
    }

    /// A sign-in, if it has not ended.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn sign_in(&mut self, id: SignInId) -> Result<Option<SignIn>, StoreError> {
        const LIVE: &str =
            "SELECT sid, account, method, signed_in_at FROM sign_ins WHERE sid = $1 AND ended_at IS NULL";
        let row = sqlx::query(LIVE).bind(id.as_bytes().to_vec()).fetch_optional(self.connection()).await?;
        row.as_ref().map(sign_in).transpose()
    }

    /// A sign-in ends, with every browser that has it. Its tokens are to be refused until `until`.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn end_sign_in(&mut self, id: SignInId, until: UnixTime, now: UnixTime) -> Result<(), StoreError> {
        const END: &str = "UPDATE sign_ins SET ended_at = $1, denied_until = $2 WHERE sid = $3 AND ended_at IS NULL";
        const FORGET: &str = "DELETE FROM browser_sessions WHERE sid = $1";
        let sid = id.as_bytes().to_vec();
        let end = sqlx::query(END).bind(now.millis()).bind(until.millis()).bind(sid.clone());
        end.execute(self.connection()).await?;
        sqlx::query(FORGET).bind(sid).execute(self.connection()).await?;
        Ok(())
    }

    /// Every sign-in of the accounts of an issuer ends, as does every code that one of them has confirmed. Their tokens are
    /// to be refused until `until`. Says how many sign-ins ended.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn end_sign_ins_of(&mut self, issuer: &str, until: UnixTime, now: UnixTime) -> Result<u64, StoreError> {
        const FAMILIES: &str = "UPDATE families SET ended_at = $1, ended_why = 'revoked', successor = NULL,
                successor_access = NULL
            WHERE ended_at IS NULL AND account IN (SELECT id FROM accounts WHERE issuer = $2)";
        const BROWSERS: &str = "DELETE FROM browser_sessions WHERE sid IN
            (SELECT sid FROM sign_ins WHERE account IN (SELECT id FROM accounts WHERE issuer = $1))";
        const CODES: &str = "DELETE FROM device_codes WHERE account IN (SELECT id FROM accounts WHERE issuer = $1)";
        const SIGN_INS: &str = "UPDATE sign_ins SET ended_at = $1, denied_until = $2
            WHERE ended_at IS NULL AND account IN (SELECT id FROM accounts WHERE issuer = $3)";
        sqlx::query(FAMILIES).bind(now.millis()).bind(issuer.to_owned()).execute(self.connection()).await?;
        for delete in [BROWSERS, CODES] {
            sqlx::query(delete).bind(issuer.to_owned()).execute(self.connection()).await?;
        }
        let end = sqlx::query(SIGN_INS).bind(now.millis()).bind(until.millis()).bind(issuer.to_owned());
        Ok(end.execute(self.connection()).await?.rows_affected())
    }

    /// One token is refused, and could be shown until `until`. Says whether it was not refused before.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn deny_token(&mut self, id: TokenId, until: UnixTime) -> Result<bool, StoreError> {
        const DENY: &str = "INSERT INTO denied_tokens (jti, until) VALUES ($1, $2) ON CONFLICT (jti) DO NOTHING";
        let deny = sqlx::query(DENY).bind(id.as_bytes().to_vec()).bind(until.millis());
        Ok(deny.execute(self.connection()).await?.rows_affected() > 0)
    }

    /// Keeps a new session of a browser.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn begin_browser_session(&mut self, session: &PortalSession) -> Result<(), StoreError> {
        const BEGIN: &str = "INSERT INTO browser_sessions (hash, sid, created_at, used_at) VALUES ($1, $2, $3, $4)";
        let begin = sqlx::query(BEGIN).bind(session.cookie.to_bytes().to_vec()).bind(session.sid.as_bytes().to_vec());
        let begin = begin.bind(session.created_at.millis()).bind(session.seen_at.millis());
        begin.execute(self.connection()).await?;
        Ok(())
    }

    /// The session of the browser that showed a cookie, if its sign-in has not ended.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn browser_session(&mut self, cookie: Digest) -> Result<Option<PortalSession>, StoreError> {
        const FIND: &str = "SELECT browser_sessions.sid, account, method, signed_in_at, created_at, used_at
            FROM browser_sessions JOIN sign_ins ON sign_ins.sid = browser_sessions.sid
            WHERE hash = $1 AND ended_at IS NULL";
        let row = sqlx::query(FIND).bind(cookie.to_bytes().to_vec()).fetch_optional(self.connection()).await?;
        let Some(row) = row else { return Ok(None) };
        let SignIn { id, account, method, .. } = sign_in(&row)?;
        let time = |column: &str| row.try_get(column).map(UnixTime::from_millis);
        let (created_at, seen_at) = (time("created_at")?, time("used_at")?);
        Ok(Some(PortalSession { cookie, sid: id, account, method, created_at, seen_at }))
    }

    /// Keeps that a session of a browser was used.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn note_browser_session(&mut self, session: &PortalSession) -> Result<(), StoreError> {
        const NOTE: &str = "UPDATE browser_sessions SET used_at = $1 WHERE hash = $2";
        let note = sqlx::query(NOTE).bind(session.seen_at.millis()).bind(session.cookie.to_bytes().to_vec());
        note.execute(self.connection()).await?;
        Ok(())
    }
}

const METHODS: [Method; 5] = [Method::Browser, Method::Program, Method::DeviceCode, Method::IdToken, Method::Dev];

const fn name(method: Method) -> &'static str {
    match method {
        Method::Browser => "browser",
        Method::Program => "program",
        Method::DeviceCode => "device_code",
        Method::IdToken => "id_token",
        Method::Dev => "dev",
    }
}

pub(crate) fn sign_in(row: &AnyRow) -> Result<SignIn, StoreError> {
    let (account, method): (String, String) = (row.try_get("account")?, row.try_get("method")?);
    let method = METHODS.into_iter().find(|known| name(*known) == method);
    Ok(SignIn {
        id: sign_in_id(row)?,
        account: account.parse().map_err(|_| StoreError::Damaged("sign_ins.account"))?,
        method: method.ok_or(StoreError::Damaged("sign_ins.method"))?,
        signed_in_at: UnixTime::from_millis(row.try_get("signed_in_at")?),
    })
}

fn sign_in_id(row: &AnyRow) -> Result<SignInId, StoreError> {
    bytes(row, "sid").map(SignInId::from_bytes)
}

/// A column of so many bytes.
pub(crate) fn bytes<const N: usize>(row: &AnyRow, column: &'static str) -> Result<[u8; N], StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| StoreError::Damaged(column))
}
