//! The start of a reader in a state on the heap.
#![allow(unsafe_code, reason = "a state out of a box, which the reader gives back when it ends")]

use std::ptr::NonNull;

use kvrail_core::id::MAX_RAILS;

use super::Reader;
use super::config::{Config, StartError};
use super::state::{MANY_PEERS, MAX_PEERS, OwnedState, Room, boxed};
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

impl<T: ReaderTransport> Reader<T> {
    /// Starts an engine for pages of `layout` over `rails`.
    ///
    /// # Errors
    ///
    /// A number of `config` cannot work, or there are too many rails; the error says which.
    pub fn start(layout: PageLayout, rails: T, config: Config) -> Result<Self, StartError> {
        match config.peers {
            0..=MAX_PEERS => Self::start_boxed(layout, rails, config, OwnedState::Few),
            _ => Self::start_boxed(layout, rails, config, OwnedState::Many),
        }
    }

    /// Starts an engine in a state on the heap, which `keep` holds until the reader ends.
    fn start_boxed<S: Room>(
        layout: PageLayout,
        rails: T,
        config: Config,
        keep: fn(NonNull<S>) -> OwnedState,
    ) -> Result<Self, StartError> {
        if config.peers > MANY_PEERS {
            return Err(StartError::TooManyPeers { peers: config.peers, max: MANY_PEERS });
        }
        let owned = NonNull::from(Box::leak(boxed::<S>()));
        // SAFETY: leaked just now, so this is the only reference. It is given back in `drop` alone,
        // when engine and buffers are gone.
        let state = unsafe { &mut *owned.as_ptr() };
        let engine_config = config.engine.unwrap_or_else(|| rails.engine_config());
        match Self::begin(state, layout, rails, config, engine_config, MAX_RAILS) {
            Ok(mut reader) => {
                reader.owned_state = Some(keep(owned));
                Ok(reader)
            }
            Err(error) => {
                // SAFETY: out of a box, and there is no engine that could have kept the reference.
                drop(unsafe { Box::from_raw(owned.as_ptr()) });
                Err(error)
            }
        }
    }
}
