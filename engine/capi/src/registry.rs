//! Handles that are numbers: a caller in C gets one as a pointer that is never followed, so every
//! handle that is closed, or none, is recognised.

use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};

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
    places: RwLock<Vec<Place<T>>>,
}

struct Place<T> {
    /// How often the place has been used, from 1.
    life: usize,
    value: Option<Arc<T>>,
}

impl<T> Registry<T> {
    /// No handle yet. Errors call a handle `what`.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, places: RwLock::new(Vec::new()) }
    }

    /// A handle for `value`, which no other value had or will have.
    pub(crate) fn open<H>(&self, value: T) -> Result<*mut H, CapiError> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let free = places.iter().position(|place| place.value.is_none() && place.life < LAST_LIFE);
        let at = match free {
            Some(at) => at,
            None if places.len() < 1 << PLACE_BITS => {
                places.push(Place { life: 0, value: None });
                places.len() - 1
            }
            None => {
                let allowed = "fewer: close some";
                return Err(CapiError::Value { what: self.what, value: places.len() as u64, allowed });
            }
        };
        let place = &mut places[at];
        place.life += 1;
        place.value = Some(Arc::new(value));
        Ok(ptr::without_provenance_mut((place.life << PLACE_BITS | at) * ALIGN))
    }

    /// The value of a handle that is open.
    pub(crate) fn get<H>(&self, handle: *const H) -> Result<Arc<T>, CapiError> {
        let (life, at) = self.split(handle)?;
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let found = places.get(at).filter(|place| place.life == life);
        found.and_then(|place| place.value.clone()).ok_or(CapiError::Handle { what: self.what })
    }

    /// Closes a handle.
    pub(crate) fn close<H>(&self, handle: *const H) -> Result<Arc<T>, CapiError> {
        let (life, at) = self.split(handle)?;
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let found = places.get_mut(at).filter(|place| place.life == life);
        found.and_then(|place| place.value.take()).ok_or(CapiError::Handle { what: self.what })
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
        assert_eq!(*registry.close(one).unwrap(), 1);
        let two: *mut u8 = registry.open(2).unwrap();
        assert_eq!(registry.get(one).unwrap_err().code(), 8005);
        assert_eq!(registry.close(one).unwrap_err().code(), 8005);
        assert_eq!(*registry.get(two).unwrap(), 2);
        assert_eq!(registry.get(two.wrapping_add(1)).unwrap_err().code(), 8005);
        assert_eq!(registry.get(ptr::null::<u8>()).unwrap_err().code(), 8000);
        assert_eq!(registry.get(ptr::without_provenance::<u8>(usize::MAX & !15)).unwrap_err().code(), 8005);
    }
}
