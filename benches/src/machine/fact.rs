//! A fact about the machine: its value, or why it is not known.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A fact that may be missing without harm to the others.
///
/// In JSON a known fact is its value. An unknown one is `{"unknown": reason}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact<T> {
    /// The value.
    Known(T),
    /// Why there is no value.
    Unknown(String),
}

impl<T> Fact<T> {
    /// The value, where it is known.
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// The value, or the reason why it is not known.
    ///
    /// # Errors
    ///
    /// The fact is not known.
    pub(crate) fn get(&self) -> Result<&T, &str> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown(why) => Err(why),
        }
    }

    /// A known value in the words of `say`, and an unknown one in words that say so.
    pub(crate) fn say(&self, say: impl FnOnce(&T) -> String) -> String {
        match self {
            Self::Known(value) => say(value),
            Self::Unknown(why) => format!("unknown: {why}"),
        }
    }

    /// The same without the reason, for cells of a table.
    pub(crate) fn brief(&self, say: impl FnOnce(&T) -> String) -> String {
        self.known().map_or_else(|| "unknown".into(), say)
    }
}

impl<T> From<Result<T, String>> for Fact<T> {
    fn from(read: Result<T, String>) -> Self {
        match read {
            Ok(value) => Self::Known(value),
            Err(why) => Self::Unknown(why),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Fact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.say(T::to_string))
    }
}

impl<T: Serialize> Serialize for Fact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Unknown(why) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("unknown", why)?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_fact_is_written_with_its_reason() {
        let facts = [Fact::Known(7), Fact::Unknown("/sys/x: not found".into())];
        let json = serde_json::to_string(&facts).unwrap();
        assert_eq!(json, r#"[7,{"unknown":"/sys/x: not found"}]"#);
        assert_eq!(facts.map(|fact| fact.to_string()), ["7", "unknown: /sys/x: not found"]);
    }
}
