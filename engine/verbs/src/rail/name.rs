//! The name of a port, as users write it.

use std::fmt;

use crate::error::RailError;

/// A port by its name: `mlx5_0`, or `mlx5_0:2` for a port other than the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// The device.
    pub device: String,
    /// Its port, from 1.
    pub port: u8,
}

impl std::str::FromStr for PortName {
    type Err = RailError;

    fn from_str(text: &str) -> Result<Self, RailError> {
        let bad = || RailError::Name(text.chars().take(100).collect());
        let (device, port) = match text.split_once(':') {
            Some((device, port)) => (device, port.parse().ok().filter(|&p| p > 0).ok_or_else(bad)?),
            None => (text, 1),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if device.is_empty() || device.starts_with('.') || !device.chars().all(legal) {
            return Err(bad());
        }
        Ok(Self { device: device.into(), port })
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            1 => f.write_str(&self.device),
            port => write!(f, "{}:{port}", self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_device_and_perhaps_a_port() {
        let name = |text: &str| text.parse::<PortName>().map(|n| (n.device.clone(), n.port, n.to_string()));
        assert_eq!(name("mlx5_0").unwrap(), ("mlx5_0".into(), 1, "mlx5_0".into()));
        assert_eq!(name("mlx5_bond-0:2").unwrap(), ("mlx5_bond-0".into(), 2, "mlx5_bond-0:2".into()));
        for bad in ["", ":1", "mlx5_0:", "mlx5_0:0", "mlx5_0:x", "mlx5_0:256", "../../etc", "a b", "a/b"] {
            let error = name(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }
}
