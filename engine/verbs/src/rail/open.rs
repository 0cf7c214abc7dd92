//! Opening ports by name, or all of them.

use std::sync::Arc;

use kvrail_core::id::MAX_RAILS;

use super::{PortName, Rail, Side};
use crate::config::VerbsConfig;
use crate::device::context::Context;
use crate::device::devices;
use crate::error::RailError;

/// Opens the ports named by `spec`: `auto` for all that can be used, or names with commas between
/// (`mlx5_0,mlx5_1:2`).
///
/// # Errors
///
/// A named port cannot be used; or, for `auto`, no port can: the error has the reason for each
/// port.
pub fn open(spec: &str, config: VerbsConfig, side: Side) -> Result<Vec<Arc<Rail>>, RailError> {
    let rails = if spec == "auto" {
        open_all(config, side)?
    } else {
        let names = spec.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<PortName>, _>>()?;
        if names.len() > MAX_RAILS {
            return Err(RailError::Count(names.len()));
        }
        names.iter().map(|name| Rail::open(name, config, side)).collect::<Result<_, _>>()?
    };
    Ok(rails.into_iter().map(Arc::new).collect())
}

fn open_all(config: VerbsConfig, side: Side) -> Result<Vec<Rail>, RailError> {
    let (mut rails, mut refused) = (Vec::new(), Vec::new());
    for device in devices()? {
        let ports = match Context::open(&device) {
            Ok(context) => context.caps.ports,
            Err(error) => {
                tracing::warn!(%device, %error, "not used");
                refused.push(error.to_string());
                continue;
            }
        };
        for port in 1..=ports {
            let name = PortName { device: device.clone(), port };
            if rails.len() == MAX_RAILS {
                tracing::warn!(%name, "not used: 16 rails are the most");
                continue;
            }
            match Rail::open(&name, config, side) {
                Ok(rail) => rails.push(rail),
                Err(error) => {
                    tracing::info!(%name, %error, "not used");
                    refused.push(error.to_string());
                }
            }
        }
    }
    if rails.is_empty() { Err(RailError::NoUsablePort(refused.join("; "))) } else { Ok(rails) }
}
