//! How a reader makes its ends of lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvrail_core::batch::Class;

use super::balance::{Balance, Counted};
use super::bonding;
use crate::error::VerbsLaneError;
use crate::qp::handle::QpHandle;
use crate::qp::states::{Init, Qp, Rts};
use crate::rail::Rail;
use crate::wire::{BLOB, LaneEnd, RailEnd};

/// The reader's end of a lane whose other end is not known yet. Dropping it destroys the QP.
#[derive(Debug)]
pub struct PendingLane {
    qp: Qp<Init>,
    place: bonding::LanePlace,
    /// `None` where the lane may be of any class.
    counted: Option<Counted>,
}

impl PendingLane {
    /// The place of its rail among `rails`, the dialer's.
    #[must_use]
    pub fn rail_of(&self, rails: &[Arc<Rail>]) -> usize {
        rails.iter().position(|rail| Arc::ptr_eq(rail, self.qp.rail())).unwrap_or(0)
    }
}

/// A connected lane that no engine has opened yet: [`Verbs`](crate::Verbs) does. Dropping it
/// destroys the QP.
#[derive(Debug)]
pub struct UnopenedLane {
    qp: Qp<Rts>,
    class: Class,
    counted: Option<Counted>,
}

impl UnopenedLane {
    /// Send queue entries of the QP, the drain's included.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.rail().depth()
    }

    /// The class of the work that the lane is for; `Urgent` where lanes carry work of both.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    pub(crate) fn rail(&self) -> &Arc<Rail> {
        self.qp.rail()
    }

    pub(crate) fn into_parts(self) -> (QpHandle, Option<Counted>) {
        (self.qp.into_handle(), self.counted)
    }
}

/// Makes the reader's ends of lanes to one producer. Blocks in the kernel: for a control thread.
///
/// Where the configuration marks urgent and background work differently
/// ([`VerbsConfig::divides_classes`](crate::VerbsConfig::divides_classes)), each lane of a rail is
/// made for the class that has fewer lanes there, and for urgent work first. A clone makes lanes to
/// another producer, so it counts them anew.
#[derive(Debug)]
pub struct QpDialer {
    rails: Vec<Arc<Rail>>,
    /// The lanes of each rail that are alive.
    balances: Vec<Balance>,
    made: Arc<Made>,
}

/// How many ends all clones of a dialer have made, of any class and for background work.
#[derive(Debug, Default)]
struct Made {
    all: AtomicU32,
    background: AtomicU32,
}

impl Made {
    /// The place of the next end.
    fn next(&self, class: Class) -> bonding::LanePlace {
        let number = self.all.fetch_add(1, Ordering::Relaxed);
        let of_class = if class == Class::Background {
            self.background.fetch_add(1, Ordering::Relaxed)
        } else {
            number.wrapping_sub(self.background.load(Ordering::Relaxed))
        };
        bonding::LanePlace { number, of_class }
    }
}

impl Clone for QpDialer {
    fn clone(&self) -> Self {
        Self { made: Arc::clone(&self.made), ..Self::new(self.rails.clone()) }
    }
}

impl QpDialer {
    /// Over the rails of an engine: see [`Verbs::ports`](crate::Verbs::ports).
    #[must_use]
    pub fn new(rails: Vec<Arc<Rail>>) -> Self {
        let balances = rails.iter().map(|_| Balance::default()).collect();
        Self { rails, balances, made: Arc::default() }
    }

    /// The rails, in order.
    #[must_use]
    pub fn rails(&self) -> &[Arc<Rail>] {
        &self.rails
    }

    /// Makes this end of a lane from `rail` to the producer's rail at `remote` (64 bytes of a
    /// [`RailEnd`]), and returns what the producer must know of it (64 bytes of a [`LaneEnd`]).
    ///
    /// # Errors
    ///
    /// The two rails cannot reach each other, or the device refuses.
    pub fn prepare(
        &self,
        rail: usize,
        remote: &[u8; BLOB],
    ) -> Result<(PendingLane, [u8; BLOB]), VerbsLaneError> {
        let rails = self.rails.len();
        let found = self.rails.get(rail).zip(self.balances.get(rail));
        let (rail, balance) = found.ok_or_else(|| VerbsLaneError::no_such_rail(rail, rails))?;
        let counted = rail.config().divides_classes().then(|| balance.next());
        let (class, counted) = counted.map_or((Class::Urgent, None), |(class, it)| (class, Some(it)));
        let qp = Qp::new(rail)?.init(&RailEnd::decode(remote)?, class)?;
        let end = qp.end().encode();
        Ok((PendingLane { qp, place: self.made.next(class), counted }, end))
    }

    /// Connects it to the producer's end (64 bytes of a [`LaneEnd`]).
    ///
    /// # Errors
    ///
    /// The bytes do not describe a lane's end, or the device refuses.
    pub fn connect(&self, pending: PendingLane, remote: &[u8; BLOB]) -> Result<UnopenedLane, VerbsLaneError> {
        let PendingLane { qp, place, counted } = pending;
        let class = qp.end().class;
        let qp = qp.ready_to_receive(&LaneEnd::decode(remote)?)?.ready_to_send()?;
        bonding::spread(qp.handle(), place);
        Ok(UnopenedLane { qp, class, counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_numbered_over_all_and_within_their_class() {
        let made = Made::default();
        let [urgent, background] = [Class::Urgent, Class::Background];
        let places = [urgent, background, urgent, background, background, urgent].map(|class| {
            let bonding::LanePlace { number, of_class } = made.next(class);
            (number, of_class)
        });
        assert_eq!(places, [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]);
    }
}
