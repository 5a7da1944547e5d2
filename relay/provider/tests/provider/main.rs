//! Identity providers over real sockets: two independent real ones, one that lies, and a GitHub.

mod forged;
mod github;
mod hostile;
mod real;
mod support;
