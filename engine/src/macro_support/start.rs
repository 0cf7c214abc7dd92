//! How a declared reader starts.
#![allow(unsafe_code, reason = "the state that was taken is given to an engine")]

use std::mem::MaybeUninit;

use kvrail_core::config::EngineConfig;

use super::declaration::Maxima;
use super::declared_reader::{Declared, DeclaredPage};
use crate::layout::PageLayout;
use crate::reader::Reader;
use crate::reader::config::{Config, StartError};
use crate::reader::state::{Room, made_in};
use crate::reader::storage::TakenStorage;
use crate::transport::ReaderTransport;

/// Starts a declared reader, for the declared page at the rank that `layout` has, and for the other
/// declared pages.
///
/// # Errors
///
/// The pages are not the declared ones, there are more rails than declared, or a number of `config`
/// cannot work or is not the declared one. The storage can be taken again.
pub fn start<R: Declared, T: ReaderTransport>(
    taken: TakenStorage<R::State>,
    layout: PageLayout,
    others: &[PageLayout],
    rails: T,
    config: Config,
) -> Result<Reader<T>, StartError> {
    let DeclaredPage { name, fingerprint: expected } = R::PAGE;
    let (given, found) = (layout.name(), layout.identity().fingerprint_of_any_rank());
    if found != expected {
        return Err(StartError::OtherPage { name, expected, given, found });
    }
    let engine_config = engine_config(&R::MAXIMA, config.engine, rails.engine_config())?;
    let max_rails = R::MAXIMA.rails;
    let begin = |state| {
        let mut reader = Reader::begin(state, layout, rails, config, engine_config, max_rails)?;
        reader.declared(others, R::MAXIMA.plans);
        Ok(reader)
    };
    // SAFETY: if `begin` fails, nothing uses the state any more.
    unsafe { taken.start(begin) }
}

/// Starts a reader whose whole state is `room`, over `max_rails` rails at most: for a caller in
/// another language, which gives the memory and its maxima while the program runs. After an error
/// nothing uses `room` any more.
///
/// # Errors
///
/// As [`Reader::start`].
pub fn start_in<S: Room, T: ReaderTransport>(
    room: &'static mut MaybeUninit<S>,
    layout: PageLayout,
    rails: T,
    config: Config,
    max_rails: usize,
) -> Result<Reader<T>, StartError> {
    let engine_config = config.engine.unwrap_or_else(|| rails.engine_config());
    Reader::begin(made_in(room), layout, rails, config, engine_config, max_rails)
}

/// Ends a reader as dropping it does. Returns whether nothing can reach its state any more: then
/// the memory of a state that [`start_in`] was given is the caller's again. Otherwise it must stay
/// as it is until the process ends.
#[must_use = "the state's memory is free, or it must stay"]
pub fn end<T: ReaderTransport>(mut reader: Reader<T>) -> bool {
    reader.end()
}

/// The engine's configuration: `chosen`, which must agree with the declared numbers; or else the
/// one that suits the rails, with the declared numbers in it.
fn engine_config(
    m: &Maxima,
    chosen: Option<EngineConfig>,
    rails: EngineConfig,
) -> Result<EngineConfig, StartError> {
    let Some(chosen) = chosen else { return Ok(m.over(rails)) };
    let said = [
        ("chunk", "chunk_bytes", m.chunk, u64::from(chosen.chunk_bytes)),
        ("rail_bytes", "rail_bytes", m.rail_bytes, chosen.rail_bytes),
        ("rail_wrs", "rail_wrs", m.rail_wrs, u64::from(chosen.rail_wrs)),
    ];
    for (key, field, number, configured) in said {
        if let Some(number) = number.map(|number| number as u64)
            && number != configured
        {
            return Err(StartError::NotAsDeclared { key, number, field, configured });
        }
    }
    let chunk_bytes = chosen.chunk_bytes;
    match m.too_long(chunk_bytes) {
        Some((wrs, room)) => Err(StartError::BatchTooLong { chunk_bytes, wrs, room }),
        None => Ok(chosen),
    }
}
