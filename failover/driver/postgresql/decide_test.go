package postgresql

import (
	"strings"
	"testing"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// past is a copy that holds 3 transactions after the fork.
func past(commits int64) *agentv1.Divergence {
	return &agentv1.Divergence{Measured: true, ForkTimeline: 1, EndTimeline: 1, ForkPosition: "0/5000000", EndPosition: "0/5000100", Bytes: 256, Records: 9, Commits: commits}
}

var (
	zeroLoss  = agentv1.Protection_PROTECTION_ZERO_LOSS
	available = agentv1.Protection_PROTECTION_MAX_AVAILABILITY
)

func former(waits ...string) *agentv1.GuardStatus {
	return &agentv1.GuardStatus{Formed: true, HeldEpoch: 1, WaitsFor: waits}
}

func follower(protection agentv1.Protection, set ...string) *agentv1.GuardStatus {
	return &agentv1.GuardStatus{Formed: true, Standby: true,
		Known: &agentv1.KnownSyncSet{Epoch: 1, Primary: "north-1", SyncSet: set, Protection: protection}}
}

func TestDecide(t *testing.T) {
	promoted := func(s *agentv1.GuardStatus, d *agentv1.Divergence) evidence {
		return evidence{cluster: "north-1", status: s, found: d, promoter: "north-2", promoted: 2}
	}
	approved := func(e evidence) evidence { e.discard = true; return e }
	own := past(3)
	own.EndTimeline = 4
	uncounted := past(0)
	uncounted.Measured = false
	none := &agentv1.Divergence{Measured: true, ForkTimeline: 1, EndTimeline: 1, EndPosition: "0/5000000"}
	behind := promoted(former(), none)
	behind.oldest = 0x6000000
	late := promoted(former("north-2"), past(3))
	late.promoted = 1
	returned := func(change func(*evidence)) evidence {
		d, s := past(2), former("north-2")
		d.EndTimeline, s.HeldEpoch = 2, 2
		e := evidence{cluster: "north-1", status: s, found: d, source: "north-2", epoch: 3, timeline: 1}
		if change != nil {
			change(&e)
		}
		return e
	}
	namesake := promoted(former("north-2"), &agentv1.Divergence{Measured: true, ForkTimeline: 2, EndTimeline: 2, EndPosition: "0/5000000"})
	namesake.begun, namesake.timeline = "south-1", 2
	replica := func(own map[int64]string) evidence {
		e := promoted(&agentv1.GuardStatus{Formed: true, Standby: true}, namesake.found)
		e.own, e.theirs, e.timeline, e.begun = own, map[int64]string{1: "north-1@1", 2: "south-1@9"}, 2, "south-1"
		return e
	}
	unnamed := func(kin kinship) evidence {
		e := replica(map[int64]string{1: "north-1@1"})
		e.kin = kin
		return e
	}
	began := namesake
	began.begun = "north-1"
	tests := map[string]struct {
		e       evidence
		want    driver.Method
		aside   bool
		refusal string
	}{
		"a replica of another timeline of that number needs approval":            {e: replica(map[int64]string{1: "north-1@1", 2: "north-2@5"}), refusal: "begun by north-2@5"},
		"of the same cluster, promoted twice, too":                               {e: replica(map[int64]string{2: "south-1@5"}), refusal: "begun by south-1@5"},
		"once it is approved that copy is kept aside":                            {e: approved(replica(map[int64]string{2: "north-2@5"})), want: driver.MethodCopy, aside: true},
		"a replica of the same timeline is attached":                             {e: replica(map[int64]string{1: "north-1@1", 2: "south-1@9"}), want: driver.MethodAttach},
		"one that does not know who began its timeline needs approval":           {e: replica(map[int64]string{1: "north-1@1"}), refusal: "not known who began timeline 2"},
		"unless its log begins as the primary's does":                            {e: unnamed(kinSame), want: driver.MethodAttach},
		"a log that begins otherwise is another timeline's":                      {e: unnamed(kinOther), refusal: "does not begin as the primary's"},
		"a volume that remembers nothing of that is judged by numbers":           {e: replica(nil), want: driver.MethodAttach},
		"an empty volume is copied":                                              {e: promoted(former(), &agentv1.Divergence{Measured: true, Empty: true}), want: driver.MethodCopy},
		"nothing past the fork is attached":                                      {e: promoted(former(), none), want: driver.MethodAttach},
		"nothing past the fork, and the log that follows is gone: a copy":        {e: behind, want: driver.MethodCopy},
		"a rewind that was torn becomes a copy":                                  {e: promoted(&agentv1.GuardStatus{Formed: true, Torn: true}, &agentv1.Divergence{}), want: driver.MethodCopy},
		"log without any commit is taken back":                                   {e: promoted(former(), past(0)), want: driver.MethodRewind},
		"what the promoted standby was waited for was acknowledged to none":      {e: promoted(former("north-2"), past(3)), want: driver.MethodRewind},
		"a primary that did not wait for the promoted one needs approval":        {e: promoted(former("south-1"), past(3)), refusal: "did not wait for north-2"},
		"a primary that waited for nobody needs approval":                        {e: promoted(former(), past(3)), refusal: "did not wait for north-2"},
		"an unrecorded promotion needs approval":                                 {e: evidence{status: former("north-2"), found: past(3)}, refusal: "not recorded"},
		"a promotion that is not later than this copy's needs approval":          {e: late, refusal: "not after this copy's 1"},
		"a timeline of its own needs approval":                                   {e: promoted(former("north-2"), own), refusal: "timeline of its own"},
		"a target that waited for its source from its first write on is rewound": {e: returned(nil), want: driver.MethodRewind},
		"one that did not wait for it needs approval":                            {e: returned(func(e *evidence) { e.status.WaitsFor = nil }), refusal: "timeline of its own"},
		"one whose source has left the timeline too needs approval":              {e: returned(func(e *evidence) { e.timeline = 3 }), refusal: "timeline of its own"},
		"one that was a primary later than its source needs approval":            {e: returned(func(e *evidence) { e.epoch = 2 }), refusal: "timeline of its own"},
		"one with two timelines of its own needs approval":                       {e: returned(func(e *evidence) { e.found.EndTimeline = 3 }), refusal: "timeline of its own"},
		"one that has followed since needs approval":                             {e: returned(func(e *evidence) { e.status.Standby = true }), refusal: "timeline of its own"},
		"two timelines of one number are not taken for one":                      {e: namesake, refusal: "which south-1 began"},
		"a timeline that this copy began itself is its own":                      {e: began, want: driver.MethodAttach},
		"what cannot be counted needs approval":                                  {e: promoted(former("north-2"), uncounted), refusal: "cannot be counted"},
		"a copy of another system needs approval":                                {e: promoted(former("north-2"), &agentv1.Divergence{Measured: true, Foreign: true}), refusal: "not of the primary's lineage"},
		"a replica ahead of the promoted one, under ZeroLoss, is rewound":        {e: promoted(follower(zeroLoss, "north-1", "north-2"), past(3)), want: driver.MethodRewind},
		"but not if the set may have shrunk unheard":                             {e: promoted(follower(available, "north-1", "north-2"), past(3)), refusal: "may have been made smaller"},
		"nor if the promoted one was not in it":                                  {e: promoted(follower(zeroLoss, "north-1"), past(3)), refusal: "did not wait for north-2"},
		"nor if it is not known":                                                 {e: promoted(&agentv1.GuardStatus{Formed: true, Standby: true}, past(3)), refusal: "not known whom"},
		"an approved loss is copied and kept aside":                              {e: approved(promoted(former(), past(3))), want: driver.MethodCopy, aside: true},
		"an approved copy of another system too":                                 {e: approved(promoted(former(), &agentv1.Divergence{Measured: true, Foreign: true})), want: driver.MethodCopy, aside: true},
		"an approval discards nothing where nothing must go":                     {e: approved(promoted(former(), none)), want: driver.MethodAttach},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(tt.e)
			if got.method != tt.want || got.keepAside != tt.aside || (got.refusal == "") != (tt.refusal == "") || !strings.Contains(got.refusal, tt.refusal) {
				t.Errorf("got %+v, want %v aside=%v refusal %q", got, tt.want, tt.aside, tt.refusal)
			}
		})
	}
}

