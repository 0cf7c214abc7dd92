//! Memory that pages land in.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use kvrail::PageLayout;
use kvrail_core::memory::{Access, DestinationRegion};
use kvrail_core::provider::MemoryRange;

use super::Node;
use super::error::{RegisterMemoryError, UnregisterMemoryError};
use crate::get::destination::{Destinations, Life, Registration};
use crate::get::link::{Command, Release};

impl Node {
    /// Makes places for pages of `layout` of memory that lives for ever, with all readers.
    ///
    /// # Errors
    ///
    /// The node does not read the layout, the memory holds no page, or a reader refused it or did
    /// not answer.
    pub fn register(
        &self,
        layout: &PageLayout,
        memory: &'static mut [u8],
    ) -> Result<Destinations, RegisterMemoryError> {
        let (bytes, page) = (memory.len() as u64, layout.page_bytes());
        let count = bytes / u64::from(page);
        if count == 0 {
            return Err(RegisterMemoryError::TooSmall { bytes, page });
        }
        let mut addr = memory.as_mut_ptr().expose_provenance() as u64;
        let regions = (0..layout.regions()).filter_map(|region| layout.geometry().region_bytes(region));
        let regions: Vec<_> = regions
            .map(|stride| {
                let range = MemoryRange { addr, len: stride * count };
                addr += stride * count;
                DestinationRegion { range, stride }
            })
            .collect();
        // SAFETY: the memory was borrowed for ever, so it is valid, initialised, and no other code
        // has it; the regions lie one behind the other within it.
        unsafe { self.register_foreign(layout, &regions, Access::Host, None) }
    }

    /// Makes places for pages of `layout` of foreign memory: an inference engine's, pinned memory,
    /// a GPU's. `regions` says where place 0 of each region of the layout is, and how far places
    /// are apart; `numa` is the memory's node, where known.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register). After [`RegisterMemoryError::NoAnswer`] a reader may have
    /// registered the memory, or do so when it goes on. It releases it then, but nothing says when.
    ///
    /// # Safety
    ///
    /// Until [`unregister`](Self::unregister) has given it back (for ever, if it never does) the
    /// memory of the places is valid, belongs to the places alone, and is not unmapped. With
    /// [`Access::Host`] it is readable and writable by the CPU, and initialised.
    pub unsafe fn register_foreign(
        &self,
        layout: &PageLayout,
        regions: &[DestinationRegion],
        access: Access,
        numa: Option<u8>,
    ) -> Result<Destinations, RegisterMemoryError> {
        if !self.shared.layouts.contains(layout) {
            return Err(RegisterMemoryError::Layout { layout: Box::new(*layout) });
        }
        let page = layout.page_bytes();
        let places = |(region, at): (u32, &DestinationRegion)| {
            let bytes = layout.geometry().region_bytes(region).unwrap_or(u64::MAX);
            at.range.len.checked_sub(bytes).map_or(0, |rest| rest / at.stride.max(1) + 1)
        };
        // The readers refuse regions that hold different numbers of places.
        let count = (0..).zip(regions).map(places).min().unwrap_or(0);
        let bytes = regions.iter().map(|region| region.range.len).sum();
        let count = u32::try_from(count).ok().filter(|&count| count > 0);
        let count = count.ok_or(RegisterMemoryError::TooSmall { bytes, page })?;
        let number = self.registrations.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same; the readers check that there is a region for
        // each of the layout, and refuse the memory otherwise.
        let home = unsafe { Registration::new((self.shared.node, number), *layout, regions, access, count) };
        let home = Arc::new(home);
        let within = self.register_within;
        let answers = self.command_all(|answer| Command::Register(Arc::clone(&home), numa, answer));
        let until = Instant::now() + within;
        let mut refused = None;
        for _ in self.links.all() {
            match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => refused = Some(error),
                Err(_) => {
                    // Those that have registered it release it, and so does one that comes to it
                    // later: commands are obeyed in their order.
                    drop(self.command_all(|answer| Command::Unregister(Arc::clone(&home), answer)));
                    return Err(RegisterMemoryError::NoAnswer { within });
                }
            }
        }
        match refused {
            None => Ok(Destinations::new(home)),
            Some(error) if self.unregister_home(&home, true) => Err(error.into()),
            Some(_) => Err(RegisterMemoryError::NoAnswer { within }),
        }
    }

    /// Gives all readers a command. Each answers once, or drops its sender.
    fn command_all<A>(&self, command: impl Fn(SyncSender<A>) -> Command) -> Receiver<A> {
        let readers = self.links.all();
        let (answer, answers) = sync_channel(readers.len());
        readers.iter().for_each(|link| link.command(command(answer.clone())));
        answers
    }

    /// Releases memory that was registered. All places must be free. When this has returned no
    /// reader uses the memory, no place of it is given out any more, and it can be unmapped. Of
    /// several threads that call it for the same memory one releases it, and the others wait for
    /// that and are told the outcome.
    ///
    /// # Errors
    ///
    /// A place is not free ([`Busy`](UnregisterMemoryError::Busy)), and nothing has changed; the
    /// memory is another node's, or was released before; or a reader did not release it
    /// ([`NotReleased`](UnregisterMemoryError::NotReleased), also at each later call), and the
    /// memory must not be used again.
    pub fn unregister(&self, destinations: &Destinations) -> Result<(), UnregisterMemoryError> {
        let home = destinations.home();
        if home.node != self.shared.node {
            return Err(UnregisterMemoryError::OtherNode);
        }
        let mut life = home.life();
        match *life {
            Life::Open => {}
            Life::Released => return Err(UnregisterMemoryError::Released),
            Life::NotReleased => return Err(UnregisterMemoryError::NotReleased),
        }
        if let Some(index) = home.close() {
            return Err(UnregisterMemoryError::Busy { index });
        }
        // Should the thread panic below, a later call must not think that the memory is released.
        *life = Life::NotReleased;
        if !self.unregister_home(home, false) {
            return Err(UnregisterMemoryError::NotReleased);
        }
        *life = Life::Released;
        Ok(())
    }

    /// Has all readers release a registration. Returns whether all have; `partly`: some readers
    /// never had it.
    fn unregister_home(&self, home: &Arc<Registration>, partly: bool) -> bool {
        let answers = self.command_all(|answer| Command::Unregister(Arc::clone(home), answer));
        let until = Instant::now() + self.register_within;
        let answer = |_| answers.recv_timeout(until.saturating_duration_since(Instant::now()));
        let good = |answer| match answer {
            Ok(Release::Released) => true,
            Ok(Release::NotHere) => partly,
            Ok(Release::SlotLost) | Err(_) => false,
        };
        // Every answer is waited for.
        self.links.all().iter().map(answer).filter(|&answer| !good(answer)).count() == 0
    }
}
