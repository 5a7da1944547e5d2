-- Codes by email: a row an address, made for anybody who asks. The code is a keyed hash.
CREATE TABLE email_codes (
    email        TEXT   NOT NULL PRIMARY KEY,
    code         BYTEA,
    -- When codes were asked for, the last one last: eight bytes each, big-endian.
    asked_at     BYTEA  NOT NULL,
    wrong        BIGINT NOT NULL,
    locked_until BIGINT,
    -- Wrong tries since then.
    wrong_since  BIGINT,
    wrong_today  BIGINT NOT NULL,
    -- When nothing of the row is of use any more.
    useless_at   BIGINT NOT NULL
);
CREATE INDEX email_codes_by_age ON email_codes (useless_at);

-- Who may come in once, by proof of the address.
CREATE TABLE invitations (
    email      TEXT   NOT NULL PRIMARY KEY,
    operator   BIGINT NOT NULL CHECK (operator IN (0, 1)),
    created_at BIGINT NOT NULL,
    taken_at   BIGINT,
    taken_by   TEXT   REFERENCES accounts (id)
);
CREATE INDEX invitations_by_age ON invitations (created_at);

-- Who operates the relay.
CREATE TABLE operators (
    account TEXT   NOT NULL PRIMARY KEY REFERENCES accounts (id),
    since   BIGINT NOT NULL
);
