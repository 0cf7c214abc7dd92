//! Arguments of a measurement on several hosts.

use anyhow::bail;
use clap::Args;
use kvrail::session::Address;

use crate::process::hosts::Meeting;

/// Where the hosts meet that read at the same time.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostsArgs {
    /// How many hosts read at the same time: 2 to 64. Start the same command on each of them.
    #[arg(long, requires = "meet", value_name = "N", value_parser = clap::value_parser!(u8).range(2..=64))]
    hosts: Option<u8>,
    /// Where these hosts meet: a free port of one of them, which then leads the others. Neither
    /// encrypted nor authenticated.
    #[arg(long, requires = "hosts", value_name = "HOST:PORT")]
    meet: Option<Address>,
}

impl HostsArgs {
    /// Whether this host measures by itself.
    pub(crate) const fn none(&self) -> bool {
        self.meet.is_none()
    }

    /// The meeting, if there is one. `connect`: whether all hosts read from one producer.
    ///
    /// # Errors
    ///
    /// Each host would read its own pages.
    pub(crate) fn meeting(&self, connect: bool) -> anyhow::Result<Option<Meeting>> {
        match (&self.meet, self.hosts) {
            (Some(at), Some(hosts)) if connect => Ok(Some(Meeting { at: at.clone(), hosts: hosts.into() })),
            (Some(_), _) => bail!(
                "--meet: several hosts read the pages of a `serve`: give the --connect line that it printed"
            ),
            (None, _) => Ok(None),
        }
    }
}
