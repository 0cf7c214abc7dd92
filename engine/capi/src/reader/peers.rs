//! Connects, events, and what a peer has published.

use std::mem::MaybeUninit;

use engine::core::plan::PlanRef;
use engine::layouts::Plan;
use engine::{
    Address, MAX_LISTED, PageLayout, PeerKeys, PeerPool, Reader, ReaderEvent, ReaderTransport, Time,
};

use super::tables::Tables;
use crate::abi::constants::{
    KVRAIL_EVENT_CONNECTED, KVRAIL_EVENT_LOST, KVRAIL_EVENT_NOT_CONNECTED, KVRAIL_EVENT_POOL_CAME,
    KVRAIL_EVENT_POOL_GONE, KVRAIL_EVENT_POOL_REFUSED,
};
use crate::abi::publisher_types::kvrail_location;
use crate::abi::reader_types::{kvrail_event, kvrail_peer_pool, kvrail_peer_stats, kvrail_rail_stats};
use crate::error::CapiError;
use crate::publisher::c_location;
use crate::status;

/// Where a reader connects, and for what.
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) keys: PeerKeys,
    /// None for the reader's own layout.
    pub(crate) layouts: Vec<PageLayout>,
}

impl Target {
    fn layouts(&self, tables: &Tables) -> Vec<PageLayout> {
        if self.layouts.is_empty() { vec![tables.layout] } else { self.layouts.clone() }
    }
}

/// Connects, and waits for it. Returns the peer's number.
pub(crate) fn connect<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    target: &Target,
) -> Result<u32, CapiError> {
    let layouts = target.layouts(tables);
    let peer = reader.connect_for(&target.address, &target.keys, &layouts)?;
    Ok(tables.peers.add(peer))
}

/// Begins to connect. Returns the number of the connect.
pub(crate) fn begin_connect<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    target: &Target,
) -> Result<u64, CapiError> {
    let layouts = target.layouts(tables);
    let connecting = reader.begin_connect(&target.address, &target.keys, &layouts)?;
    let number = tables.next_connecting;
    tables.next_connecting += 1;
    tables.connecting.push((number, connecting));
    Ok(number)
}

/// Gives a connect up. Returns whether there was anything to give up.
pub(crate) fn abandon<T: ReaderTransport>(reader: &mut Reader<T>, tables: &mut Tables, number: u64) -> bool {
    let at = tables.connecting.iter().position(|(known, _)| *known == number);
    at.is_some_and(|at| reader.abandon(tables.connecting.swap_remove(at).1))
}

/// Ends the session with a peer.
pub(crate) fn disconnect<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    peer: u32,
) -> Result<(), CapiError> {
    let peer = tables.peers.remove(peer)?;
    tables.takings.forget(peer.id());
    reader.disconnect(&peer);
    Ok(())
}

/// The next event.
pub(crate) fn next_event<T: ReaderTransport>(reader: &mut Reader<T>, tables: &mut Tables) -> kvrail_event {
    while let Some(event) = reader.next_event() {
        if let Some(event) = translate(event, tables) {
            return event;
        }
    }
    kvrail_event::default()
}

/// An event in C; `None` if it is of a peer that the caller has given up.
fn translate(event: ReaderEvent, tables: &mut Tables) -> Option<kvrail_event> {
    let mut ended = |connecting| {
        let at = tables.connecting.iter().position(|(_, known)| *known == connecting);
        at.map_or(0, |at| tables.connecting.swap_remove(at).0)
    };
    let none = kvrail_event::default();
    match event {
        ReaderEvent::Connected { connecting, peer } => {
            let connecting = ended(connecting);
            let peer = tables.peers.add(peer);
            Some(kvrail_event { kind: KVRAIL_EVENT_CONNECTED, peer, connecting, ..none })
        }
        ReaderEvent::NotConnected { connecting, error } => {
            let connecting = ended(connecting);
            let status = status::report(&error.into());
            Some(kvrail_event { kind: KVRAIL_EVENT_NOT_CONNECTED, connecting, status, ..none })
        }
        ReaderEvent::PoolCame { peer, pool } => {
            let (peer, pools) = tables.peers.known(peer)?;
            let id = pool.id().0;
            pools.push(pool);
            Some(kvrail_event { kind: KVRAIL_EVENT_POOL_CAME, peer, pool: id, ..none })
        }
        ReaderEvent::PoolGone { peer, pool } => {
            let (peer, pools) = tables.peers.known(peer)?;
            pools.retain(|known| known.id() != pool);
            Some(kvrail_event { kind: KVRAIL_EVENT_POOL_GONE, peer, pool: pool.0, ..none })
        }
        ReaderEvent::PoolRefused { peer, pool, why } => {
            let (peer, _) = tables.peers.known(peer)?;
            status::note(&why);
            let status = i32::try_from(why.code()).unwrap_or(i32::MAX);
            Some(kvrail_event { kind: KVRAIL_EVENT_POOL_REFUSED, peer, pool: pool.0, status, ..none })
        }
        ReaderEvent::Lost { peer, why, .. } => {
            tables.takings.forget(peer);
            let (peer, _) = tables.peers.known(peer)?;
            let _ = tables.peers.remove(peer);
            status::note(&why);
            let status = i32::try_from(why.code()).unwrap_or(i32::MAX);
            Some(kvrail_event { kind: KVRAIL_EVENT_LOST, peer, status, ..none })
        }
        // Events of later versions have no number here yet.
        _ => None,
    }
}

