//! What lies under which key, and how it is read back.

use std::fmt::Write as _;
use std::num::NonZeroU64;

use crc::{CRC_16_XMODEM, Crc};
use kvrail::Address;
use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;

use crate::directory::{MAX_OWNERS, Owner};
use crate::record::{RECORD_BYTES, Record};

/// The slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;
/// The most owners that the servers keep of one key: more than an answer holds, since some may be
/// dead.
pub(super) const MAX_FIELDS: usize = 2 * MAX_OWNERS;
/// The most bytes of a stored owner.
const MAX_OWNER_BYTES: usize = 1024;
/// The version of a stored owner.
const OWNER_VERSION: &str = "1";

/// Puts a record in the place of the owner's earlier one. Records that were not announced again in
/// time go away here, and so does the oldest where too many are left; the whole key goes away by
/// itself. `ARGV`: owner, record, time in ms, most owners.
pub(super) const ANNOUNCE: &str = "\
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'hash' and redis.call('HLEN', KEYS[1]) > 8 * ARGV[4] then kind = 'forged' end
if kind == 'hash' then
  local all = redis.call('HGETALL', KEYS[1])
  local count, oldest, oldest_until = 0, nil, nil
  for at = 1, #all, 2 do
    if all[at] ~= ARGV[1] then
      local till = tonumber(string.sub(all[at + 1], 49)) or 0
      if till <= now then
        redis.call('HDEL', KEYS[1], all[at])
      else
        count = count + 1
        if not oldest or till < oldest_until then oldest, oldest_until = all[at], till end
      end
    end
  end
  if count >= tonumber(ARGV[4]) then redis.call('HDEL', KEYS[1], oldest) end
elseif kind ~= 'none' then
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. string.format('%.0f', now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
";

/// Removes a record if it is still this one. `ARGV`: owner, record.
pub(super) const WITHDRAW: &str = "\
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value and string.sub(value, 1, 48) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
";

// The scripts cut a stored record there.
const _: () = assert!(RECORD_BYTES == 48);

/// The slot of a cluster in which a key lies: of the part in braces, if it has one.
pub(super) fn slot(key: &str) -> u16 {
    const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    CRC.checksum(hashed.as_bytes()) % SLOTS
}

/// The key of a page: a hash with a field for each owner.
pub(super) fn page_key(prefix: &str, tag: KeyTag) -> String {
    format!("{prefix}:page:{:032x}", tag.0)
}

/// The slot of the owners' copies number `copy`, which is the same for all owners.
pub(super) fn copy_slot(copy: u16) -> u16 {
    slot(&format!("{{{copy}}}"))
}

/// The key of one copy of an owner's entry. Each server has a copy of every owner.
pub(super) fn owner_key(prefix: &str, epoch: Epoch, copy: u16) -> String {
    format!("{prefix}:owner:{:016x}:{{{copy}}}", epoch.0)
}

/// The field of an owner's record.
pub(super) fn field(epoch: Epoch) -> String {
    format!("{:016x}", epoch.0)
}

/// The record of `tag` in a field and its value, if that is what is there. Another program may have
/// written anything.
pub(super) fn record(tag: KeyTag, name: &[u8], value: &[u8]) -> Option<Record> {
    let (bytes, until) = value.split_at_checked(RECORD_BYTES)?;
    let digits = !until.is_empty() && until.len() <= 20 && until.iter().all(u8::is_ascii_digit);
    let record = Record::parse(bytes).ok().filter(|_| digits)?;
    (record.tag == tag && field(record.owner).as_bytes() == name).then_some(record)
}

/// An owner's entry: lines of text, which a person can read with redis-cli.
pub(super) fn owner_text(owner: &Owner) -> String {
    let Owner { epoch, node, address, zone } = owner;
    let mut text = format!("{OWNER_VERSION}\n{:016x}\n{address}\n", epoch.0);
    // Writing to a string does not fail. Names have no control characters, so no line breaks.
    let _ = write!(text, "{node}\n{zone}");
    text
}

/// The owner with this epoch in an entry, if that is what is there.
pub(super) fn owner(epoch: Epoch, bytes: &[u8]) -> Option<Owner> {
    let text = Some(bytes).filter(|bytes| bytes.len() <= MAX_OWNER_BYTES)?;
    let mut lines = std::str::from_utf8(text).ok()?.split('\n');
    let (version, number) = (lines.next()?, lines.next()?);
    let number = NonZeroU64::new(u64::from_str_radix(number, 16).ok()?)?;
    if version != OWNER_VERSION || Epoch(number) != epoch {
        return None;
    }
    let address: Address = lines.next()?.parse().ok()?;
    let (node, zone) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    lines.next().is_none().then_some(Owner { epoch, node, address, zone })
}
