//! The slots of a reader for the places of all registrations.
#![allow(unsafe_code, reason = "registers memory on the word of the code that gave it to the node")]

use std::sync::Arc;

use kvrail::{Reader, ReaderTransport, Slot, Slots};
use kvrail_core::memory::RegionError;

use crate::get::destination::{Destination, Registration};
use crate::get::link::Release;

/// The slots of one registration.
pub(super) struct Registered {
    home: Arc<Registration>,
    /// Of each place the slot, while no batch has it.
    places: Vec<Option<Slot>>,
    slots: Slots,
    /// The number of their layout.
    pub(super) layout: u32,
}

impl Registered {
    /// Whether it is the registration of this destination.
    #[inline]
    pub(super) fn is_of(&self, destination: &Destination) -> bool {
        std::ptr::eq(&raw const *self.home, destination.home())
    }

    /// Takes the slot of one of its destinations.
    #[inline]
    pub(super) fn take(&mut self, destination: &Destination) -> Option<Slot> {
        self.places.get_mut(destination.index() as usize)?.take()
    }

    /// Whether a slot is one of its.
    #[inline]
    pub(super) fn has(&self, slot: &Slot) -> bool {
        self.slots.region() == slot.region()
    }

    /// Puts one of its slots back.
    #[inline]
    pub(super) fn put(&mut self, slot: Slot) {
        if let Some(place) = self.places.get_mut(slot.index()) {
            *place = Some(slot);
        }
    }
}

/// The slots of all registrations, by the reader's numbers of their regions.
#[derive(Default)]
pub(super) struct Memory {
    regions: Vec<Option<Registered>>,
    /// The reader's number of each registration of the node.
    of_home: Vec<u32>,
}

const NOT_HERE: u32 = u32::MAX;

impl Memory {
    /// Registers the memory of a node's places with a reader. `layout` is the number of their
    /// layout.
    pub(super) fn register<T: ReaderTransport>(
        &mut self,
        reader: &mut Reader<T>,
        home: Arc<Registration>,
        numa: Option<u8>,
        layout: u32,
    ) -> Result<(), RegionError> {
        // SAFETY: `Registration::new` was promised the same of the memory. Every reader of the node
        // has slots of it, but a place is used by one at a time: its slot goes into a batch only
        // while the node has the place's `Destination`, which is given back when the slot has come
        // back (`Flights`), and no other code gets at the bytes of a slot here.
        let mut slots =
            unsafe { reader.register_foreign_for(&home.layout, &home.regions, home.access, numa) }?;
        let region = slots.region().index();
        let places = slots.by_ref().map(Some).collect();
        if self.regions.len() <= region {
            self.regions.resize_with(region + 1, || None);
        }
        let number = home.number as usize;
        if self.of_home.len() <= number {
            self.of_home.resize(number + 1, NOT_HERE);
        }
        self.of_home[number] = region as u32;
        self.regions[region] = Some(Registered { home, places, slots, layout });
        Ok(())
    }

    /// Releases the memory of a registration, of which no place is in use.
    pub(super) fn unregister<T: ReaderTransport>(
        &mut self,
        reader: &mut Reader<T>,
        home: &Registration,
    ) -> Release {
        let Some(region) = self.of_home.get_mut(home.number as usize) else { return Release::NotHere };
        let Some(place) = self.regions.get_mut(*region as usize) else { return Release::NotHere };
        let Some(Registered { home, places, mut slots, layout }) = place.take() else {
            return Release::NotHere;
        };
        let (missing, places): (Vec<_>, Vec<_>) = places.into_iter().partition(Option::is_none);
        for slot in places.into_iter().flatten() {
            // They are this region's.
            let _ = slots.put(slot);
        }
        if missing.is_empty() {
            *region = NOT_HERE;
            return match reader.unregister(slots) {
                Ok(_) => Release::Released,
                Err(_) => Release::SlotLost,
            };
        }
        *place = Some(Registered { home, places: Vec::new(), slots, layout });
        Release::SlotLost
    }

    /// The slots of a destination's registration.
    #[inline]
    pub(super) fn of(&mut self, destination: &Destination) -> Option<&mut Registered> {
        let region = *self.of_home.get(destination.home().number as usize)?;
        self.regions.get_mut(region as usize)?.as_mut()
    }

    /// The slots among which a slot is.
    #[inline]
    pub(super) fn of_slot(&mut self, slot: &Slot) -> Option<&mut Registered> {
        self.regions.get_mut(slot.region().index())?.as_mut()
    }

    /// Takes the slot of a destination, and the number of its layout.
    #[inline]
    pub(super) fn take(&mut self, destination: &Destination) -> Option<(Slot, u32)> {
        let registered = self.of(destination)?;
        let slot = registered.take(destination)?;
        Some((slot, registered.layout))
    }

    /// Puts a slot back that no batch has any more.
    #[inline]
    pub(super) fn put(&mut self, slot: Slot) {
        if let Some(registered) = self.of_slot(&slot) {
            registered.put(slot);
        }
    }
}
