//! Which kind of driver a device has.

/// Which kind of driver a device has. Reports name it, and code asks for it where such devices are
/// known to lack something.
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
    /// The caveat that a report must print beside figures from such a device, if there is one.
    #[must_use]
    pub const fn caveat(self) -> Option<&'static str> {
        match self {
            Self::SoftRoce => Some("SoftRoCE (rxe): software, says nothing about hardware"),
            Self::Software => Some("a software device: says nothing about hardware"),
            Self::Mlx5 | Self::Hardware => None,
        }
    }
}
