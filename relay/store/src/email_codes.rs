//! Codes by email: a row an address, which a rule is given and gives back.

use mykube_relay_accounts::{email::Email, email_code::EmailCode, keyed_hash::Digest, time::UnixTime};
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, sign_ins::bytes, transaction::Transaction};

impl Transaction {
    /// That of an address, if anybody has asked for one of late.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn email_code(&mut self, email: &Email) -> Result<Option<EmailCode>, StoreError> {
        const FIND: &str = "SELECT email, code, asked_at, wrong, locked_until, wrong_since, wrong_today
            FROM email_codes WHERE email = $1";
        let row = sqlx::query(FIND).bind(email.to_string()).fetch_optional(self.connection()).await?;
        row.as_ref().map(email_code).transpose()
    }

    /// Keeps what a rule made of one that was read as `before`, or that was not there.
    ///
    /// # Errors
    /// The database gives no answer, or somebody has asked or tried since it was read ([`StoreError::Changed`]): no try goes
    /// uncounted.
    pub async fn change_email_code(&mut self, before: Option<&EmailCode>, row: &EmailCode) -> Result<(), StoreError> {
        const KEEP: &str =
            "INSERT INTO email_codes (email, code, asked_at, wrong, locked_until, wrong_since, wrong_today,
            useless_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (email) DO NOTHING";
        const CHANGE: &str = "UPDATE email_codes SET code = $2, asked_at = $3, wrong = $4, locked_until = $5,
                wrong_since = $6, wrong_today = $7, useless_at = $8
            WHERE email = $1 AND asked_at = $9 AND wrong = $10 AND wrong_today = $11
                AND CASE WHEN code IS NULL THEN 0 ELSE 1 END = $12";
        let (since, today) = row.wrong_since.unzip();
        let write = sqlx::query(if before.is_some() { CHANGE } else { KEEP }).bind(row.email.to_string());
        let write = write.bind(row.code.map(|code| code.to_bytes().to_vec())).bind(times(&row.asked_at));
        let write = write.bind(i64::from(row.wrong)).bind(row.locked_until.map(UnixTime::millis));
        let write = write.bind(since.map(UnixTime::millis)).bind(i64::from(today.unwrap_or_default()));
        let mut write = write.bind(row.useless_at().millis());
        if let Some(before) = before {
            let today = before.wrong_since.map_or(0, |(_, today)| today);
            write = write.bind(times(&before.asked_at)).bind(i64::from(before.wrong)).bind(i64::from(today));
            write = write.bind(i64::from(before.code.is_some()));
        }
        let changed = write.execute(self.connection()).await?.rows_affected();
        if changed == 1 { Ok(()) } else { Err(StoreError::Changed) }
    }
}

fn times(times: &[UnixTime]) -> Vec<u8> {
    times.iter().flat_map(|time| time.millis().to_be_bytes()).collect()
}

fn email_code(row: &AnyRow) -> Result<EmailCode, StoreError> {
    const DAMAGED: StoreError = StoreError::Damaged("email_codes");
    let count = |column: &str| {
        let count: i64 = row.try_get(column)?;
        u8::try_from(count).map_err(|_| DAMAGED)
    };
    let time = |column: &str| row.try_get::<Option<i64>, _>(column).map(|time| time.map(UnixTime::from_millis));
    let asked: Vec<u8> = row.try_get("asked_at")?;
    let (asked, rest) = asked.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(DAMAGED);
    }
    let code = match row.try_get::<Option<Vec<u8>>, _>("code")? {
        Some(_) => Some(Digest::from_bytes(bytes(row, "code")?)),
        None => None,
    };
    let today = count("wrong_today")?;
    Ok(EmailCode {
        email: row.try_get::<String, _>("email")?.parse().map_err(|_| DAMAGED)?,
        code,
        asked_at: asked.iter().map(|time| UnixTime::from_millis(i64::from_be_bytes(*time))).collect(),
        wrong: count("wrong")?,
        locked_until: time("locked_until")?,
        wrong_since: time("wrong_since")?.map(|since| (since, today)),
    })
}
