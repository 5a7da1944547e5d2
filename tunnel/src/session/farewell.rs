//! How the session ends: each end's farewell, and whether it was heard.

/// Which ends have said `bye`.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// One of them has: nothing else is said here.
    over: bool,
    /// The peer has.
    heard: bool,
    /// The number of this end's own message, once it has left.
    sent_m: Option<u64>,
}

impl Farewell {
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// This end has decided to go. Gives whether that is new.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.over, true)
    }

    /// This end's farewell leaves, as the message of that number.
    pub(super) fn handle_sent(&mut self, m: u64) {
        self.sent_m = Some(m);
    }

    /// The peer's came.
    pub(super) fn handle_heard(&mut self) {
        (self.over, self.heard) = (true, true);
    }

    pub(super) fn is_heard(&self) -> bool {
        self.heard
    }

    /// Whether one end has said it and the other has it; `is_acked` says which messages of this end the peer has.
    pub(super) fn is_complete(&self, is_acked: impl FnOnce(u64) -> bool) -> bool {
        self.over && (self.heard || self.sent_m.is_some_and(is_acked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_leaves_is_through_when_its_farewell_is_acknowledged() {
        let (mut farewell, has) = (Farewell::default(), |acked| move |m| m < acked);
        assert!(!farewell.is_over() && farewell.begin() && !farewell.begin());
        assert!(farewell.is_over() && !farewell.is_complete(has(99)), "it has not left");
        farewell.handle_sent(4);
        assert!(!farewell.is_complete(has(4)) && farewell.is_complete(has(5)));
    }

    #[test]
    fn one_that_has_heard_the_other_says_nothing_more() {
        let mut farewell = Farewell::default();
        farewell.handle_heard();
        assert!(farewell.is_heard() && farewell.is_over() && farewell.is_complete(|_| false));
        assert!(!farewell.begin());
    }
}
