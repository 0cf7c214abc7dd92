//! How a toy breaks its contract.

use std::cell::Cell;

/// One way to break the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// None: the toy keeps it.
    Nothing,
    TakesNoPieces,
    OpensOnAnyRail,
    ShiftsBytes,
    WritesOneByteMore,
    ReversesPieces,
    SignalsEachUniformRead,
    CompletesBackwards,
    TellsTheUnsignaled,
    SucceedsBeforeTheBytes,
    NeverRetiresTheUnsignaled,
    CompletesOnRailZero,
    ExecutesBeyondThePrefix,
    OverstatesThePrefix,
    PostsWhatIsDropped,
    TellsOfEmptyCommits,
    PollsTheNewestFirst,
    IgnoresRemoteKeys,
    IgnoresRemoteRanges,
    IgnoresLocalKeys,
    IgnoresReleases,
    FlushesTheSignaledOnly,
    ExecutesAfterFailure,
    FailsWithoutAWord,
    DrainsEarly,
    DrainsNeedAPlace,
    FailsTheNeighbour,
    NamesTheNeighbour,
    LosesPostsWhileFailing,
    ClosesWithoutAWord,
    WritesAfterTheClose,
    TellsAFailureAfterTheClose,
    KeepsPlaces,
    WritesAfterTheDrop,
    DrainsStrangers,
    FailsStrangers,
    SleepsOverCompletions,
    CountsTheSignaledOnly,
    SleepsTooLong,
    SleepsOverWakers,
    SleepsOverErrors,
    SleepsOverEvents,
}

thread_local! {
    /// What toys that this thread makes from now on do wrong.
    pub static DEFECT: Cell<Defect> = const { Cell::new(Defect::Nothing) };
}