/// The pools of a peer, as many as fit. Returns how many there are.
pub(crate) fn pools(
    tables: &Tables,
    peer: u32,
    out: &mut [MaybeUninit<kvrail_peer_pool>],
) -> Result<usize, CapiError> {
    let pools = &tables.peers.get(peer)?.pools;
    for (place, pool) in out.iter_mut().zip(pools) {
        let layout = pool.layout();
        place.write(kvrail_peer_pool {
            pool: pool.id().0,
            reserved: 0,
            slots: pool.slots(),
            page_bytes: layout.page_bytes.get(),
            fingerprint: layout.fingerprint.to_bytes(),
        });
    }
    Ok(pools.len())
}

/// The pages that a peer has published in the slots from `first` on, `slots` of them at most. Calls
/// `found` for each.
pub(crate) fn published<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &Tables,
    (peer, pool): (u32, u32),
    (first, slots): (u32, u32),
    deadline: Time,
    mut found: impl FnMut(kvrail_location),
) -> Result<(), CapiError> {
    let known = tables.peers.get(peer)?;
    // The reader lists by the regions of all pools, in the order in which the peer offered them.
    let before = |all: &[PeerPool]| all.iter().map(|pool| pool.regions().len()).sum::<usize>();
    let at = known.peer.pools().iter().position(|known| known.id().0 == pool);
    let at = at.ok_or(CapiError::Pool { pool })?;
    let (earlier, later) = known.peer.pools().split_at(at);
    let (region, pieces) = (before(earlier), later[0].regions());
    let (mut base, end) = (0_u64, u64::from(first) + u64::from(slots.min(MAX_LISTED)));
    for (number, piece) in (region..).zip(pieces) {
        let behind = base + u64::from(piece.slots());
        let (from, to) = (u64::from(first).max(base), end.min(behind));
        if from < to {
            // Both are within the piece.
            let range = (from - base) as u32..(to - base) as u32;
            for mut location in reader.published_in(&known.peer, number, range, deadline)? {
                location.slot += base as u32;
                found(c_location(pool, location));
            }
        }
        base = behind;
    }
    Ok(())
}

/// Adds a plan. Returns its number.
pub(crate) fn add_plan<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    plan: &Plan,
) -> Result<u32, CapiError> {
    let plan = reader.add_plan(plan)?;
    let at = match tables.plans.iter().position(Option::is_none) {
        Some(at) => at,
        None => {
            tables.plans.push(None);
            tables.plans.len() - 1
        }
    };
    tables.plans[at] = Some(plan);
    // An engine has few plans.
    Ok(at as u32 + 1)
}

/// Forgets a plan.
pub(crate) fn forget_plan<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    number: u32,
) -> Result<(), CapiError> {
    let place = (number as usize).checked_sub(1).and_then(|at| tables.plans.get_mut(at));
    let place = place.ok_or(CapiError::Plan { plan: number })?;
    let plan: PlanRef = place.ok_or(CapiError::Plan { plan: number })?;
    reader.forget_plan(plan)?;
    *place = None;
    Ok(())
}

/// The counters of a rail.
pub(crate) fn rail_stats<T: ReaderTransport>(
    reader: &Reader<T>,
    rail: u32,
) -> Result<kvrail_rail_stats, CapiError> {
    let stats = reader.rail_stats(rail as usize).ok_or(CapiError::Value {
        what: "rail",
        value: rail.into(),
        allowed: "a rail of the reader (kvrail_reader_info.rails)",
    })?;
    Ok(kvrail_rail_stats {
        struct_bytes: 0,
        reserved: 0,
        posted: stats.posted,
        commits: stats.commits,
        completions: stats.completions,
        bytes: stats.bytes,
        chunks: stats.chunks,
        page_faults: stats.page_faults,
        path_faults: stats.path_faults,
        flushed: stats.flushed,
        stale: stats.stale,
        reposted: stats.reposted,
        lanes_failed: stats.lanes_failed,
        lanes_stalled: stats.lanes_stalled,
    })
}

/// The counters of a peer.
pub(crate) fn peer_stats<T: ReaderTransport>(
    reader: &Reader<T>,
    tables: &Tables,
    number: u32,
) -> Result<kvrail_peer_stats, CapiError> {
    let peer = &tables.peers.get(number)?.peer;
    let stats = reader.peer_stats(peer).ok_or(CapiError::Peer { peer: number })?;
    Ok(kvrail_peer_stats {
        struct_bytes: 0,
        lanes: u32::try_from(reader.lanes_to(peer)).unwrap_or(u32::MAX),
        pages: stats.pages,
        bytes: stats.bytes,
        misses: stats.misses,
        faults: stats.faults,
        late: stats.late,
        withdrawn: stats.withdrawn.into(),
        detours: stats.detours.into(),
    })
}
