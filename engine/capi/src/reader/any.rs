//! A reader of any transport that the build has.

use std::mem::MaybeUninit;

use engine::core::id::MAX_RAILS;
use engine::macro_support::{self, Room, start_in};
use engine::shm::ShmRails;
use engine::tcp::TcpRails;
#[cfg(feature = "verbs")]
use engine::verbs::VerbsRails;
use engine::{Config, Reader, ReaderTransport, shm, tcp};

use super::config::Start;
use crate::error::CapiError;
use crate::transport::Transport;

/// A reader of any transport. It stays where it is made.
#[cfg_attr(feature = "verbs", allow(clippy::large_enum_variant, reason = "a reader is kept in one place"))]
pub(crate) enum AnyReader {
    Shm(Reader<ShmRails>),
    Tcp(Reader<TcpRails>),
    #[cfg(feature = "verbs")]
    Verbs(Reader<VerbsRails>),
}

/// Evaluates an expression for the reader of whichever transport it is.
macro_rules! each {
    ($any:expr, $reader:ident => $call:expr) => {
        match $any {
            $crate::reader::any::AnyReader::Shm($reader) => $call,
            $crate::reader::any::AnyReader::Tcp($reader) => $call,
            #[cfg(feature = "verbs")]
            $crate::reader::any::AnyReader::Verbs($reader) => $call,
        }
    };
}
pub(crate) use each;

impl AnyReader {
    /// Starts the reader that `start` describes, with its state in `room`. Returns the names of its
    /// rails, too. After an error nothing uses `room` any more.
    pub(crate) fn start<S: Room>(
        room: &'static mut MaybeUninit<S>,
        start: Start,
    ) -> Result<(Self, Vec<String>), CapiError> {
        Ok(match start.transport.clone() {
            Transport::Shm { rails } => {
                let (reader, names) = over(room, shm::rails(rails)?, start)?;
                (Self::Shm(reader), names)
            }
            Transport::Tcp { rails, .. } => {
                let (reader, names) = over(room, tcp::rails(rails)?, start)?;
                (Self::Tcp(reader), names)
            }
            #[cfg(feature = "verbs")]
            Transport::Verbs { spec } => {
                let (reader, names) = over(room, engine::verbs::rails(&spec)?, start)?;
                (Self::Verbs(reader), names)
            }
        })
    }

    /// Ends the reader. Returns whether nothing can reach its state and its slots any more.
    pub(crate) fn end(self) -> bool {
        each!(self, reader => macro_support::end(reader))
    }
}

/// Starts a reader over `rails`.
fn over<S: Room, T: ReaderTransport>(
    room: &'static mut MaybeUninit<S>,
    rails: T,
    start: Start,
) -> Result<(Reader<T>, Vec<String>), CapiError> {
    let Start { layout, max_rails, config, numbers, .. } = start;
    let mut names: Vec<_> = (0..MAX_RAILS).map(|rail| rails.name(rail)).collect();
    let config = Config { engine: Some(numbers.of(rails.engine_config())), ..config };
    let reader = start_in(room, layout, rails, config, max_rails)?;
    names.truncate(reader.rails());
    Ok((reader, names))
}
