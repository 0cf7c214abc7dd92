//! The ways in which the toy provider can break the contract.

use std::cell::Cell;

/// One way to break the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The toy keeps the contract.
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
    DrainsForeignLanes,
    FailsForeignLanes,
    SleepsOverCompletions,
    CountsTheSignaledOnly,
    SleepsTooLong,
    SleepsOverWakers,
    SleepsOverErrors,
    SleepsOverEvents,
    ArmsOverCompletions,
    StaysReadable,
    NeverTellsCompletions,
    NeverTellsWakers,
    NeverTellsEvents,
}

thread_local! {
    /// Sets the defect of toys that this thread makes from now on.
    pub static DEFECT: Cell<Defect> = const { Cell::new(Defect::Nothing) };
}
