//! The elements of a field: how one number lies in memory.
//!
//! Every type here is a wrapper of bytes: alignment 1, little-endian whatever the machine, any bit
//! pattern valid. So a run of them can be borrowed from a page at any offset. There is no
//! arithmetic: kvrail moves numbers, kernels compute with them. Equality is equality of bits.

use static_assertions::{assert_eq_align, const_assert_eq};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The kind of an element, as it enters a fingerprint.
///
/// The discriminants are part of the fingerprint's definition: they never change and are never
/// reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ElementKind {
    /// Unsigned byte, or a byte that means something else: 1 byte.
    U8 = 1,
    /// Signed byte: 1 byte.
    I8 = 2,
    /// IEEE 754 binary32: 4 bytes.
    F32 = 3,
    /// IEEE 754 binary16: 2 bytes.
    F16 = 4,
    /// bfloat16, the upper half of a binary32: 2 bytes.
    Bf16 = 5,
    /// OCP 8-bit float, 4 bits of exponent, no infinities (`float8_e4m3fn`): 1 byte.
    E4m3 = 6,
    /// OCP 8-bit float, 5 bits of exponent: 1 byte.
    E5m2 = 7,
    /// OCP MX scale, 8 bits of exponent and nothing else: 1 byte.
    Ue8m0 = 8,
    /// Two OCP 4-bit floats (E2M1) in 1 byte, the first in the low nibble.
    Fp4x2 = 9,
}

impl ElementKind {
    /// Bytes of one element: 1, 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::E4m3 | Self::E5m2 | Self::Ue8m0 | Self::Fp4x2 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// The kind as a declaration spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "Bf16",
            Self::E4m3 => "E4m3",
            Self::E5m2 => "E5m2",
            Self::Ue8m0 => "Ue8m0",
            Self::Fp4x2 => "Fp4x2",
        }
    }
}

impl core::fmt::Display for ElementKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// A type that a page can be made of.
///
/// Sealed: the set of kinds is part of the fingerprint.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an element of a KV page",
    label = "not an element",
    note = "elements have alignment 1 and a fixed byte order: `u8`, `i8`, `F32`, `F16`, `Bf16`, `E4m3`, `E5m2`, `Ue8m0`, `Fp4x2`",
    note = "a field is one element or an array of them, `[Bf16; 64]`; what lies outside of a row is an axis: `order(layer, token)`"
)]
pub trait Element:
    FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy + sealed::SealedElement + 'static
{
    /// The kind, for comparison with a field's declaration.
    const KIND: ElementKind;
    /// Bytes of one element.
    const BYTES: u64 = Self::KIND.bytes();
}

mod sealed {
    pub trait SealedElement {}
}

macro_rules! element {
    ($(#[$doc:meta])* $name:ident, $bits:ty, $bytes:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash,
            FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(transparent)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The element with these bits.
            #[must_use]
            pub const fn from_bits(bits: $bits) -> Self {
                Self(bits.to_le_bytes())
            }

            /// Its bits.
            #[must_use]
            pub const fn to_bits(self) -> $bits {
                <$bits>::from_le_bytes(self.0)
            }
        }

        element!(@ $name, $name);
    };
    (@ $name:ty, $kind:ident) => {
        impl sealed::SealedElement for $name {}
        impl Element for $name {
            const KIND: ElementKind = ElementKind::$kind;
        }
        const_assert_eq!(size_of::<$name>() as u64, <$name as Element>::BYTES);
        assert_eq_align!($name, u8);
    };
}

element!(
    /// IEEE 754 binary32, little-endian, alignment 1. `f32::from_bits(x.to_bits())` is its value.
    F32, u32, 4
);
element!(
    /// IEEE 754 binary16, little-endian, alignment 1.
    F16, u16, 2
);
element!(
    /// bfloat16, little-endian, alignment 1. `f32::from_bits((x.to_bits() as u32) << 16)` is its
    /// value.
    Bf16, u16, 2
);
element!(
    /// OCP 8-bit float E4M3 without infinities (`float8_e4m3fn`).
    E4m3, u8, 1
);
element!(
    /// OCP 8-bit float E5M2.
    E5m2, u8, 1
);
element!(
    /// OCP MX scale E8M0: the value is 2^(bits − 127).
    Ue8m0, u8, 1
);
element!(
    /// A pair of OCP 4-bit floats E2M1, the first in the low nibble: one byte, never split.
    Fp4x2, u8, 1
);
element!(@ u8, U8);
element!(@ i8, I8);
