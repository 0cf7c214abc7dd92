//! Which parts of a remote region are not read for a while, since READs of them have failed.
//!
//! A READ that fails kills its lane, and flushes all wrs of that lane. So memory that fails must
//! not be read again and again. Some *faulty* ranges of a region are remembered one by one; when
//! too many fail, the whole region is set aside. Both end after a while: the memory may be mended
//! by then, and the READ may have failed for another reason.

use heapless::HistoryBuf;

use crate::error::PageError;
use crate::time::{Nanos, Time};
use crate::verbs_abi::WcStatus;

/// How many ranges of one region are remembered. By default a region is set aside before there are
/// more.
const PAGES: usize = 4;

/// The strikes for a suspect: a wr whose completion killed a lane, which may have failed for
/// another reason.
pub(crate) const SUSPECTED: u16 = 1;
/// The strikes for a faulty page for which no suspect has been counted.
pub(crate) const FAULTY: u16 = 2;

/// Memory of a peer that is not read before `until`.
#[derive(Clone, Copy, Debug)]
struct BadRange {
    addr: u64,
    len: u32,
    until: Time,
}

impl BadRange {
    fn overlaps(&self, addr: u64, len: u32) -> bool {
        addr < self.addr.saturating_add(self.len.into()) && self.addr < addr.saturating_add(len.into())
    }
}

/// The faults of a region.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Faulty ranges, which are not read for a while. The oldest is forgotten first.
    pages: HistoryBuf<BadRange, PAGES>,
    /// Ranges whose READ has killed a lane once.
    suspected: HistoryBuf<BadRange, PAGES>,
    /// The weights of all failures within `FaultLimits::time` of each other.
    strikes: u16,
    /// Of the last failure: its time, status and address.
    last: Time,
    status: WcStatus,
    addr: u64,
    /// The whole region is not read before this time.
    aside: Time,
    /// The owner has taken the region back: it is not read any more.
    gone: bool,
}

/// When a region is set aside, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultLimits {
    /// How many faulty pages set the region aside.
    pub(crate) pages: u16,
    /// For how long faults are remembered.
    pub(crate) time: Nanos,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        pages: HistoryBuf::new(),
        suspected: HistoryBuf::new(),
        strikes: 0,
        last: Time::ZERO,
        status: WcStatus::SUCCESS,
        addr: 0,
        aside: Time::ZERO,
        gone: false,
    };

    /// Counts the failure of a wr at `addr` with `weight` strikes. Returns whether that sets the
    /// region aside.
    pub(crate) fn strike(
        &mut self,
        weight: u16,
        (status, addr): (WcStatus, u64),
        now: Time,
        limits: FaultLimits,
    ) -> bool {
        if now.since(self.last) >= limits.time {
            self.strikes = 0;
        }
        self.strikes = self.strikes.saturating_add(weight);
        (self.last, self.status, self.addr) = (now, status, addr);
        let aside = self.strikes >= FAULTY.saturating_mul(limits.pages);
        if aside {
            self.aside = now + limits.time;
        }
        aside
    }

    /// Notes that a wr of `len` bytes at `addr` has killed a lane. Returns whether a wr that
    /// overlaps it has done so before; if not, this range is remembered until `until`.
    pub(crate) fn suspect(&mut self, addr: u64, len: u32, now: Time, until: Time) -> bool {
        if self.suspected.iter().any(|bad| now < bad.until && bad.overlaps(addr, len)) {
            return true;
        }
        self.suspected.write(BadRange { addr, len, until });
        false
    }

    /// Notes that `len` bytes at `addr` are faulty, and are not to be read before `until`.
    pub(crate) fn remember(&mut self, addr: u64, len: u32, until: Time) {
        self.pages.write(BadRange { addr, len, until });
    }

    /// Notes that the owner has taken the region back.
    pub(crate) fn take_back(&mut self) {
        self.gone = true;
    }

    /// Whether the owner has taken the region back.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether the whole region may be read again.
    pub(crate) fn have_expired(&self, now: Time) -> bool {
        now >= self.aside && self.pages.iter().all(|bad| now >= bad.until)
    }

    /// The error of a page of `len` bytes at `addr`, if it is not to be read now.
    pub(crate) fn forbid(&self, addr: u64, len: u32, now: Time) -> Option<PageError> {
        if self.gone {
            return Some(PageError::PoolGone);
        }
        let Self { status, addr: remote_addr, aside, .. } = *self;
        if now < aside {
            return Some(PageError::SetAside { remote_addr, status, whole_region: true, until: aside });
        }
        let mut held = self.pages.iter().filter(|bad| now < bad.until);
        let bad = held.find(|bad| bad.overlaps(addr, len))?;
        Some(PageError::SetAside { remote_addr: bad.addr, status, whole_region: false, until: bad.until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FaultLimits = FaultLimits { pages: 3, time: Nanos::from_secs(30) };
    const WHAT: (WcStatus, u64) = (WcStatus::REM_OP_ERR, 0x1000);

    #[test]
    fn three_faulty_pages_or_six_suspects_set_a_region_aside_for_a_while() {
        for (weight, times) in [(FAULTY, 3), (SUSPECTED, 6)] {
            let mut faults = Faults::NONE;
            for i in 1..times {
                assert!(!faults.strike(weight, WHAT, Time(i), LIMITS));
            }
            assert!(faults.have_expired(Time(times)));
            assert!(faults.strike(weight, WHAT, Time(times), LIMITS));
            let until = Time(times) + LIMITS.time;
            let error = faults.forbid(0x9999, 1, Time(times + 1)).unwrap();
            assert!(matches!(error, PageError::SetAside { whole_region: true, until: u, .. } if u == until));
            assert!(!faults.have_expired(Time(until.0 - 1)) && faults.have_expired(until));
            assert_eq!(faults.forbid(0x9999, 1, until), None);
            assert!(!faults.strike(weight, WHAT, until, LIMITS), "the count begins anew");
        }
    }

    #[test]
    fn a_range_that_has_killed_a_lane_is_remembered_for_a_while() {
        let mut faults = Faults::NONE;
        assert!(!faults.suspect(0x1000, 0x100, Time(1), Time(50)));
        assert!(!faults.suspect(0x1100, 0x100, Time(2), Time(50)), "the range behind it");
        assert!(faults.suspect(0x10FF, 1, Time(49), Time(99)));
        assert!(!faults.suspect(0x1000, 0x100, Time(50), Time(99)), "it has been forgotten");
    }

    #[test]
    fn a_page_is_remembered_by_its_bytes() {
        let mut faults = Faults::NONE;
        faults.remember(0x1000, 0x100, Time(50));
        for (addr, len, held) in
            [(0xF00, 0x100, false), (0xF01, 0x100, true), (0x10FF, 1, true), (0x1100, 9, false)]
        {
            assert_eq!(faults.forbid(addr, len, Time(49)).is_some(), held, "{addr:#x}");
            assert_eq!(faults.forbid(addr, len, Time(50)), None);
        }
        (0..PAGES as u64).for_each(|i| faults.remember(0x2000 + i, 1, Time(50)));
        assert_eq!(faults.forbid(0x1000, 1, Time(1)), None, "the oldest is forgotten first");
    }
}