func TestBehind(t *testing.T) {
	standbys := []standby{{"a", true, 100, 100}, {"b", true, 100, 90}, {"c", false, 0, 0}, {"old", true, 60, 150}}
	tests := map[string]struct {
		union, added []string
		want         string
	}{
		"all have it":                                      {[]string{"a"}, []string{"a"}, ""},
		"one that was added is behind":                     {[]string{"a", "b"}, []string{"b"}, "b"},
		"one that was there before is behind":              {[]string{"a", "b"}, []string{"a"}, "b"},
		"one that was added and is away":                   {[]string{"a", "d"}, []string{"d"}, "d"},
		"one that says it has what it was not sent":        {[]string{"a", "old"}, []string{"old"}, "old"},
		"one that was there before and says so":            {[]string{"a", "old"}, []string{"a"}, "old"},
		"one that was there before and is away counts not": {[]string{"a", "d"}, []string{"a"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(behind(standbys, tt.union, tt.added, 100), ","); got != tt.want {
				t.Errorf("behind are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseStandbys(t *testing.T) {
	for setting, want := range map[string]string{"": "", `FIRST 2 ("north-2", "south-1")`: "north-2,south-1", `FIRST 1 ("north-2")`: "north-2"} {
		if got := strings.Join(parseStandbys(setting), ","); got != want {
			t.Errorf("%q names %q, want %q", setting, got, want)
		}
	}
}

func TestSegmentStart(t *testing.T) {
	if got, err := segmentStart("0000000100000003", 16<<20); err != nil || got != 1<<32+3*16<<20 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := segmentStart("x", 16<<20); err == nil {
		t.Error("x has a position")
	}
}

func TestVolume(t *testing.T) {
	for name, tc := range map[string]struct {
		status *agentv1.GuardStatus
		want   driver.CopyState
	}{
		"a new volume":              {&agentv1.GuardStatus{}, driver.CopyEmpty},
		"one that is being filled":  {&agentv1.GuardStatus{Busy: "Copy"}, driver.CopyPartial},
		"a rewind that was torn":    {&agentv1.GuardStatus{Formed: true, Torn: true}, driver.CopyPartial},
		"a copy that is stopped":    {&agentv1.GuardStatus{Formed: true, Mode: agentv1.DatabaseMode_DATABASE_MODE_STOPPED}, ""},
		"a copy that runs is whole": {&agentv1.GuardStatus{Formed: true, Mode: agentv1.DatabaseMode_DATABASE_MODE_REPLICA}, driver.CopyWhole},
	} {
		if tc.status.Mode == 0 {
			tc.status.Mode = agentv1.DatabaseMode_DATABASE_MODE_STOPPED
		}
		if got := fromStatus(tc.status).Copy; got != tc.want {
			t.Errorf("%s is %q, want %q", name, got, tc.want)
		}
	}
}
