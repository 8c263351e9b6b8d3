package scenario

// Scenario is one disaster that Tripod is judged by, or one promise of the lab
// beside them. The catalogue is what `make scenarios` and docs/scenarios.md show.
type Scenario struct {
	// ID is its number among the disasters (S1), or empty.
	ID string
	// Disaster is what happens, Passes when it counts as survived.
	Disaster, Passes string
	// Proofs are the tests that play it; none when Missing says why.
	Proofs  []Proof
	Missing string
}

// Proof is a test that plays a scenario.
type Proof struct {
	Test string
	// Slice is true when `make test` plays it, too: the whole lab takes no more
	// than 12 minutes there.
	Slice bool
}

// always is a proof that is part of `make test`; sometimes is one that only
// `make scenarios` plays.
func always(test string) Proof    { return Proof{Test: test, Slice: true} }
func sometimes(test string) Proof { return Proof{Test: test} }

// Catalogue lists every scenario in the order of its number, then what the lab
// proves beside them.
func Catalogue() []Scenario { return append(disasters(), beside()...) }

// InSlice is true when `make test` plays the test.
func InSlice(test string) bool {
	for _, s := range Catalogue() {
		for _, p := range s.Proofs {
			if p.Test == test {
				return p.Slice
			}
		}
	}
	return false
}

func disasters() []Scenario {
	return append(losses(), operations()...)
}

func losses() []Scenario {
	return []Scenario{
		{ID: "S1", Disaster: "a center loses power, the sync copy is good", Passes: "automatic; nothing lost, one writer; evidence verified; a pipeline that knows nothing of clusters ends well",
			Proofs: []Proof{always("TestS1CenterLosesPower"), sometimes("TestS1APipelineGoesOnThroughTheLossOfACenter")}},
		{ID: "S2", Disaster: "the center that is lost also holds the hub's leader", Passes: "as S1",
			Proofs: []Proof{always("TestS2CenterWithTheHubsLeaderLosesPower")}},
		{ID: "S3", Disaster: "power loss, only an asynchronous copy is left", Passes: "stops, shows the loss, goes on only after an approval that accepts it; loses no more than was shown",
			Proofs: []Proof{sometimes("TestS3OnlyAnAsynchronousCopyLeft")}},
		{ID: "S4", Disaster: "one-way partition: the hub's leader cannot reach a cluster", Passes: "nothing happens",
			Proofs: []Proof{always("TestS4OneWayPartition")}},
		{ID: "S5", Disaster: "link cut between the two sync centers, both reach the third", Passes: "no role change; ZeroLoss acknowledges nothing meanwhile; MaxAvailability commits a smaller sync set once",
			Proofs: []Proof{sometimes("TestS5TheLinkBetweenTheSyncCentersIsCut")}},
		{ID: "S6", Disaster: "every shape of a three-center partition", Passes: "one writer at most, nothing lost; only a majority that lost the primary moves it",
			Proofs: []Proof{sometimes("TestS6EveryShapeOfAPartition")}},
		{ID: "S7", Disaster: "a link flaps every 20 s for 10 minutes (three times, unless `-flaps 30` says more)", Passes: "at most one transition",
			Proofs: []Proof{sometimes("TestS7ALinkFlaps")}},
		{ID: "S8", Disaster: "the leader is in the minority when an operator orders a failover", Passes: "the minority refuses, the majority accepts; one run",
			Proofs: []Proof{sometimes("TestS8TheLeaderIsInTheMinority")}},
		{ID: "S9", Disaster: "hub quorum lost, the city is gone", Passes: "the minority refuses; recovery needs two signatures; members that return are read-only and rejoin as new",
			Proofs: []Proof{sometimes("TestS9TheCityIsGoneWithTheMajority")}},
		{ID: "S10", Disaster: "all hub members die", Passes: "after the restart nothing is deleted or moved",
			Proofs: []Proof{always("TestS10AllHubMembersDie")}},
		{ID: "S11", Disaster: "hub restored from an old backup", Passes: "read-only; the difference is shown; nothing is deleted; works once approved",
			Proofs: []Proof{sometimes("TestS11TheHubIsRestoredFromAnOldBackup")}},
		{ID: "S12", Disaster: "most clusters silent at once, in several centers", Passes: "the breaker opens; alarm; nothing moves; a person may decide",
			Proofs: []Proof{sometimes("TestS12MostClustersAreSilentAtOnce"), sometimes("TestS12ALossThatHealedUnderTheLeaderBefore")}},
		{ID: "S13", Disaster: "a member was away while placements changed, then returns", Passes: "nothing is deleted but what a committed tombstone lists; no role by itself",
			Proofs: []Proof{sometimes("TestS13AMemberWasAwayWhilePlacementsChanged")}},
		{ID: "S14", Disaster: "the agent crash-loops in a healthy cluster", Passes: "no deletion, no failover; the primary goes on without a pause",
			Proofs: []Proof{always("TestS14TheAgentCrashLoops")}},
		{ID: "S15", Disaster: "the old primary returns with sessions that were open before", Passes: "all its writes are refused; it becomes a replica",
			Proofs: []Proof{always("TestS15OldPrimaryReturns")}},
		{ID: "S16", Disaster: "the fence says yes and has done nothing, or times out; or nothing proves that the primary has stopped", Passes: "no promotion without an independent proof, or the oath of two people",
			Proofs: []Proof{sometimes("TestS16TheFenceTimesOut"), sometimes("TestS16TheFenceSaysYesAndDoesNothing"), sometimes("TestS16TwoPeopleAttest")}},
	}
}

