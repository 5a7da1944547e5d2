-- What whoever signed in calls itself (`User-Agent`): plain characters, a claim.
ALTER TABLE sign_ins ADD COLUMN program TEXT NOT NULL DEFAULT '';
-- When the person proved who they are, where that was before the sign-in began: a code is confirmed by an earlier one.
ALTER TABLE sign_ins ADD COLUMN auth_time BIGINT;
-- Of a fetched code: 1 if the person said no.
ALTER TABLE device_codes ADD COLUMN refused BIGINT NOT NULL DEFAULT 0;
