//! How a process sends itself a signal at a message of a hand-over: it watches the lines that the
//! session traces for each message that comes or goes.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What to do at which message.
struct Trigger {
    signal: Signal,
    kind: String,
    nth: u32,
    handled: bool,
}

static TRIGGER: OnceLock<Trigger> = OnceLock::new();
static MET: AtomicU32 = AtomicU32::new(0);
/// The message is there, and the signal is to be sent once it is handled.
static DUE: AtomicBool = AtomicBool::new(false);

/// Watches for the message that `argument` names.
pub(crate) fn watch(argument: &str) {
    if argument == "never" {
        return;
    }
    let [signal, kind, nth, handled] = argument.split(',').collect::<Vec<_>>()[..] else {
        panic!("`{argument}`")
    };
    let signal = if signal == "kill" { Signal::KILL } else { Signal::STOP };
    let trigger =
        Trigger { signal, kind: kind.into(), nth: nth.parse().unwrap(), handled: handled.parse().unwrap() };
    assert!(TRIGGER.set(trigger).is_ok(), "one trigger a process");
    tracing::subscriber::set_global_default(Watcher).unwrap();
}

/// Sends the signal if it waits for a message to be handled: the main loop calls it, so the
/// session's thread had the time to handle the message.
pub(crate) fn after_handling() {
    if DUE.swap(false, Ordering::Relaxed)
        && let Some(trigger) = TRIGGER.get()
    {
        raise(trigger.signal);
    }
}

fn raise(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

struct Watcher;

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::TRACE && metadata.target().starts_with("kvrail_session")
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut KindField);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct KindField;

impl Visit for KindField {
    fn record_str(&mut self, field: &Field, kind: &str) {
        let Some(trigger) = TRIGGER.get() else { return };
        if field.name() != "kind" || kind != trigger.kind {
            return;
        }
        if MET.fetch_add(1, Ordering::Relaxed) + 1 != trigger.nth {
            return;
        }
        if trigger.handled {
            DUE.store(true, Ordering::Relaxed);
        } else {
            raise(trigger.signal);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
