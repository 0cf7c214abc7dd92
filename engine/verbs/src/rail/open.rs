//! Opening ports by name, or all of them.

use std::sync::Arc;

use kvrail_core::id::MAX_RAILS;

use super::affinity::{Affinity, near, near_this_thread};
use super::{PortName, Rail, Side};
use crate::config::VerbsConfig;
use crate::device::context::Context;
use crate::device::{devices, sysfs};
use crate::error::RailError;

/// Opens the ports named by `spec`, an [`Affinity`] as text: `auto`, `all`, `numa:1`, or names with
/// commas between (`mlx5_0,mlx5_1:2`).
///
/// # Errors
///
/// As [`open_by`].
pub fn open(spec: &str, config: VerbsConfig, side: Side) -> Result<Vec<Arc<Rail>>, RailError> {
    open_by(&spec.parse()?, config, side)
}

/// Opens the ports that `affinity` chooses.
///
/// # Errors
///
/// A named port cannot be used; there is no device on the named NUMA node; or no port can be used:
/// the error has the reason for each port.
pub fn open_by(affinity: &Affinity, config: VerbsConfig, side: Side) -> Result<Vec<Arc<Rail>>, RailError> {
    let rails = match affinity {
        Affinity::Ports(names) if names.is_empty() || names.len() > MAX_RAILS => {
            return Err(RailError::Count(names.len()));
        }
        Affinity::Ports(names) => {
            names.iter().map(|name| Rail::open(name, config, side)).collect::<Result<_, _>>()?
        }
        _ => open_all(chosen(affinity, side)?, config, side)?,
    };
    Ok(rails.into_iter().map(Arc::new).collect())
}

/// The devices that an affinity chooses.
fn chosen(affinity: &Affinity, side: Side) -> Result<Vec<String>, RailError> {
    let all: Vec<_> = devices()?.into_iter().map(|device| (sysfs::numa(&device), device)).collect();
    let all: Vec<_> = all.into_iter().map(|(node, device)| (device, node)).collect();
    let chosen = match *affinity {
        Affinity::Numa(node) => {
            let known = all.iter().map(|(device, node)| match node {
                Some(node) => format!("{device} on {node}"),
                None => format!("{device} on none"),
            });
            let known = known.collect::<Vec<_>>().join(", ");
            let on: Vec<_> = all.into_iter().filter(|&(_, of)| of == Some(node)).collect();
            if on.is_empty() {
                return Err(RailError::NoneOnNode { node, known });
            }
            on
        }
        Affinity::Auto if side == Side::Reader => match near_this_thread() {
            Some(nodes) => near(all, &nodes),
            None => all,
        },
        _ => all,
    };
    Ok(chosen.into_iter().map(|(device, _)| device).collect())
}

fn open_all(devices: Vec<String>, config: VerbsConfig, side: Side) -> Result<Vec<Rail>, RailError> {
    let (mut rails, mut refused) = (Vec::new(), Vec::new());
    for device in devices {
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
