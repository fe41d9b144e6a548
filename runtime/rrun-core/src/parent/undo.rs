use crate::{Error, Result};

/// What to take back if a later step fails, newest first.
#[derive(Default)]
pub struct Undo<'a> {
    actions: Vec<Box<dyn FnOnce() -> Result<()> + 'a>>,
}

impl<'a> Undo<'a> {
    pub fn push(&mut self, action: impl FnOnce() -> Result<()> + 'a) {
        self.actions.push(Box::new(action));
    }

    /// Takes everything back; every failure on the way is told beside the cause.
    pub fn roll_back(&mut self, cause: Error) -> Error {
        let cleanup: Vec<String> = self.actions.drain(..).rev().filter_map(|action| action().err()).map(|e| e.to_string()).collect();
        if cleanup.is_empty() { cause } else { Error::Unclean { cause: Box::new(cause), cleanup } }
    }
}

impl std::fmt::Debug for Undo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Undo({})", self.actions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn takes_back_newest_first_and_tells_every_failure() {
        let order = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        undo.push(|| {
            order.borrow_mut().push(1);
            Err(Error::state("one"))
        });
        undo.push(|| {
            order.borrow_mut().push(2);
            Ok(())
        });
        let e = undo.roll_back(Error::state("why"));
        drop(undo);
        assert_eq!(e.to_string(), "why (and cleaning up: one)");
        assert_eq!(order.into_inner(), [2, 1]);
    }
}
