//! The best of the newest values, in two half-windows.

/// Keeps the best value of each of the newest two half-windows: what it gives is between one and two of them old at most.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Windowed<T> {
    old: Option<T>,
    new: Option<T>,
    turned: u64,
}

impl<T: Copy> Windowed<T> {
    /// Takes a value at `at`, where a half-window is `half` long; both in a unit of the caller's choice.
    pub(super) fn add(&mut self, at: u64, half: u64, value: T, better: impl Fn(T, T) -> bool) {
        if at >= self.turned + half {
            self.old = if at >= self.turned + 2 * half { None } else { self.new };
            self.new = None;
            self.turned = at;
        }
        if self.new.is_none_or(|best| better(value, best)) {
            self.new = Some(value);
        }
    }

    pub(super) fn best(&self, better: impl Fn(T, T) -> bool) -> Option<T> {
        match (self.old, self.new) {
            (Some(old), Some(new)) => Some(if better(old, new) { old } else { new }),
            (old, new) => new.or(old),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lasts_for_one_half_window_at_least_and_for_two_at_most() {
        let mut filter = Windowed::default();
        let (more, best) = (|a, b| a > b, |filter: &Windowed<u64>| filter.best(|a, b| a > b));
        assert_eq!(best(&filter), None);
        filter.add(0, 10, 7, more);
        filter.add(9, 10, 9, more);
        assert_eq!(best(&filter), Some(9));
        filter.add(10, 10, 1, more);
        assert_eq!(best(&filter), Some(9), "of the half before");
        filter.add(20, 10, 2, more);
        assert_eq!(best(&filter), Some(2));
        filter.add(39, 10, 1, more);
        assert_eq!(best(&filter), Some(2), "of the half before, however late the next began");
        filter.add(59, 10, 0, more);
        assert_eq!(best(&filter), Some(0), "both are over");
    }
}
