//! The rig that runs the suite over the toy.

use std::cell::RefCell;
use std::rc::Rc;

use kvrail_conformance::{Abilities, BYTES, Destination, RemoteBytes, Rig};
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::time::{Nanos, Time};

use super::provider::Toy;
use super::state::{BASE, DEPTH, RKEY, State};

pub struct ToyRig {
    state: Rc<RefCell<State>>,
}

/// Bytes on each side of a destination, for defects that write beside it.
const GUARD: usize = 64;

impl Rig for ToyRig {
    type Provider = Toy;
    const ABILITIES: Abilities = Abilities::ALL;
    const DEPTH: u32 = DEPTH;

    fn new() -> Self {
        Self { state: Rc::new(RefCell::new(State::new(false))) }
    }

    fn slow() -> Option<Self> {
        Some(Self { state: Rc::new(RefCell::new(State::new(true))) })
    }

    fn provider(&mut self) -> Toy {
        Toy { state: Rc::clone(&self.state) }
    }

    fn connect(&mut self, _: &mut Toy, _: RailIndex) {}

    fn remote(&self) -> RemoteBytes {
        RemoteBytes { base: BASE, rkeys: [RKEY; MAX_RAILS] }
    }

    fn destination(&mut self) -> Destination {
        let memory = vec![0; BYTES + 2 * GUARD].leak();
        Destination::new(&mut memory[GUARD..GUARD + BYTES])
    }

    fn now(&self) -> Time {
        Time(self.state.borrow().now)
    }

    fn readable(&self, _: &Toy) -> Option<bool> {
        Some(self.state.borrow().tells())
    }

    fn pass(&mut self, time: Nanos) {
        let mut state = self.state.borrow_mut();
        let until = state.now + time.0;
        state.advance_to(until);
    }
}
