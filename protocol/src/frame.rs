//! The first byte of every binary frame is its type.

/// Agent to client: public keys, commitment. JSON.
pub const HELLO_AGENT: u8 = 1;
/// Client to agent: public keys. JSON.
pub const HELLO_CLIENT: u8 = 2;
/// Client to agent: resume (docs/protocol.md, "Resume").
pub const ATTACH_CLIENT: u8 = 3;
/// Agent to client: resume.
pub const ATTACH_AGENT: u8 = 4;
/// An encrypted record.
pub const RECORD: u8 = 5;

/// Messages inside a record: `kind:u8 || len:u32be || body`.
pub mod kind {
    /// The rest of the record is padding.
    pub const PADDING: u8 = 0;
    /// Handshake and resume values.
    pub const HANDSHAKE: u8 = 1;
    /// Control text, numbered.
    pub const CONTROL: u8 = 2;
    /// Stream data, `id:u32be || payload`, numbered.
    pub const DATA: u8 = 3;
    /// `ack`, `ping`, `pong`, `rekey`: unnumbered, never sent again.
    pub const UPKEEP: u8 = 4;
    /// `last:u8 || JSON part`, numbered.
    pub const WELCOME: u8 = 5;
}
