//! What drives a device.

/// What a device is: for reports, and for what such devices are known not to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// The kernel's software RoCE.
    SoftRoce,
    /// Another device without hardware.
    Software,
    /// NVIDIA ConnectX, from Connect-IB on.
    Mlx5,
    /// Any other hardware.
    Hardware,
}

impl Driver {
    /// What a report must say of figures that were taken on such a device, if anything.
    #[must_use]
    pub const fn caveat(self) -> Option<&'static str> {
        match self {
            Self::SoftRoce => Some("SoftRoCE (rxe): software, says nothing about hardware"),
            Self::Software => Some("a software device: says nothing about hardware"),
            Self::Mlx5 | Self::Hardware => None,
        }
    }
}
