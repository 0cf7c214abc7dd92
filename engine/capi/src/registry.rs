//! Handles that are numbers: a caller in C gets one as a pointer that is never followed, so every
//! handle that is closed, or none, is recognised.
//!
//! A child of a fork has a copy of its parent's handles, and a thread of the parent may have held
//! their lock when it forked: that lock is taken for ever in the child. So the child's own handles
//! are in a table of their own, and it waits for no lock of its parent's.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use kvrail_host::descriptors::OwnerProcess;

use crate::error::CapiError;

/// The bits of a handle's place. The others count the lives of the place.
const PLACE_BITS: u32 = 20;
/// Handles are multiples of this, as addresses are.
const ALIGN: usize = 16;
/// The largest number of a life that fits a handle.
const LAST_LIFE: usize = (usize::MAX / ALIGN) >> PLACE_BITS;

/// The open handles of one kind.
pub(crate) struct Registry<T> {
    what: &'static str,
    table: OnceLock<Table<T>>,
}

/// The handles that one process has opened.
struct Table<T> {
    maker: OwnerProcess,
    /// The number of the first place: below are those of the processes that this one is a fork of.
    first: usize,
    /// The number behind the last place.
    end: AtomicUsize,
    places: RwLock<Vec<Place<T>>>,
    /// The table of a child of a fork, which only the child makes.
    of_child: OnceLock<Box<Table<T>>>,
}

struct Place<T> {
    /// How often the place has been used, from 1.
    life: usize,
    value: Option<Arc<T>>,
}

impl<T> Table<T> {
    fn starting_at(first: usize) -> Self {
        let (end, places) = (AtomicUsize::new(first), RwLock::new(Vec::new()));
        Self { maker: OwnerProcess::current(), first, end, places, of_child: OnceLock::new() }
    }

    /// The places, to look at; `None` in a child of a fork that found the lock taken.
    fn read(&self) -> Option<RwLockReadGuard<'_, Vec<Place<T>>>> {
        if self.maker.is_current() {
            return Some(self.places.read().unwrap_or_else(PoisonError::into_inner));
        }
        match self.places.try_read() {
            Ok(places) => Some(places),
            Err(TryLockError::Poisoned(places)) => Some(places.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The places, to change; `None` in a child of a fork that found the lock taken.
    fn write(&self) -> Option<RwLockWriteGuard<'_, Vec<Place<T>>>> {
        if self.maker.is_current() {
            return Some(self.places.write().unwrap_or_else(PoisonError::into_inner));
        }
        match self.places.try_write() {
            Ok(places) => Some(places),
            Err(TryLockError::Poisoned(places)) => Some(places.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Registry<T> {
    /// No handle yet. Errors call a handle `what`.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, table: OnceLock::new() }
    }

    /// A handle for `value`, which no other value had or will have.
    pub(crate) fn open<H>(&self, value: T) -> Result<*mut H, CapiError> {
        let mut table = self.table.get_or_init(|| Table::starting_at(0));
        while !table.maker.is_current() {
            let first = table.end.load(Ordering::Relaxed);
            table = table.of_child.get_or_init(|| Box::new(Table::starting_at(first)));
        }
        let mut places = table.write().ok_or(CapiError::OtherProcess { what: self.what })?;
        let free = places.iter().position(|place| place.value.is_none() && place.life < LAST_LIFE);
        let at = free.unwrap_or(places.len());
        if table.first + at >= 1 << PLACE_BITS {
            let allowed = "fewer: close some";
            return Err(CapiError::Value { what: self.what, value: places.len() as u64, allowed });
        }
        if free.is_none() {
            // First, so that a child that is forked now has its own places behind this one.
            table.end.store(table.first + at + 1, Ordering::Relaxed);
            places.push(Place { life: 0, value: None });
        }
        let place = &mut places[at];
        place.life += 1;
        place.value = Some(Arc::new(value));
        Ok(ptr::without_provenance_mut((place.life << PLACE_BITS | (table.first + at)) * ALIGN))
    }

    /// The value of a handle that is open. In a child of a fork it may be that of a handle that a
    /// thread of the parent was closing.
    pub(crate) fn get<H>(&self, handle: *const H) -> Result<Arc<T>, CapiError> {
        let (life, at) = self.split(handle)?;
        let none = || CapiError::Handle { what: self.what };
        let table = self.table_of(at).ok_or_else(none)?;
        let places = table.read().ok_or(CapiError::OtherProcess { what: self.what })?;
        let found = places.get(at - table.first).filter(|place| place.life == life);
        found.and_then(|place| place.value.clone()).ok_or_else(none)
    }

    /// Closes a handle. `None` in a child of a fork where the handle cannot be reached, because a
    /// thread of the parent was using the table.
    pub(crate) fn close<H>(&self, handle: *const H) -> Result<Option<Arc<T>>, CapiError> {
        let (life, at) = self.split(handle)?;
        let none = || CapiError::Handle { what: self.what };
        let table = self.table_of(at).ok_or_else(none)?;
        let Some(mut places) = table.write() else { return Ok(None) };
        let found = places.get_mut(at - table.first).filter(|place| place.life == life);
        found.and_then(|place| place.value.take()).map(Some).ok_or_else(none)
    }

    /// The table that has place `at`, if there is one.
    fn table_of(&self, at: usize) -> Option<&Table<T>> {
        let mut table = self.table.get()?;
        while let Some(next) = table.of_child.get().filter(|next| next.first <= at) {
            table = next;
        }
        Some(table)
    }

    fn split<H>(&self, handle: *const H) -> Result<(usize, usize), CapiError> {
        let number = handle.addr();
        match number {
            0 => Err(CapiError::Null { what: self.what }),
            _ if !number.is_multiple_of(ALIGN) => Err(CapiError::Handle { what: self.what }),
            _ => {
                let number = number / ALIGN;
                Ok((number >> PLACE_BITS, number & ((1 << PLACE_BITS) - 1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_handle_is_recognised_also_when_its_place_is_used_again() {
        let registry = Registry::<u32>::new("thing");
        let one: *mut u8 = registry.open(1).unwrap();
        assert_eq!(*registry.get(one).unwrap(), 1);
        assert_eq!(registry.close(one).unwrap().as_deref(), Some(&1));
        let two: *mut u8 = registry.open(2).unwrap();
        assert_eq!(registry.get(one).unwrap_err().code(), 8005);
        assert_eq!(registry.close(one).unwrap_err().code(), 8005);
        assert_eq!(*registry.get(two).unwrap(), 2);
        assert_eq!(registry.get(two.wrapping_add(1)).unwrap_err().code(), 8005);
        assert_eq!(registry.get(ptr::null::<u8>()).unwrap_err().code(), 8000);
        assert_eq!(registry.get(ptr::without_provenance::<u8>(usize::MAX & !15)).unwrap_err().code(), 8005);
    }
}
