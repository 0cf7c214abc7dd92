//! A port's GID table: what each entry is, which one is used, and why. The rule is that of the
//! verbs rail, [`select`].

use std::net::Ipv6Addr;

use kvrail_host::gid::{Gid, GidEntry, GidKind, GidOwner, GidSelection, GidType, select};
use serde::{Serialize, Serializer};

use super::interfaces::Interfaces;
use crate::machine::source::Source;

/// Entries of a table that are looked at. mlx5 has 256, and the verbs rail looks at as many as
/// here.
const MAX_GIDS: usize = 1024;

/// An entry that is not empty.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GidRow {
    /// Its place in the table.
    pub(crate) index: u32,
    /// The address; null if it could not be read.
    pub(crate) gid: Option<String>,
    /// The kernel's name of its protocol.
    pub(crate) protocol: Option<String>,
    /// The network interface that it belongs to; null on InfiniBand, and where sysfs names none.
    pub(crate) netdev: Option<String>,
    /// Whether it is used.
    pub(crate) role: Role,
    /// The reason.
    pub(crate) why: String,
    #[serde(skip)]
    pub(crate) kind: Option<GidKind>,
}

/// What an entry is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The best of the table: lanes use it.
    Used,
    /// The best of its kind: for a peer that has no address of a better kind.
    Spare,
    /// Not used.
    Rejected,
}

impl Role {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Spare => "spare",
            Self::Rejected => "rejected",
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// The entries of the port at `at`, a folder in sysfs. `infiniband`: the port's link is InfiniBand.
///
/// # Errors
///
/// The table cannot be read.
pub(crate) fn read(
    source: &Source,
    at: &str,
    infiniband: bool,
    interfaces: &Interfaces,
) -> Result<Vec<GidRow>, String> {
    let indices = source.names(&format!("{at}/gids"))?;
    let indices = indices.iter().filter_map(|name| name.parse::<u32>().ok()).take(MAX_GIDS);
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    for index in indices {
        let parse = |text: &str| Some(Gid(text.parse::<Ipv6Addr>().ok()?.octets()));
        let gid = source.parsed(&format!("{at}/gids/{index}"), "GID", parse);
        if gid.as_ref().is_ok_and(|gid| gid.is_zero()) {
            continue;
        }
        let protocol = source.value(&format!("{at}/gid_attrs/types/{index}"));
        let gid_type = protocol.clone().and_then(|text| match &*text {
            "IB/RoCE v1" if infiniband => Ok(GidType::InfiniBand),
            "IB/RoCE v1" => Ok(GidType::RoceV1),
            "RoCE v2" => Ok(GidType::RoceV2),
            other => Err(format!("protocol {other} is not known")),
        });
        let netdev = source.value(&format!("{at}/gid_attrs/ndevs/{index}")).ok();
        let entry = gid.clone().and_then(|gid| {
            let owner = netdev.as_ref().map_or(GidOwner::Unknown, |name| interfaces.owner(name, gid));
            Ok(GidEntry { index, gid, gid_type: gid_type?, owner })
        });
        rows.push(GidRow {
            index,
            gid: gid.ok().map(|gid| gid.to_string()),
            protocol: protocol.ok(),
            netdev,
            role: Role::Rejected,
            why: entry.as_ref().err().cloned().unwrap_or_default(),
            kind: None,
        });
        entries.extend(entry);
    }
    judge(&mut rows, &select(&entries, None));
    Ok(rows)
}

/// Writes the choice into the rows.
fn judge(rows: &mut [GidRow], selection: &GidSelection) {
    for row in rows {
        let place = selection.chosen.iter().position(|chosen| u32::from(chosen.index) == row.index);
        if let Some(place) = place {
            let kind = selection.chosen[place].kind;
            row.kind = Some(kind);
            (row.role, row.why) = match place {
                0 => (Role::Used, format!("{kind}: the best of the table")),
                _ => (Role::Spare, format!("{kind}: for a peer that has none better")),
            };
        } else if let Some((_, why)) = selection.rejected.iter().find(|(index, _)| *index == row.index) {
            let address = row.gid.as_deref().unwrap_or_default();
            row.why = why.strip_prefix(&format!("{address}: ")).unwrap_or(why).into();
        }
    }
}