func operations() []Scenario {
	return []Scenario{
		{ID: "S17", Disaster: "planned switchover under load, aborted at each step in turn, then done", Passes: "zero lost, zero double; an abort leaves the source primary; also when the hub's leader or the target's center dies at a step",
			Proofs: []Proof{always("TestS17PlannedSwitchover"), sometimes("TestS17TheLeaderDiesDuringASwitchover"), sometimes("TestS17TheTargetIsLostDuringASwitchover")}},
		{ID: "S18", Disaster: "failback with the center failing again in the hold time", Passes: "the hold begins anew, a person's hold is respected, each refusal says why; then home, nothing lost",
			Proofs: []Proof{sometimes("TestS18FailbackAndHolds")}},
		{ID: "S19", Disaster: "drill, and a real disaster during the drill", Passes: "replication never pauses, no role moves; the drill gives way; nothing of it is left",
			Proofs: []Proof{sometimes("TestS19Drill")}},
		{ID: "S20", Disaster: "a second failover before the first has settled", Passes: "only a member of the committed sync set takes over, or whom people take when the target is lost before it has; epochs grow one by one; nothing lost",
			Proofs: []Proof{sometimes("TestS20ASecondFailoverBeforeTheFirstHasSettled"), sometimes("TestS20TheTargetIsLostBeforeItHasTakenOver")}},
		{ID: "S21", Disaster: "the leader of the hub dies at each step boundary", Passes: "one run, one epoch, evidence verified; from the silence on (S17 plays it for switchovers, `failover/sim` at every write); while too few centers can confirm the loss nothing moves, and the application says so",
			Proofs: []Proof{sometimes("TestS21TheLeaderDiesDuringAFailover")}},
		{ID: "S22", Disaster: "1,000 applications in dependency order", Passes: "order kept; the one that fails holds what depends on it and nothing else, and the rest follows when it is mended; nothing lost (`make bench-engine` plays a center's loss in one process)",
			Proofs: []Proof{sometimes("TestS22AThousandApplicationsInOrder")}},
		{ID: "S23", Disaster: "the target lacks capacity, storage class, image or CRD", Passes: "the preflight names each beforehand; nothing is evicted",
			Proofs: []Proof{sometimes("TestS23TheTargetLacksSomething")}},
		{ID: "S24", Disaster: "the etcd mirror was stopped for an hour of changes, past compaction", Missing: "there is no mirror yet"},
		{ID: "S25", Disaster: "one dead member while the fleet is listed and watched", Missing: "played below the lab, in `hub/view`"},
		{ID: "S26", Disaster: "approver = requester; an approval in somebody else's name", Passes: "refused and audited; nothing moves",
			Proofs: []Proof{always("TestS26ApprovalsThatDoNotCount")}},
		{ID: "S27", Disaster: "one record of the evidence is edited", Passes: "verification fails and names it",
			Proofs: []Proof{always("TestS27EditedEvidenceIsFound")}},
	}
}

func beside() []Scenario {
	return []Scenario{
		{Disaster: "a person orders the failover of a healthy application", Passes: "its primary says that it has stopped, then the other one starts",
			Proofs: []Proof{always("TestOrderedFailover")}},
		{Disaster: "SIGKILL to every kind of process in turn", Passes: "healthy again, same data, nothing deleted",
			Proofs: []Proof{sometimes("TestAnyProcessKilled")}},
		{Disaster: "the disk under the hub's leader is full", Passes: "reported with the remedy; no lease is lost",
			Proofs: []Proof{always("TestFullDiskUnderTheHubsLeader")}},
		{Disaster: "bad input: placements, datasets, tokens, hub members", Passes: "refused with the remedy; nothing moves",
			Proofs: []Proof{always("TestBadInput")}},
		{Disaster: "kubectl through the gateway and the fleet", Passes: "as on a cluster of its own",
			Proofs: []Proof{always("TestGateway")}},
		{Disaster: "a cluster on the hub's store in etcd's place, the store killed", Passes: "nothing is lost, what is deleted is gone",
			Proofs: []Proof{sometimes("TestAClusterOnTheHubsStore")}},
	}
}
