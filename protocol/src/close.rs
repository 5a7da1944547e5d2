//! WebSocket close codes the relay uses. They may change what is displayed and when to redial, never keys or data.

/// Drain or restart: come back after the delay in the reason (`retry-after=<ms>`). RFC 6455 registry, "service restart".
pub const RESTART: u16 = 1012;
/// A frame over the limit. RFC 6455 section 7.4.1.
pub const TOO_BIG: u16 = 1009;
/// What was sent breaks the protocol. RFC 6455 section 7.4.1.
pub const POLICY: u16 = 1008;
/// This attempt was refused: wrong secret.
pub const REFUSED: u16 = 4401;
/// Plain form: not paired yet.
pub const NOT_PAIRED: u16 = 4403;
/// The session is not known here, and its nameplate is taken: a new code is needed.
pub const NO_SESSION: u16 = 4404;
/// The waiting time of a session that was never paired is over.
pub const EXPIRED: u16 = 4408;
/// Plain form: this end is connected already.
pub const ALREADY_CONNECTED: u16 = 4409;
/// A newer socket of the same end took over. Do not redial.
pub const REPLACED: u16 = 4410;
/// A client of the first protocol tried this nameplate and may have disclosed the secret: mykube 2 clients only.
pub const UPGRADE: u16 = 4426;
/// Too many sockets or replacements.
pub const TOO_MANY: u16 = 4429;
