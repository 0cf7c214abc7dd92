//! A geometry as text.
//!
//! ```text
//! 515328 bytes in 1 region, 64 tokens, fingerprint 9f12889b78126e109ac9da2e5415397b
//! plane 0 at region 0 + 0: layer 61 every 8448, token 64 every 128
//!   keys       128 x u8    at 0       128 bytes
//! plane 1 at region 0 + 8192: layer 61 every 8448, token 64 every 4
//!   scale        1 x F32   at 0         4 bytes
//! ```

use core::fmt::{Display, Formatter, Result};

use crate::axis::{Axis, Spread};
use crate::fingerprint::Fingerprint;
use crate::geometry::{AxisStep, Geometry, Plane};

/// Several lines, without a newline at the end: size, tokens, fingerprint; then each plane with the
/// place of its first row, its axes from the outermost, and the fields of a row. Offsets are bytes.
impl Display for Geometry {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} bytes in {}", self.page_bytes(), Count(self.regions().into(), "region"))?;
        match self.page_bytes().checked_sub(self.payload_bytes()) {
            Some(0) | None => {}
            Some(pad) => write!(f, " ({pad} of padding)")?,
        }
        if self.tokens() > 0 {
            write!(f, ", {}", Count(self.tokens(), "token"))?;
        }
        if self.tokens_per_state() > 1 {
            write!(f, " ({} per state)", self.tokens_per_state())?;
        }
        for (what, number) in
            [("align", self.align()), ("version", self.version().into()), ("swizzle", self.swizzle().into())]
        {
            if number > u64::from(what == "align") {
                write!(f, ", {what} {number}")?;
            }
        }
        write!(f, ", fingerprint {}", Fingerprint::of(self))?;
        for axis in self.axes() {
            match axis.spread {
                Spread::Whole => {}
                Spread::Sharded { ranks, rank: None } => {
                    write!(f, "\n{} {}: one of {ranks} ranks' parts", axis.kind, axis.extent)?;
                }
                Spread::Sharded { ranks, rank: Some(rank) } => {
                    write!(f, "\n{} {}: the part of rank {rank} of {ranks}", axis.kind, axis.extent)?;
                }
                Spread::Replicated { ranks } => {
                    write!(f, "\n{} {}: replicated on {ranks} ranks", axis.kind, axis.extent)?;
                }
                Spread::Stage { first, of } => {
                    write!(f, "\n{} {}: from {first} on, of {of}", axis.kind, axis.extent)?;
                }
            }
        }
        for (p, plane) in self.planes().iter().enumerate() {
            self.plane(f, p, plane)?;
        }
        Ok(())
    }
}

impl Geometry {
    fn plane(&self, f: &mut Formatter<'_>, p: usize, plane: &Plane) -> Result {
        write!(f, "\nplane {p} at region {} + ", plane.region)?;
        match plane.offset {
            Some(offset) => write!(f, "{offset}:")?,
            None => write!(f, "(run time):")?,
        }
        let mut axes = self.by_step(plane);
        let mut before = false;
        while let Some((axis, step)) = axes.next_outermost() {
            write!(f, "{} {} {} ", if before { "," } else { "" }, axis.kind, axis.extent)?;
            before = true;
            match step {
                AxisStep::Shared => write!(f, "shared")?,
                AxisStep::Bytes(bytes) => write!(f, "every {bytes}")?,
                AxisStep::Regions(regions) => write!(f, "every {}", Count(regions.into(), "region"))?,
                AxisStep::Runtime => write!(f, "at run time")?,
            }
        }
        if !before {
            write!(f, " once")?;
        }
        for field in self.fields().iter().filter(|field| field.plane == p) {
            let (name, count, kind) = (field.name, field.count, field.kind);
            let (at, bytes) = (field.offset, field.bytes());
            write!(f, "\n  {name:<8} {count:>5} x {kind:<5} at {at:<5} {bytes:>5} bytes")?;
        }
        Ok(())
    }

    fn by_step<'a>(&'a self, plane: &'a Plane) -> ByStep<'a> {
        ByStep { geometry: self, plane, done: 0 }
    }
}

/// A plane's axes, outermost first: regions, then unknown strides, then the largest stride.
struct ByStep<'a> {
    geometry: &'a Geometry,
    plane: &'a Plane,
    /// A bit for each axis that has been given out.
    done: u32,
}

impl<'a> ByStep<'a> {
    fn next_outermost(&mut self) -> Option<(&'a Axis, AxisStep)> {
        let rank = |step| match step {
            AxisStep::Regions(regions) => (3, u64::from(regions)),
            AxisStep::Runtime => (2, 0),
            AxisStep::Bytes(bytes) => (1, bytes),
            AxisStep::Shared => (0, 0),
        };
        let (geometry, plane, done) = (self.geometry, self.plane, self.done);
        let a = (0..geometry.axis_count)
            .filter(|a| done & (1 << a) == 0)
            // Of two equal steps the first axis wins.
            .rev()
            .max_by_key(|a| rank(plane.steps[*a]))?;
        self.done |= 1 << a;
        Some((&geometry.axes[a], plane.steps[a]))
    }
}

/// A number and its noun, in the plural unless the number is 1.
struct Count(u64, &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}
