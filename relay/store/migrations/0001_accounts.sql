-- Times are milliseconds since 1970. Statements and types are those that SQLite and PostgreSQL share.

CREATE TABLE organisations (
    id         TEXT   NOT NULL PRIMARY KEY,
    -- An account's own has none.
    name       TEXT   UNIQUE,
    created_at BIGINT NOT NULL
);

-- Whose an account is: (issuer, subject), and never an address.
CREATE TABLE accounts (
    id           TEXT   NOT NULL PRIMARY KEY,
    issuer       TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    user_id      TEXT   NOT NULL,
    email        TEXT   NOT NULL,
    organisation TEXT   NOT NULL REFERENCES organisations (id),
    created_at   BIGINT NOT NULL,
    UNIQUE (issuer, subject)
);

CREATE TABLE members (
    organisation TEXT   NOT NULL REFERENCES organisations (id),
    account      TEXT   NOT NULL REFERENCES accounts (id),
    role         TEXT   NOT NULL CHECK (role IN ('owner', 'member')),
    since        BIGINT NOT NULL,
    PRIMARY KEY (organisation, account)
);

-- A sign-in and all that came of it: tokens, refresh tokens, cookies.
CREATE TABLE sign_ins (
    sid           BYTEA  NOT NULL PRIMARY KEY,
    account       TEXT   NOT NULL REFERENCES accounts (id),
    -- How the person showed who they are.
    method        TEXT   NOT NULL CHECK (method IN ('browser', 'program', 'device_code', 'id_token', 'dev')),
    signed_in_at  BIGINT NOT NULL,
    address       TEXT   NOT NULL,
    -- Nothing while it lasts. Its tokens are refused from then on, and could be shown until `denied_until`.
    ended_at      BIGINT,
    denied_until  BIGINT
);
CREATE INDEX sign_ins_of_account ON sign_ins (account);

-- Single tokens that are refused, each with the time until which it could be shown.
CREATE TABLE denied_tokens (
    jti   BYTEA  NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);

-- How a sign-in of a machine goes on without the person. Tokens are keyed hashes.
CREATE TABLE families (
    sid              BYTEA  NOT NULL PRIMARY KEY REFERENCES sign_ins (sid),
    account          TEXT   NOT NULL REFERENCES accounts (id),
    machine_key      BYTEA  NOT NULL,
    created_at       BIGINT NOT NULL,
    refreshed_at     BIGINT NOT NULL,
    signed_at        BIGINT NOT NULL,
    current_token    BYTEA  NOT NULL,
    successor        BYTEA,
    successor_access BYTEA,
    ended_at         BIGINT,
    ended_why        TEXT CHECK (ended_why IN ('theft', 'revoked'))
);

-- Codes that a program shows and a person confirms, for a quarter of an hour. They are keyed hashes.
CREATE TABLE device_codes (
    device_code  BYTEA  NOT NULL PRIMARY KEY,
    user_code    BYTEA  NOT NULL UNIQUE,
    -- Of a program of ours.
    machine_key  BYTEA,
    program      TEXT   NOT NULL,
    asked_from   TEXT   NOT NULL,
    -- Of that address: what a flood is counted by.
    network      TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    stage        TEXT   NOT NULL CHECK (stage IN ('pending', 'confirmed', 'fetched')),
    -- Who has confirmed it, by which sign-in, when they proved who they are, and from where.
    account        TEXT   REFERENCES accounts (id),
    confirmed_by   BYTEA,
    auth_time      BIGINT,
    confirmed_from TEXT
);
CREATE INDEX device_codes_by_age ON device_codes (created_at);
CREATE INDEX device_codes_of_network ON device_codes (network, created_at);

-- The portal's own cookie, as a keyed hash.
CREATE TABLE browser_sessions (
    hash       BYTEA  NOT NULL PRIMARY KEY,
    sid        BYTEA  NOT NULL REFERENCES sign_ins (sid),
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL
);
CREATE INDEX browser_sessions_of_sign_in ON browser_sessions (sid);

CREATE TABLE audit (
    organisation TEXT   NOT NULL REFERENCES organisations (id),
    number       BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    -- Who, by which sign-in, and from where.
    account      TEXT   NOT NULL,
    sid          BYTEA  NOT NULL,
    address      TEXT   NOT NULL,
    -- What, and more about it.
    action       TEXT   NOT NULL,
    detail       TEXT   NOT NULL,
    PRIMARY KEY (organisation, number)
);

-- The time by which rows are judged to be over: one row.
CREATE TABLE swept (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    at  BIGINT NOT NULL
);
