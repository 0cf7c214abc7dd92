//! Runs every committed seed of the fuzz targets, without a fuzzer and without a nightly compiler.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use arbitrary::{Arbitrary, Unstructured};
    use kvrail_fuzz::targets::{
        completions, declaration, get, handover, look_up, mlx5_entries, plan, record, session_frames,
        session_message, session_offer, wire_batch, wr_chain,
    };

    /// The folder of the fuzz targets.
    fn fuzz() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// Gives every seed of a target to `run`. The output names the seed that a failure belongs to.
    fn replay(target: &str, run: impl Fn(&[u8])) {
        let folder = fuzz().join("seeds").join(target);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut seeds: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} has no seeds", folder.display());
        for seed in seeds {
            println!("{}", seed.display());
            run(&fs::read(&seed).unwrap());
        }
    }

    /// Gives every seed to a target with a typed input, which is decoded as libFuzzer's macro does.
    fn replay_typed<T: for<'a> Arbitrary<'a>>(target: &str, run: impl Fn(&T)) {
        replay(target, |bytes| {
            if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(bytes)) {
                run(&input);
            }
        });
    }

    #[test]
    fn completions_seeds() {
        replay("completions", completions::run);
    }

    #[test]
    fn declaration_seeds() {
        replay_typed("declaration", declaration::run);
    }

    #[test]
    fn get_seeds() {
        replay("get", get::run);
    }

    #[test]
    fn handover_seeds() {
        replay("handover", handover::run);
    }

    #[test]
    fn look_up_seeds() {
        replay("look_up", look_up::run);
    }

    #[test]
    fn mlx5_entries_seeds() {
        replay("mlx5_entries", mlx5_entries::run);
    }

    #[test]
    fn plan_seeds() {
        replay("plan", plan::run);
    }

    #[test]
    fn record_seeds() {
        replay("record", record::run);
    }

    #[test]
    fn session_frames_seeds() {
        replay("session_frames", session_frames::run);
    }

    #[test]
    fn session_message_seeds() {
        replay("session_message", session_message::run);
    }

    #[test]
    fn session_offer_seeds() {
        replay("session_offer", session_offer::run);
    }

    #[test]
    fn wire_batch_seeds() {
        replay("wire_batch", wire_batch::run);
    }

    #[test]
    fn wr_chain_seeds() {
        replay_typed("wr_chain", wr_chain::run);
    }

    #[test]
    fn every_target_is_replayed() {
        let targets = fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
        let names = targets.map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned());
        let replayed = [
            "completions",
            "declaration",
            "get",
            "handover",
            "look_up",
            "mlx5_entries",
            "plan",
            "record",
            "session_frames",
            "session_message",
            "session_offer",
            "wire_batch",
            "wr_chain",
        ];
        assert_eq!(names.collect::<BTreeSet<_>>(), replayed.map(Into::into).into());
    }
}
