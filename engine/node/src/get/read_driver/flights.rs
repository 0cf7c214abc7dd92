//! The batches of READs that are under way.

use kvrail::Ticket;

use super::requests::{PageAt, Row};
use crate::get::destination::Destination;

/// A batch of READs under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) ticket: Option<Ticket>,
    /// Its pages, if they are a row: then `pages` is empty.
    pub(super) row: Option<Row>,
    /// Its pages, each with the place of its owner.
    pub(super) pages: Vec<(PageAt, u32)>,
    /// Destinations of pages whose requests have left. They are given back with the batch.
    pub(super) late: Vec<Destination>,
}

/// All places for batches.
#[derive(Debug)]
pub(super) struct Flights {
    flights: Vec<Flight>,
    free: Vec<u32>,
}

impl Flights {
    /// Places for `count` batches, each of `pages` pages.
    pub(super) fn new(count: usize, pages: usize) -> Self {
        let flight = || Flight { pages: Vec::with_capacity(pages), ..Flight::default() };
        let free = (0..count as u32).rev().collect();
        Self { flights: std::iter::repeat_with(flight).take(count).collect(), free }
    }

    /// How many batches can be sent now.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// How many batches are under way.
    pub(super) fn under_way(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// A place for a batch.
    pub(super) fn claim(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(super) fn get(&mut self, number: u32) -> &mut Flight {
        &mut self.flights[number as usize]
    }

    /// A batch is done: its place is free, and destinations that were left in it are given back.
    /// Its slots have come back before.
    pub(super) fn end(&mut self, number: u32) {
        let flight = &mut self.flights[number as usize];
        flight.ticket = None;
        flight.row = None;
        flight.pages.clear();
        flight.late.clear();
        self.free.push(number);
    }

    /// Gives up all batches: their destinations are never given back, as hardware may still write
    /// there.
    pub(super) fn abandon(&mut self) -> usize {
        let late = self.flights.iter_mut().flat_map(|flight| flight.late.drain(..));
        late.map(std::mem::forget).count()
    }
}
