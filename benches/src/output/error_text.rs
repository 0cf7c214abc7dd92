//! An error as one line of text.

/// The error and its causes, separated by colons. A cause whose text an earlier one repeats is left
/// out.
pub(crate) fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn every_cause_is_written_once() {
        let error = std::fs::read("/nonexistent").map_err(|e| anyhow::anyhow!(e).context("no file: No such"));
        let error = error.context("no report").unwrap_err();
        assert_eq!(
            with_causes(&error),
            "no report: no file: No such: No such file or directory (os error 2)"
        );
        let listen = "192.0.2.1:0".parse::<std::net::SocketAddr>().unwrap();
        let source = std::io::Error::from_raw_os_error(99);
        let error = kvrail::session::ServeError::Listen { address: listen, source };
        let text = with_causes(&error.into());
        assert_eq!(text.matches("(os error 99)").count(), 1, "{text}");
    }
}
